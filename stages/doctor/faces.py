"""What is wrong with the motion of faces: frozen, repeated, trembling, of another scale, mirrored, dull, unseen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.face_rows import Figures
from visavis.stages.doctor.excerpt import Excerpt, Sums
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.training.runs import runs

_ENOUGH = 8 * FPS  # frames
_STILL = 1e-4  # of a column's usual change, below which nothing has moved
_LONG = FPS // 2  # frames; what stands still as long is frozen, what is shorter is repeated
_FROZEN, _REPEATED = 0.03, 0.04  # shares of the frames
_ALIKE = 0.75  # correlation of how two heads turn
_SCALE = 5.0  # times the usual deviation, or a part of it
_TREMBLES = 4.0  # times what is usual
_DULL = 0.3  # of the usual motion while the other speaks
_SEEN = 0.3  # share of the frames
_CUT = 0.75  # confidence: how much a face looks as usual, times the share of it in the picture
_POSE = 3  # columns: pitch, yaw, roll
_MIRROR = np.array([1.0, -1.0, -1.0])


def measure(excerpt: Excerpt, change_D: np.ndarray) -> Sums:
    """Sums over frames that are seen. change_D: float64, how much each column usually changes from frame to frame."""
    each = [_of_one(excerpt, change_D, person) for person in (0, 1)]
    sums = {f"faces.{name}": np.array([each[0][name], each[1][name]]) for name in each[0]}
    return sums | {"faces.frames": np.array(float(len(excerpt.state_T))), "faces.turn": _turn(excerpt)}


def _of_one(excerpt: Excerpt, change_D: np.ndarray, person: int) -> dict[str, float]:
    motion_TD, valid_T = excerpt.motion_PTD[person].astype(np.float64), excerpt.valid_PT[person]
    speaks_PT, step_TD = excerpt.speaks_PT, np.diff(motion_TD, axis=0) / change_D
    both_T = valid_T[1:] & valid_T[:-1]
    still_T = both_T & (np.abs(step_TD).max(axis=1, initial=0) < _STILL)
    spans = [last - first for first, last in runs(still_T)]
    bend_TD, thrice_T = np.diff(step_TD, axis=0), both_T[1:] & both_T[:-1]
    listens_T = (speaks_PT[1 - person] & ~speaks_PT[person])[1:] & both_T
    return {
        "valid": float(valid_T.sum()),
        "still": float(sum(s for s in spans if s >= _LONG)),
        "short": float(sum(s for s in spans if s < _LONG)),
        "moves": float((step_TD[both_T] ** 2).mean(axis=1).sum()),
        "bends": float((bend_TD[thrice_T] ** 2).mean(axis=1).sum()),
        "listens": float(np.abs(step_TD[listens_T]).mean(axis=1).sum()),
        "listening": float(listens_T.sum()),
    }


def _turn(excerpt: Excerpt) -> np.ndarray:
    """Products of how both heads turn, column by column, and of each with itself: [3, 3]."""
    both_T = excerpt.valid_PT.all(axis=0)
    if both_T.sum() < FPS or excerpt.motion_PTD.shape[2] < _POSE:
        return np.zeros((3, _POSE))
    step_PTC = np.diff(excerpt.motion_PTD[:, both_T, :_POSE].astype(np.float64), axis=1)
    one_TC, other_TC = step_PTC
    return np.stack([(one_TC * other_TC).sum(axis=0), (one_TC**2).sum(axis=0), (other_TC**2).sum(axis=0)])


def energy(sums: Sums, person: int) -> float:
    """Motion while listening against the usual; NaN where nobody listens for ten seconds."""
    listening = float(sums["faces.listening"][person])
    return float(sums["faces.listens"][person] / listening) if listening >= 10 * FPS else float("nan")


def trembling(sums: Sums, person: int) -> float:
    """How much the change changes, against the change itself."""
    moves = float(sums["faces.moves"][person])
    return float(np.sqrt(sums["faces.bends"][person] / moves)) if moves > 0 else float("nan")


def speed(sums: Sums, person: int) -> float:
    """Root mean square of the change, in units of the corpus."""
    valid = float(sums["faces.valid"][person])
    return float(np.sqrt(sums["faces.moves"][person] / valid)) if valid >= _ENOUGH else float("nan")


def judge(sums: Sums, usual: dict[str, float]) -> Iterator[Sign]:
    """usual: medians of `energy`, `trembling` and `speed` over the corpus."""
    for person in (0, 1):
        valid = float(sums["faces.valid"][person])
        seen = valid / max(float(sums["faces.frames"]), 1.0)
        if valid < _ENOUGH:
            if sums["faces.frames"] >= 2 * _ENOUGH:
                yield Sign(
                    Kind.UNSEEN, certainty(_SEEN - seen, 0.0, _SEEN), f"seen in {100 * seen:.0f} % of it", person
                )
            continue
        yield from _of_person(sums, usual, person, valid)
    yield from _alike(sums["faces.turn"])


def _of_person(sums: Sums, usual: dict[str, float], person: int, valid: float) -> Iterator[Sign]:
    frozen, repeated = (float(sums[f"faces.{name}"][person]) / valid for name in ("still", "short"))
    if frozen > _FROZEN:
        yield Sign(Kind.FROZEN, certainty(frozen, _FROZEN, 0.15), f"stands still in {100 * frozen:.0f} % of it", person)
    if repeated > _REPEATED:
        yield Sign(
            Kind.REPEATED,
            certainty(repeated, _REPEATED, 0.2),
            f"{100 * repeated:.0f} % of the frames are the one before",
            person,
        )
    fast = speed(sums, person) / max(usual["speed"], 1e-9)
    if max(fast, 1 / max(fast, 1e-9)) > _SCALE and frozen < 0.5:
        yield Sign(
            Kind.OUT_OF_RANGE,
            certainty(max(fast, 1 / max(fast, 1e-9)), _SCALE, 20),
            f"moves {fast:.2g} times as much as is usual",
            person,
        )
        return
    shakes, lively = trembling(sums, person), energy(sums, person) / max(usual["energy"], 1e-9)
    most = 1.5 * usual["trembling"]
    if shakes > most and fast > 1.3 and repeated <= _REPEATED:
        yield Sign(
            Kind.JITTERY,
            certainty(shakes, most, 2 * most),
            f"its motion changes course {shakes / usual['trembling']:.1f} times as often as is usual",
            person,
        )
    if lively < _DULL and frozen <= _FROZEN:
        yield Sign(
            Kind.DULL,
            certainty(_DULL - lively, 0.0, 0.2),
            f"moves {100 * lively:.0f} % as much as is usual while the other speaks",
            person,
        )


def _alike(turn: np.ndarray) -> Iterator[Sign]:
    scale = np.sqrt(turn[1] * turn[2])
    if not (scale > 0).all():
        return
    each = turn[0] / scale
    for kind, sign in ((Kind.SAME_FACE, 1.0), (Kind.MIRRORED, _MIRROR)):
        least = float((each * sign).min())
        if least > _ALIKE:
            yield Sign(kind, certainty(least, _ALIKE, 0.95), f"both heads turn alike by {least:.2f}")


def judge_figures(figures: tuple[Figures | None, Figures | None], usual: dict[str, float]) -> Iterator[Sign]:
    """How well each can be seen, as the stage `cast` measured it. usual: medians of the corpus."""
    for person, found in enumerate(figures):
        if found is None:
            continue
        least = 0.2 * usual["sharpness"] * min(1.0, 150.0 / max(found.face_size, 1.0))
        if found.sharpness < least and found.face_size > 0.8 * usual["face_size"]:
            said = (
                f"sharpness {found.sharpness:.0f} at {found.face_size:.0f} pixels, usual are {usual['sharpness']:.0f}"
            )
            yield Sign(Kind.ENLARGED, certainty(least / max(found.sharpness, 1e-6), 1, 3), said, person)
        if found.confidence < _CUT < usual["confidence"] - 0.1:
            said = f"confidence {found.confidence:.2f}, usual are {usual['confidence']:.2f}"
            yield Sign(Kind.CROPPED, certainty(_CUT - found.confidence, 0, 0.3), said, person)
        if found.visible < _SEEN:
            yield Sign(
                Kind.UNSEEN,
                certainty(_SEEN - found.visible, 0, _SEEN),
                f"seen in {100 * found.visible:.0f} % of it",
                person,
            )

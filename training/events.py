"""Nods, shakes, smiles, raised brows, laughs and blinks, found in motion of any codec that can tell them.

Each is a bump of one signal, which a codec's columns give as a weighted sum (`readouts`): the head's pitch and yaw, how
wide the mouth is, how high the brows, how far eyes are closed and the jaw is open. A bump is a peak of a length that
the kind can have, as `scipy.signal.find_peaks` finds it; a nod or a shake may go either way, and those less than a
quarter of a second apart are one of several cycles. How high a bump must be to be an event is asked of the recorded
motion (`thresholds`): heights are split in two where the variance between both parts is largest (Otsu 1979). A laugh is
a smile, mostly without a turn, in which the jaw opens where the person does not speak.

Shape suffixes: T frames, D columns, E events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from visavis.schemas import FPS
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.manifest import Manifest

Kind = Literal["nod", "shake", "smile", "brow", "blink", "laugh"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Spans = Int[np.ndarray, "E 2"]
"""First frame and first frame after it, at half of the height; the first is the onset."""
TD = Float[np.ndarray, "T D"]
MaskT = Bool[np.ndarray, "T"]
Readouts = Mapping[str, Float[np.ndarray, "D"]]
"""Weights of the columns by signal: pitch, yaw, smile, brow, blink, jaw, gaze_x, gaze_y, as far as they can be told."""

_NAMED = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "brow": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "jaw": ("jawOpen",),
}
_GAZE = {  # what turns the eyes to the person's left, and up, and what turns them back
    "gaze_x": (("eyeLookOutLeft", "eyeLookInRight"), ("eyeLookInLeft", "eyeLookOutRight")),
    "gaze_y": (("eyeLookUpLeft", "eyeLookUpRight"), ("eyeLookDownLeft", "eyeLookDownRight")),
}
# MediaPipe's landmarks in canonical space (x right, y up): what goes up less what stays, and the axis.
_LANDMARKS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "smile": ((291,), (61,), 0),  # corners of the mouth
    "brow": ((105, 334), (33, 133, 362, 263), 1),  # above the corners of the eyes
    "blink": ((145, 374), (159, 386), 1),  # lower lids, towards the upper ones
    "jaw": ((13,), (14,), 1),  # inner lips
}
_APART = FPS // 4  # frames; closer nods or shakes are cycles of one
_SMOOTH = np.array([1, 2, 3, 2, 1]) / 9  # generated motion trembles


@dataclass(frozen=True)
class _Shape:
    signal: str
    widths: tuple[int, int]  # frames at half of the height
    cycles: bool = False  # either way, several in a row
    smooth: bool = True


_SHAPES: dict[str, _Shape] = {
    "nod": _Shape("pitch", (3, 20), cycles=True),
    "shake": _Shape("yaw", (3, 20), cycles=True),
    "smile": _Shape("smile", (8, 10 * FPS)),
    "brow": _Shape("brow", (3, 2 * FPS)),
    "blink": _Shape("blink", (1, 10), smooth=False),
    "jaw": _Shape("jaw", (2, FPS)),
}


def readouts(manifest: Manifest, basis_EK: Float[np.ndarray, "E K"] | None = None) -> dict[str, np.ndarray]:
    """What the columns of a dataset's motion can tell.

    Args:
        basis_EK: the codec's, which takes the expression's code to landmarks; columns with names of blendshapes are
            taken before it.
    """
    motion = manifest.motion
    names = [column.name for column in manifest.columns or ()]
    return column_readouts(motion.dim, range(*motion.rotation), range(*motion.expression), names, basis_EK)


def column_readouts(
    dim: int,
    rotation: Sequence[int],
    expression: Sequence[int],
    names: Sequence[str] = (),
    basis_EK: Float[np.ndarray, "E K"] | None = None,
) -> dict[str, np.ndarray]:
    """The same of any motion of `dim` columns; rotation, expression: which they are."""
    place = {name: i for i, name in enumerate(names)}

    def mean(wanted: Iterable[str]) -> np.ndarray:
        return np.asarray(np.eye(dim)[[place[name] for name in wanted if name in place]].mean(axis=0))

    found = {signal: np.eye(dim)[column] for signal, column in zip(("pitch", "yaw"), rotation, strict=False)}
    for signal, wanted in _NAMED.items():
        if any(name in place for name in wanted):
            found[signal] = mean(wanted)
        elif basis_EK is not None and basis_EK.shape == (len(expression), LANDMARKS * 3):
            up, down, axis = _LANDMARKS[signal]
            points_EL3 = basis_EK.reshape(-1, LANDMARKS, 3).astype(np.float64)
            found[signal] = np.zeros(dim)
            found[signal][list(expression)] = points_EL3[:, up, axis].mean(1) - points_EL3[:, down, axis].mean(1)
    for signal, (there, back) in _GAZE.items():
        if all(name in place for name in (*there, *back)):
            found[signal] = mean(there) - mean(back)
    return found


def not_told(signals: Readouts) -> tuple[Kind, ...]:
    """Kinds that columns with such readouts cannot tell."""
    return tuple(kind for kind in KINDS if any(need not in signals for need in _needs(kind)))


def _needs(kind: Kind) -> tuple[str, ...]:
    return ("smile", "jaw") if kind == "laugh" else (_SHAPES[kind].signal,)


def thresholds(motions: Iterable[tuple[TD, MaskT]], signals: Readouts) -> dict[str, float]:
    """How high bumps of recorded motion must be to be events, by kind and `jaw`; infinite where there are no two bumps.

    Args:
        motions: recorded, each with the frames that are valid.
    """
    heights: dict[str, list[np.ndarray]] = {name: [] for name, shape in _SHAPES.items() if shape.signal in signals}
    for motion_TD, valid_T in motions:
        for name, found in heights.items():
            found.append(_bumps(motion_TD @ signals[_SHAPES[name].signal], valid_T, _SHAPES[name])[1])
    return {name: _otsu(np.concatenate(found)) if found else np.inf for name, found in heights.items()}


def events(
    motion_TD: TD, valid_T: MaskT, speaks_T: MaskT, signals: Readouts, least: Mapping[str, float]
) -> dict[Kind, np.ndarray]:
    """Spans [E, 2] of the kinds that can be told, in order. speaks: the person has a turn.

    Events that touch a frame which is not valid are left out.
    """
    spans: dict[str, np.ndarray] = {}
    for name, height in least.items():
        shape = _SHAPES[name]
        found_E2, heights_E = _bumps(motion_TD @ signals[shape.signal], valid_T, shape)
        high_E2 = found_E2[heights_E >= height]
        spans[name] = _joined(high_E2) if shape.cycles else high_E2
    if "smile" in spans and "jaw" in spans:
        jaw = [(a, b) for a, b in spans["jaw"] if not speaks_T[a:b].any()]
        opens = [any(first <= a and b <= last for a, b in jaw) for first, last in spans["smile"]]
        quiet = [speaks_T[a:b].mean() < 0.5 for a, b in spans["smile"]]
        spans["laugh"] = spans["smile"][np.array(opens, bool) & np.array(quiet, bool)]
    return {kind: spans[kind] for kind in KINDS if kind in spans}


def _bumps(signal_T: np.ndarray, valid_T: MaskT, shape: _Shape) -> tuple[np.ndarray, np.ndarray]:
    """Spans [E, 2] and heights [E] of all bumps of a shape, whatever their height."""
    from scipy.signal import find_peaks  # heavy, and drivers know the stages by their files

    if len(signal_T) < 3 or not valid_T.any():
        return np.zeros((0, 2), int), np.zeros(0)
    frames = np.arange(len(signal_T))  # a straight line over what is not seen, so that it lifts no bump beside it
    signal_T = np.interp(frames, frames[valid_T], signal_T[valid_T].astype(np.float64))
    if shape.smooth:
        signal_T = np.convolve(np.pad(signal_T, 2, mode="edge"), _SMOOTH, mode="valid")
    spans, heights = [np.zeros((0, 2), int)], [np.zeros(0)]
    for sign in (1, -1) if shape.cycles else (1,):
        _, found = find_peaks(sign * signal_T, prominence=1e-9, width=shape.widths)
        spans.append(np.stack([found["left_ips"].round(), found["right_ips"].round() + 1], axis=1).astype(int))
        heights.append(found["prominences"])
    both, high = np.concatenate(spans), np.concatenate(heights)
    unseen = np.concatenate([[0], np.cumsum(~valid_T)])
    whole = unseen[np.minimum(both[:, 1], len(valid_T))] == unseen[both[:, 0]]
    order = np.argsort(both[whole, 0], kind="stable")
    return both[whole][order], high[whole][order]


def _joined(spans_E2: Spans) -> Int[np.ndarray, "J 2"]:
    """Spans less than `_APART` apart as one."""
    made: list[list[int]] = []
    for first, end in spans_E2.tolist():
        if made and first - made[-1][1] < _APART:
            made[-1][1] = max(made[-1][1], end)
        else:
            made.append([first, end])
    return np.array(made, int).reshape(-1, 2)


def _otsu(heights_E: np.ndarray) -> float:
    """The height that parts them best in two."""
    heights = np.sort(heights_E)
    if len(heights) < 2 or heights[0] == heights[-1]:
        return float(heights[0]) if len(heights) > 1 else np.inf
    below = np.arange(1, len(heights))
    sums = np.cumsum(heights)[:-1]
    gap = sums / below - (heights.sum() - sums) / (len(heights) - below)
    at = int(np.argmax(below * (len(heights) - below) * gap * gap))
    return float((heights[at] + heights[at + 1]) / 2)

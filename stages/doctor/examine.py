"""Three steps: what is usual in a corpus is learned, each stretch is measured, each conversation is judged."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.stages.doctor import bleed, faces, lips, sound, turns
from visavis.stages.doctor.excerpt import Excerpt, Sums, added
from visavis.stages.doctor.findings import Sign
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import SAMPLE, About, Scratch

_EXPLAINS = {
    Kind.DEAD_TRACK: {Kind.WRONG_VOICE, Kind.TURNS_WRONG},
    Kind.SAME_SOUND: {Kind.SWAPPED, Kind.WRONG_VOICE, Kind.TURNS_WRONG, Kind.BLEED},
    Kind.INVERTED: {Kind.SWAPPED, Kind.WRONG_VOICE, Kind.TURNS_WRONG, Kind.BLEED},
    Kind.SWAPPED: {Kind.WRONG_VOICE, Kind.TURNS_WRONG, Kind.TURNS_SHIFTED},
    Kind.WRONG_VOICE: {Kind.TURNS_WRONG, Kind.TURNS_SHIFTED, Kind.NOT_PARTNERS, Kind.AV_DRIFT},
    Kind.AV_DRIFT: {Kind.TURNS_WRONG, Kind.TURNS_SHIFTED, Kind.PARTNERS_SHIFTED, Kind.NOT_PARTNERS},
    Kind.AV_OFFSET: {Kind.TURNS_SHIFTED},
    Kind.TURNS_SHIFTED: {Kind.BLEED},  # how loud it is is read where only the other speaks
    Kind.TURNS_WRONG: {Kind.BLEED},
    Kind.PARTNERS_SHIFTED: {Kind.NOT_PARTNERS},
    Kind.SAME_FACE: {Kind.WRONG_VOICE, Kind.SWAPPED, Kind.AV_OFFSET, Kind.AV_DRIFT, Kind.JITTERY, Kind.DULL},
    Kind.MIRRORED: {Kind.WRONG_VOICE, Kind.SWAPPED, Kind.AV_OFFSET, Kind.AV_DRIFT, Kind.JITTERY, Kind.DULL},
    Kind.FROZEN: {Kind.DULL, Kind.WRONG_VOICE, Kind.OUT_OF_RANGE},
    Kind.OUT_OF_RANGE: {Kind.WRONG_VOICE, Kind.DULL, Kind.JITTERY},
}
"""What follows from another finding of the same person or of both is not told again."""


class Learner:
    """What is usual in the motion of a corpus, from some of its conversations."""

    def __init__(self) -> None:
        self._sums: Sums = {}
        self._motion: Sums = {}

    def add(self, excerpt: Excerpt) -> None:
        self._sums = added(self._sums, lips.learn(excerpt))
        for motion_TD, valid_T in zip(excerpt.motion_PTD, excerpt.valid_PT, strict=True):
            seen_VD, step_VD = motion_TD[valid_T].astype(np.float64), np.diff(motion_TD, axis=0)[valid_T[1:]]
            if len(seen_VD) > 2:
                mean_D = seen_VD.mean(axis=0)
                count = np.array(float(len(seen_VD)))
                these = {
                    "count": count,
                    "square": ((seen_VD - mean_D) ** 2).sum(axis=0),
                    "step": np.median(np.abs(step_VD), axis=0) * count,
                }
                self._motion = added(self._motion, these)

    def usual(self) -> tuple[lips.Lips | None, np.ndarray]:
        """How lips follow a voice, and how much each column of motion changes from frame to frame, float64 [D]."""
        if not self._motion:
            return None, np.ones(1)
        count = float(self._motion["count"])
        spread_D = np.sqrt(self._motion["square"] / count) + 1e-6
        change_D = self._motion["step"] / count
        return lips.lips_of(self._sums), np.maximum(change_D, 1e-3 * spread_D)


def measure(excerpt: Excerpt, voice: lips.Lips | None, change_D: np.ndarray) -> Sums:
    """All sums of a stretch; of the corpus, what `Learner.usual` gives."""
    return {
        **sound.measure(excerpt),
        **bleed.measure(excerpt),
        **lips.measure(excerpt, voice),
        **turns.measure(excerpt),
        **faces.measure(excerpt, change_D),
    }


def hear(excerpt: Excerpt) -> Sums:
    """Sums of a stretch of which nothing but the sound is known."""
    return {**sound.measure(excerpt), **bleed.measure(excerpt)}


class Judge:
    """Holds each conversation against what is usual in the corpus. sound_only: as `hear` measures it."""

    def __init__(self, scratch: Scratch, *, sound_only: bool = False) -> None:
        self._sound_only = sound_only
        columns: dict[str, list[float]] = {
            name: [] for name in ("loud", "lips", "turns", "energy", "trembling", "speed")
        }
        nats = list[tuple[float, float]]()
        figures: dict[str, list[float]] = {name: [] for name in ("sharpness", "face_size", "confidence")}
        for _, about, sums in scratch.talks(SAMPLE):
            columns["loud"] += [sound.loudness(sums, person) for person in (0, 1)]
            if sound_only:
                continue
            columns["lips"] += lips.own_fit(sums)
            columns["turns"] += turns.own_fit(sums)
            nats.append(turns.nats_of(sums))
            for person in (0, 1):
                for name in ("energy", "trembling", "speed"):
                    columns[name].append(getattr(faces, name)(sums, person))
            for found in about.figures:
                for name, values in figures.items() if found else ():
                    values.append(getattr(found, name))
        self.usual = {name: _median(values) for name, values in columns.items()}
        nats_N, seconds_N = np.array([each for each in nats if each[1]]).reshape(-1, 2).T
        self._evidence = turns.Evidence.of(nats_N, seconds_N)
        self._figures = {name: _median(values) for name, values in figures.items()}

    def signs(self, about: About, sums: Sums) -> list[Sign]:
        """What speaks against a conversation, without what follows from something else."""
        absent = _absent(sums)
        found = [sign for sign in self._all(about, sums) if absent is None or sign.person != absent]
        return [sign for sign in found if not any(_explains(other, sign) for other in found)]

    def _all(self, about: About, sums: Sums) -> Iterator[Sign]:
        yield from sound.judge(sums, self.usual["loud"])
        yield from bleed.judge(sums)
        if self._sound_only:
            return
        yield from lips.judge(sums, self.usual["lips"])
        yield from turns.judge(sums, self.usual["turns"], self._evidence)
        yield from faces.judge(sums, self.usual)
        yield from faces.judge_figures(about.figures, self._figures)


def _explains(one: Sign, other: Sign) -> bool:
    same = one.person == other.person or None in (one.person, other.person)
    return same and other.kind in _EXPLAINS.get(one.kind, ())


def _absent(sums: Sums) -> int | None:
    """Who of the two is neither seen nor heard at all, as where a corpus has one side only."""
    if "faces.valid" not in sums:
        return None
    there = [bool(sums["faces.valid"][i] or sums["sound.flat"][i] < sums["sound.frames"]) for i in (0, 1)]
    return there.index(False) if any(there) and not all(there) else None


def _median(values: list[float]) -> float:
    known = np.array([value for value in values if np.isfinite(value)])
    return float(np.median(known)) if len(known) else 0.0

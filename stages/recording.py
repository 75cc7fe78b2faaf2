"""Recording: a conversation of a public corpus, whose motion is given, on one grid.

What does not fit is rejected with a reason: no motion of either, a voice that is missing, numbers that are not finite,
lengths that are too far apart. Lengths that differ by less are cut to the shortest motion, and told (`differ`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.imports import RecordingConfig
from visavis.schemas.recordings import Recorded, RecordedPerson, Recording, RecordingFacts
from visavis.schemas.rows import Row
from visavis.stages.base import Stage
from visavis.stages.corpora.coefficients import Taken, joined
from visavis.stages.corpora.layouts import codec_of, motion_of, voice_seconds


class RecordingInput(Row):
    recorded: Recorded


class RecordingStage(Stage[RecordingInput, Recording]):
    """A listed conversation to the motion of both."""

    name = "recording"
    version = 1
    config: RecordingConfig

    def process(self, item: RecordingInput) -> Iterator[Recording]:
        """One row.

        Raises:
            Rejected: INCOMPLETE_DYAD, NO_MOTION, NO_AUDIO, UNREADABLE, TOO_SHORT, TOO_LONG, AV_LENGTH_MISMATCH.
        """
        recorded = item.recorded
        _check_complete(recorded)
        solo = len(recorded.people) == 1
        people = (*recorded.people, RecordedPerson(name=f"nobody beside {recorded.name}"))[:2]
        taken = [self._taken(recorded, person) if person.motion else None for person in people]
        frames, differ = self._grid(recorded, people, taken)
        codec = codec_of(recorded.layout, self.config.exp)
        sides = [self._side(each, person, frames) for each, person in zip(taken, people, strict=True)]
        width = next(motion.shape[1] for motion, _ in sides if motion.size)
        empty = np.zeros((frames, width), np.float32), np.zeros(frames, bool)
        (one, one_valid), (other, other_valid) = (side if side[0].size else empty for side in sides)
        yield Recording(
            conversation=recorded.id,
            participants=(people[0].name, people[1].name),
            codec=codec,
            motion=(one, other),
            valid=(one_valid, other_valid),
            heard=(bool(people[0].sound), bool(people[1].sound) and not solo),
            differ=round(differ, 4),
            speech=_speech(taken, people, frames),
        )

    def facts(self, rows: Sequence[Recording]) -> str:
        """`RecordingFacts`."""
        missing = sum(not valid.any() for valid in rows[0].valid)
        return RecordingFacts(frames=rows[0].frames, differ=rows[0].differ, missing=missing).model_dump_json()

    def _taken(self, recorded: Recorded, person: RecordedPerson) -> Taken:
        clock = next((p for p in recorded.people if p.sound), person) if person.silent else person
        return motion_of(recorded.layout, person, self.config.exp, clock)

    def _grid(
        self, recorded: Recorded, people: Sequence[RecordedPerson], taken: Sequence[Taken | None]
    ) -> tuple[int, float]:
        """Frames of the grid, and seconds by which what is given differs in length."""
        lengths = [each.frames(person.name) / FPS for each, person in zip(taken, people, strict=True) if each]
        frames = round(min(lengths) * FPS)
        if frames / FPS > self.config.max_hours * 3600:
            raise Rejected(Reason.TOO_LONG, f"{frames / FPS / 3600:.1f} h")
        if frames / FPS < self.config.min_duration:
            raise Rejected(Reason.TOO_SHORT, f"{frames / FPS:.2f} s")
        sounds = [voice_seconds(recorded.layout, person) for person in people if person.sound]
        differ = max(*lengths, *sounds, 0.0) - min([*lengths, *sounds])
        if differ > self.config.max_length_mismatch:
            said = f"motion {_seconds(lengths)}, voices {_seconds(sounds)}"
            raise Rejected(Reason.AV_LENGTH_MISMATCH, said)
        return frames, differ

    def _side(self, taken: Taken | None, person: RecordedPerson, frames: int) -> tuple[np.ndarray, np.ndarray]:
        if taken is None:
            return np.zeros((0, 0), np.float32), np.zeros(0, bool)
        where = person.key or person.motion.rpartition("/")[2]
        valid_T = np.ones(frames, bool) if taken.valid_T is None else taken.valid_T[:frames]
        parts = {name: _held(part[:frames], valid_T) for name, part in taken.parts.items()}
        return joined(parts, where, self.config.largest), valid_T


def _check_complete(recorded: Recorded) -> None:
    if recorded.amiss:
        raise Rejected(Reason.UNREADABLE, recorded.amiss)
    if not any(person.motion for person in recorded.people):
        raise Rejected(Reason.NO_MOTION, recorded.name)
    if len(recorded.people) == 1:
        return
    if absent := [person.name for person in recorded.people if not (person.sound or person.silent)]:
        reason = Reason.INCOMPLETE_DYAD if not all(p.motion or p.sound for p in recorded.people) else Reason.NO_AUDIO
        raise Rejected(reason, f"no voice of {' and '.join(absent)}")


def _held(part_TD: np.ndarray, valid_T: np.ndarray) -> np.ndarray:
    """Frames that are not valid are straight lines between their valid neighbours, so that all are finite."""
    if valid_T.all() or not valid_T.any():
        return part_TD
    seen = np.flatnonzero(valid_T)
    frames = np.arange(len(valid_T))
    return np.stack([np.interp(frames, seen, column[seen]) for column in part_TD.T], axis=1)


def _speech(taken: Sequence[Taken | None], people: Sequence[RecordedPerson], frames: int) -> np.ndarray | None:
    """Who speaks, where the corpus says it of everybody who is heard."""
    state_T = np.zeros(frames, np.uint8)
    for number, (each, person) in enumerate(zip(taken, people, strict=True)):
        if each is not None and each.speaks_T is not None:
            state_T |= each.speaks_T[:frames].astype(np.uint8) << number
        elif person.sound:
            return None
    return state_T


def _seconds(lengths: Sequence[float]) -> str:
    return " and ".join(f"{length:.2f} s" for length in lengths) or "none"

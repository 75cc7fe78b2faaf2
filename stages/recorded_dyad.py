"""A recording of a public corpus to a dyad with its windows, from both sides, as `stages.windows` makes of a film.

Who has no motion is nobody's avatar; beside such a user, or beside nobody at all, the other one still is one. Such
a user is valid in no frame: heard, where there is a voice, and seen at rest; who is not heard either is no user at all
(`training.objective.has_user`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from visavis.schemas.coefficients import ROTATION, dims_of, groups_of
from visavis.schemas.dyads import Dyad
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.recordings import Recording
from visavis.schemas.rows import Diarization, Layout, Row
from visavis.schemas.windows_config import WindowsConfig
from visavis.schemas.words import counted
from visavis.stages.base import Stage
from visavis.stages.corpora.coefficients import energy
from visavis.stages.media.audio import speech_state
from visavis.stages.voice.backchannels import mark_backchannels
from visavis.stages.windows import cut_windows, facts_of, moments_of
from visavis.training.events import column_readouts
from visavis.training.labels import happened

_NO_FACE = np.zeros(0, np.float32)


class RecordedDyadInput(Row):
    recording: Recording
    diarization: Diarization


class RecordedDyadStage(Stage[RecordedDyadInput, Dyad]):
    """Windows of a recording."""

    name = "dyad"
    version = 2
    config: WindowsConfig

    def process(self, item: RecordedDyadInput) -> Iterator[Dyad]:
        """One row.

        Raises:
            Rejected: NO_WINDOW.
        """
        recording = item.recording
        turns = mark_backchannels(item.diarization.turns, self.config.backchannels)
        state_T = speech_state(turns, recording.frames)
        motion, valid = recording.motion, recording.valid

        def strays(avatar: int, span: slice) -> float:
            return energy(recording.codec, motion[avatar][span])

        avatars = [person for person in (0, 1) if valid[person].any()]
        windows = tuple(cut_windows(recording.conversation, state_T, valid, self.config, strays, avatars=avatars))
        if not windows:
            said = f"no {self.config.length} frames in a row with valid motion in {counted(recording.frames, 'frame')}"
            raise Rejected(Reason.NO_WINDOW, said)
        one, other = (_reference(m, v) for m, v in zip(motion, valid, strict=True))
        found = happened(motion, valid, state_T, _signals(recording.codec), self.config.labels, named=True)
        yield Dyad(
            conversation=recording.conversation,
            participants=recording.participants,
            layout=Layout.PER_PARTICIPANT,
            codec=recording.codec,
            scores=(1.0, 1.0),
            figures=(None, None),
            motion=motion,
            valid=valid,
            reference=(one, other),
            neutral=(_NO_FACE, _NO_FACE),
            neutral_code=(_NO_FACE, _NO_FACE),
            state=state_T,
            windows=windows,
            moments=(moments_of(motion[0], valid[0]), moments_of(motion[1], valid[1])),
            events=found.events,
            told=found.told,
            blinks_min=found.blinks_min,
        )

    def facts(self, rows: Sequence[Dyad]) -> str:
        """`DyadFacts`."""
        return facts_of(rows[0]).model_dump_json()


def _signals(codec: str) -> dict[str, np.ndarray]:
    """Of a face model's coefficients only the head's rotation has a meaning that is the same for all."""
    dim = dims_of(codec)
    pose = groups_of(codec).get(ROTATION, slice(0, 0))
    return column_readouts(dim, range(dim)[pose], ())


def _reference(motion_TD: np.ndarray, valid_T: np.ndarray) -> np.ndarray:
    """The frame nearest to the person's median; zeros of nobody."""
    seen = motion_TD[valid_T]
    if not len(seen):
        return np.zeros(motion_TD.shape[1], np.float32)
    spread = seen.std(0) + 1e-6
    nearest = (((seen - np.median(seen, 0)) / spread) ** 2).sum(1).argmin()
    return np.ascontiguousarray(seen[nearest], np.float32)

"""Windows: the fixed-length samples that a dyad offers, in both role assignments.

Every dyad is used twice, once with each person as the avatar. A window lies within one shot of either's video: what a
cut does to a face is no motion. Its class is what most of its frames are, seen from the avatar (`method.md` §6):
speaking, listening, overlap or silence. Back-channels are listening, not turns (`stages.voice.backchannels`); their
sound stays in the voices. Nothing is copied here: windows are spans, the dyad's motion is kept once, and its voices
stay where `separate` put them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np

from visavis.schemas.dyads import Codec, Dyad, DyadFacts, Motion, Window, WindowClass
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Binding, Conversation, Row
from visavis.schemas.voice_rows import Transcript
from visavis.schemas.windows_config import WindowsConfig
from visavis.schemas.words import counted
from visavis.stages.base import Stage
from visavis.stages.face.codec import movement, named_columns
from visavis.stages.face.heads import POSE_DIMS
from visavis.stages.media.audio import speech_state
from visavis.stages.voice.backchannels import mark_backchannels
from visavis.training.events import column_readouts
from visavis.training.labels import Happened, happened

_HEAD_RADIUS = 8.0  # cm; turns head rotation into the movement of a point on the face

_CLASS_OF_TURNS = (WindowClass.SILENCE, WindowClass.SPEAKING, WindowClass.LISTENING, WindowClass.OVERLAP)
"""Indexed by bit 0 avatar speaks, bit 1 user speaks."""

_TURNS, _LISTENS = 0b0011, 0b0100  # bits of the avatar's state: who has a turn; the avatar makes a back-channel


class WindowsInput(Row):
    codec: Codec
    conversation: Conversation
    binding: Binding
    motion: tuple[Motion, ...]
    transcript: tuple[Transcript, ...] = ()  # one, where there is one


class WindowsStage(Stage[WindowsInput, Dyad]):
    """A bound conversation to a dyad with its windows."""

    name = "windows"
    version = 8
    config: WindowsConfig

    def process(self, item: WindowsInput) -> Iterator[Dyad]:
        frames = item.conversation.frames
        first, second = sorted(item.motion, key=lambda m: m.participant)
        turns = mark_backchannels(item.binding.turns, self.config.backchannels, next(iter(item.transcript), None))
        state = speech_state(turns, frames)
        cuts = {cut for motion in (first, second) for cut in motion.cuts}

        def strays(avatar: int, span: slice) -> float:
            return expressiveness(item.codec, (first, second)[avatar].motion[span])

        valid = first.valid, second.valid
        windows = tuple(cut_windows(item.conversation.id, state, valid, self.config, strays, cuts=cuts))
        if not windows:
            raise Rejected(
                Reason.NO_WINDOW,
                f"no {self.config.length} frames in a row, without a cut, with both people visible in"
                f" {counted(frames, 'frame')}",
            )
        people = item.binding.participants
        found = self._happened(item.codec, (first, second), state)
        yield Dyad(
            conversation=item.conversation.id,
            participants=item.conversation.participants,
            layout=item.conversation.layout,
            codec=first.codec,
            scores=(people[0].score, people[1].score),
            figures=(people[0].figures, people[1].figures),
            motion=(first.motion, second.motion),
            valid=valid,
            reference=(first.reference, second.reference),
            neutral=(first.neutral, second.neutral),
            neutral_code=(first.neutral_code, second.neutral_code),
            state=state,
            windows=windows,
            moments=(moments_of(first.motion, first.valid), moments_of(second.motion, second.valid)),
            events=found.events,
            told=found.told,
            blinks_min=found.blinks_min,
        )

    def _happened(self, codec: Codec, people: Sequence[Motion], state_T: np.ndarray) -> Happened:
        names = [column.name for column in named_columns(codec)]
        pose = range(POSE_DIMS)[:3], range(POSE_DIMS, len(names))
        signals = column_readouts(len(names), *pose, names, codec.basis)
        motion, valid = [each.motion for each in people], [each.valid for each in people]
        return happened(motion, valid, state_T, signals, self.config.labels, named=codec.kind == "blendshapes")

    def facts(self, rows: Sequence[Dyad]) -> str:
        """`DyadFacts`."""
        return facts_of(rows[0]).model_dump_json()


def facts_of(dyad: Dyad) -> DyadFacts:
    """What the plan must know of a dyad without opening it."""
    found = Counter(window.label for window in dyad.windows)
    speaking, listening, overlap, silence = (found[label] for label in WindowClass)
    return DyadFacts(participants=dyad.participants, windows=(speaking, listening, overlap, silence))


def avatar_state(state_T: np.ndarray, avatar: int) -> np.ndarray:
    """State as the avatar sees it: bits 0 and 1 avatar and user speak, bits 2 and 3 they make a back-channel."""
    if avatar == 0:
        return state_T
    return ((state_T & 0b1010) >> 1 | (state_T & 0b0101) << 1).astype(np.uint8)


def window_class(state_T: np.ndarray) -> WindowClass:
    """What most frames are, by the avatar's state. Where nobody has a turn, its own back-channel is listening."""
    listens_T = (state_T & (_TURNS | _LISTENS)) == _LISTENS
    turns_T = np.where(listens_T, _CLASS_OF_TURNS.index(WindowClass.LISTENING), state_T & _TURNS)
    return _CLASS_OF_TURNS[int(np.bincount(turns_T, minlength=4).argmax())]


def expressiveness(codec: Codec, motion_TD: np.ndarray) -> float:
    """How far a point of the face strays in a window: standard deviation in cm, expression and rotation together."""
    rotation = motion_TD[:, :3].astype(np.float64).var(0).sum()
    return float(np.sqrt(movement(codec, motion_TD) + _HEAD_RADIUS**2 * rotation))


def cut_windows(
    conversation: str,
    state_T: np.ndarray,
    valid: tuple[np.ndarray, np.ndarray],
    config: WindowsConfig,
    expressiveness_of: Callable[[int, slice], float],
    *,
    avatars: Sequence[int] = (0, 1),
    cuts: Collection[int] = (),
) -> Iterator[Window]:
    """Spans of a conversation, each from both sides, as far as both faces are valid enough.

    Args:
        state_T, valid: as a dyad has them.
        expressiveness_of: an avatar's, in a span of frames.
        avatars: who can be one; nobody else needs a valid face. Of none there are no windows.
        cuts: frames that a window does not reach over.
    """
    if not avatars:
        return
    seen = [np.concatenate([[0], np.cumsum(valid[avatar])]) for avatar in avatars]
    for first in starts(len(state_T), cuts, config):
        span = slice(first, first + config.length)
        if min((total[span.stop] - total[first]) / config.length for total in seen) < config.min_valid:
            continue
        for avatar in avatars:
            yield Window(
                key=f"{conversation}-{avatar}-{first:07d}",
                avatar=avatar,
                first=first,
                length=config.length,
                label=window_class(avatar_state(state_T[span], avatar)),
                expressiveness=round(expressiveness_of(avatar, span), 6),
            )


def starts(frames: int, cuts: Collection[int], config: WindowsConfig) -> Iterator[int]:
    """First frames of windows: evenly from the beginning of each shot, and none reaches into the next."""
    for begin, end in itertools.pairwise(sorted({0, *cuts, frames})):
        yield from range(begin, end - config.length + 1, config.hop)


def moments_of(motion_TD: np.ndarray, valid_T: np.ndarray) -> tuple[float, ...]:
    """`Dyad.moments` of one participant."""
    values = motion_TD[valid_T].astype(np.float64)
    return (float(len(values)), *values.sum(0).tolist(), *(values**2).sum(0).tolist())

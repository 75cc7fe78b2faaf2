"""Bind: which face has which voice.

Where both people are in one picture, each voice goes to the face whose lips move when it speaks alone (as in Chung and
Zisserman 2016, "Out of time", with the mouth's opening in place of a learnt embedding): per frame the logarithm of the
short-time deviation of the inner lips' distance, correlated with the turns. A listener's smile is a mouth that opened
and stays, so it deviates little; laughter does move the lips, and speaks against the right face while it lasts. Then
the sound is held against the lips: a voice that comes late or early is not what this face said (`stages.sync`).

The trade-off: geometry and lips only, no pixels and no network; a mouth that is hidden or chews binds wrongly or not at
all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from schemas import FPS
from schemas.config import BindConfig
from schemas.errors import Reason, Rejected
from schemas.rows import (
    LANDMARKS,
    Binding,
    BoundParticipant,
    Cast,
    Conversation,
    Diarization,
    FaceTracks,
    Layout,
    Member,
    Row,
    Segment,
    Track,
    Turn,
)
from stages.audio import read_audio, speech_state
from stages.base import Stage
from stages.sync import Offset, voice_offset

_WINDOW = 9  # frames (0.36 s): about two syllables
_STILL = 0.003  # face heights; deviation below it is landmark noise
_MIN_EVIDENCE = FPS  # frames in which exactly one voice speaks while the face is seen: one second
_CHANCE = 0.7  # times 1 / √turns: see `chance_margin`

_Scores = tuple[tuple[float, float], tuple[float, float]]


class BindInput(Row):
    """Everything known of a conversation's voices and people."""

    conversation: Conversation
    diarization: Diarization
    cast: Cast


class BindStage(Stage[BindInput, Binding]):
    """Voices and the cast → two people, each with a face and a voice.

    Order of participants: as in the cast. Rejects: UNBOUND_VOICE, AV_OFFSET.
    """

    name: ClassVar[str] = "bind"
    version: ClassVar[int] = 5
    config: BindConfig

    def __init__(self, config: BindConfig) -> None:
        super().__init__(config)

    def process(self, item: BindInput) -> Iterator[Binding]:
        conversation = item.conversation
        one_frame = conversation.layout is Layout.ONE_FRAME
        people = item.cast.members
        contrast_T = voice_contrast(item.diarization.turns, conversation.frames)
        scores = lip_scores(people, contrast_T)
        voices = self._voices(scores, contrast_T) if one_frame else (0, 1)
        offsets = tuple(self._offsets(conversation, people, voices, contrast_T))
        first, second = (
            BoundParticipant(
                name=conversation.participants[i],
                media=people[i].media,
                speaker=voices[i],
                segments=people[i].segments,
                score=scores[i][voices[i]],
                margin=scores[i][voices[i]] - scores[i][1 - voices[i]] if one_frame else 0.0,
                figures=people[i].figures,
                offset_ms=offset.ms if offset and offset.sure else None,
                offset_confidence=offset.confidence if offset else 0.0,
            )
            for i, offset in enumerate(offsets)
        )
        turns = turns_of(item.diarization.turns, voices)
        yield Binding(conversation=conversation.id, participants=(first, second), turns=turns)

    def _voices(self, scores: _Scores, contrast_T: np.ndarray) -> tuple[int, int]:
        """Each person's voice. Both faces give evidence for one decision, so a still listener does not undo it."""
        straight = scores[0][0] + scores[1][1]
        crossed = scores[0][1] + scores[1][0]
        margin = abs(straight - crossed) / 2
        needed = max(self.config.min_margin, chance_margin(contrast_T))
        if margin < needed:
            raise Rejected(Reason.UNBOUND_VOICE, f"margin {margin:.2f}, at least {needed:.2f} needed")
        return (0, 1) if straight > crossed else (1, 0)

    def _offsets(
        self, conversation: Conversation, people: tuple[Member, Member], voices: tuple[int, int], contrast_T: np.ndarray
    ) -> Iterator[Offset | None]:
        """How late each person's voice is. Heard where it is alone: only its own lips can fit there."""
        audio_N, of = None, ""
        for person, voice in zip(people, voices, strict=True):
            sound = conversation.media[person.media].sound
            if not self.config.max_offset:
                yield None
                continue
            if audio_N is None or sound != of:
                audio_N, of = read_audio(sound, conversation.frames), sound
            found = voice_offset(person.opening, audio_N, contrast_T == (1, -1)[voice])
            if found and found.sure and abs(found.ms) > self.config.max_offset * 1000:
                when = f"{abs(found.ms):.0f} ms {'late' if found.ms > 0 else 'early'}"
                raise Rejected(Reason.AV_OFFSET, f"{sound}: {when} for the lips, evidence {found.confidence:.0f} nats")
            yield found


def turns_of(turns: Sequence[Turn], voices: tuple[int, int]) -> tuple[Turn, ...]:
    """Turns whose `speaker` is the participant's number instead of the voice's."""
    named = (t.model_copy(update={"speaker": voices.index(t.speaker)}) for t in turns if t.speaker in voices)
    return tuple(sorted(named, key=lambda t: (t.start, t.speaker)))


def participant_landmarks(
    binding: Binding, faces: Sequence[FaceTracks], participant_index: int, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """One person's landmarks on the conversation's grid: 0.5 GB per hour (see `landmarks_by_piece`).

    Args:
        faces: all pieces of the conversation, in any order.
        participant_index: 0 or 1.
        frames: T, the length of the grid.

    Returns:
        landmarks_TL3: float32, pixels as in `Track`; NaN where invalid. valid_T: bool.
    """
    landmarks_TL3 = np.full((frames, LANDMARKS, 3), np.nan, np.float32)
    valid_T = np.zeros(frames, np.bool_)
    pieces = sorted(faces, key=lambda f: (f.piece.media, f.piece.first))
    for where_V, landmarks_VL3 in landmarks_by_piece(binding, pieces, participant_index):
        within_V = where_V < frames
        landmarks_TL3[where_V[within_V]] = landmarks_VL3[within_V]
        valid_T[where_V[within_V]] = True
    return landmarks_TL3, valid_T


def landmarks_by_piece(
    binding: Binding, faces: Sequence[FaceTracks], participant_index: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One person's landmarks, piece by piece: one row of `faces` is held at a time.

    Args:
        faces: all pieces of the conversation by (media, first frame), which is how `Segment.piece` counts them.

    Yields:
        The frames of a piece in which the person is seen: where_V int64, in order; landmarks_VL3 float32, pixels.

    Raises:
        ValueError: pieces of another conversation, or out of order.
    """
    for seen in seen_by_piece(binding, faces, participant_index):
        yield seen.where_V, seen.landmarks()


@dataclass(frozen=True)
class Seen:
    """One person in one piece: in frame where_V[i] of the grid, frame places[i][1] of the track places[i][0]."""

    piece: int
    where_V: np.ndarray
    places: tuple[tuple[Track, int], ...]

    def landmarks(self) -> np.ndarray:
        """float32 [V, 478, 3], pixels."""
        return np.stack([track.landmarks[i] for track, i in self.places])

    def blendshapes(self) -> np.ndarray:
        """float32 [V, 52]. Raises ValueError where the face model had none."""
        if any(track.blendshapes is None for track, _ in self.places):
            raise ValueError("these faces were tracked without blendshapes")
        return np.stack([track.blendshapes[i] for track, i in self.places if track.blendshapes is not None])


def seen_by_piece(binding: Binding, faces: Sequence[FaceTracks], participant_index: int) -> Iterator[Seen]:
    """`landmarks_by_piece`, with all that the face model says."""
    before = -1
    for piece in sorted({s.piece for s in binding.participants[participant_index].segments}):
        row = faces[piece]
        if row.piece.conversation != binding.conversation or row.piece.first <= before:
            raise ValueError(f"{row.piece} is not piece {piece} of {binding.conversation}")
        before = row.piece.first
        yield seen_in(row, piece, binding.participants[participant_index].segments)


def seen_in(row: FaceTracks, piece: int, segments: Sequence[Segment]) -> Seen:
    """One person in a conversation's piece number `piece`, which may be nowhere."""
    seen: dict[int, tuple[Track, int]] = {}
    for segment in segments:
        if segment.piece == piece:
            track = row.tracks[segment.track]
            for i in np.flatnonzero(track.valid).tolist():
                seen.setdefault(track.first + i, (track, i))
    frames = sorted(seen)
    return Seen(piece, np.array(frames, np.int64), tuple(seen[n] for n in frames))


def voice_contrast(turns: Sequence[Turn], frames: int) -> np.ndarray:
    """Float [T]: +1 where voice 0 speaks alone, −1 where voice 1 does, 0 where both or neither do."""
    state_T = speech_state(turns, frames)
    return (state_T & 1).astype(np.float64) - (state_T >> 1 & 1)


def lip_scores(people: tuple[Member, Member], contrast_T: np.ndarray) -> _Scores:
    """scores[person][voice]: correlation of lip motion with who speaks alone, −1…1.

    The two scores of a person are opposite by construction: overlap and silence do no harm, and someone who talks
    all the time is still told from someone who falls in. 0 where under a second of that is seen.
    """
    first, second = (_correlation(lip_motion(person.opening), contrast_T) for person in people)
    return (first, -first), (second, -second)


def chance_margin(contrast_T: np.ndarray) -> float:
    """The margin that a binding must exceed to mean anything; it falls with the number of times one speaks alone.

    Two people who both talk throughout passed it with 0 to 15 % of random turns (20 s, 4 to 10 turns).
    """
    changes = np.flatnonzero(np.diff(contrast_T, prepend=0.0))
    turns = int(np.count_nonzero(contrast_T[changes]))
    return _CHANCE / math.sqrt(max(turns, 1))


def _correlation(motion_T: np.ndarray, contrast_T: np.ndarray) -> float:
    seen_T = np.isfinite(motion_T)
    motion_E, contrast_E = motion_T[seen_T], contrast_T[seen_T]
    if np.count_nonzero(contrast_E) < _MIN_EVIDENCE or np.ptp(contrast_E) == 0 or np.ptp(motion_E) == 0:
        return 0.0
    return float(np.corrcoef(motion_E, contrast_E)[0, 1])


def lip_motion(opening_T: np.ndarray) -> np.ndarray:
    """Logarithm of the opening's deviation over 0.36 s; NaN where less than half of that is seen."""
    seen_T = np.isfinite(opening_T)
    box = np.ones(_WINDOW)
    count_T = np.convolve(seen_T, box, "same")
    known_T = np.where(seen_T, opening_T, 0.0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_T = np.convolve(known_T, box, "same") / count_T
        variance_T = np.convolve(known_T**2, box, "same") / count_T - mean_T**2
    motion_T = np.log(np.sqrt(np.maximum(variance_T, 0.0)) + _STILL)
    return np.where(count_T > _WINDOW / 2, motion_T, np.nan)

"""Bind: which face has which voice, and whether it is this face that speaks.

Where both people are in one picture, each voice goes to the face whose lips move when it speaks alone (as in Chung and
Zisserman 2016, "Out of time", with the mouth's motion in place of a learnt embedding). Then the lips correct what the
ear confused (`stages.lips`), and the sound is held against them: a voice that comes late or early is not what this face
said (`stages.sync`). Where each person has a file of their own, the voice is the file's, and the lips say whether the
files were mixed up.

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
from stages.audio import sound_of, speech_state
from stages.base import Stage
from stages.lips import decisiveness, fit_lips, lip_evidence, lip_motion, reassigned, unseen_share, voice_contrast
from stages.sync import Offset, file_offset, lag_of
from stages.turntaking import check_dialogue

_MIN_EVIDENCE = FPS  # frames in which exactly one voice speaks while the face is seen: one second
_PRECISION = 0.04  # seconds by which an offset of a few seconds of speech is wrong: rejected is what is surely too much
_CHANCE = 0.7  # times 1 / √turns: see `chance_margin`

_Scores = tuple[tuple[float, float], tuple[float, float]]


class BindInput(Row):
    """Everything known of a conversation's voices and people."""

    conversation: Conversation
    diarization: Diarization
    cast: Cast


class BindStage(Stage[BindInput, Binding]):
    """Voices and the cast → two people, each with a face and a voice.

    Order of participants: as in the cast. Rejects: UNBOUND_VOICE, SWAPPED_VOICES, UNSEEN_VOICE, SILENT_FACE, AV_OFFSET,
    DUBBED, NOT_A_DIALOGUE.
    """

    name: ClassVar[str] = "bind"
    version: ClassVar[int] = 8
    config: BindConfig

    def __init__(self, config: BindConfig) -> None:
        super().__init__(config)

    def process(self, item: BindInput) -> Iterator[Binding]:
        conversation, people, ear = item.conversation, item.cast.members, item.diarization.turns
        one_frame = conversation.layout is Layout.ONE_FRAME
        motion_PT = np.stack([lip_motion(person.mouth[:, 0]) for person in people])
        state_T = speech_state(ear, conversation.frames)
        evidence_PT = lip_evidence(motion_PT, fit_lips(motion_PT, state_T))
        contrast_T = voice_contrast(ear, conversation.frames)
        scores = lip_scores(motion_PT, contrast_T)  # of each person with each voice
        if one_frame:
            voices = self._voices(scores, contrast_T, decisiveness(evidence_PT, state_T))
            turns, corrected = reassigned(turns_of(ear, voices), evidence_PT)
            check_dialogue(speech_state(turns, conversation.frames), self.config.strangers)
            contrast_T = voice_contrast(turns, conversation.frames)
            scores = lip_scores(motion_PT, contrast_T)
        else:
            voices, turns, corrected = (0, 1), tuple(ear), 0.0
            self._check_own(scores, contrast_T)
        self._check_seen(turns, evidence_PT, one_frame)
        offsets = self._offsets(conversation, people, turns)
        first, second = (
            BoundParticipant(
                name=conversation.participants[i],
                media=people[i].media,
                speaker=voices[i],
                segments=people[i].segments,
                score=scores[i][i],
                margin=scores[i][i] - scores[i][1 - i] if one_frame else 0.0,
                figures=people[i].figures,
                offset_ms=offset.ms if offset and offset.sure else None,
                offset_confidence=offset.confidence if offset else 0.0,
            )
            for i, offset in enumerate(offsets)
        )
        yield Binding(conversation=conversation.id, participants=(first, second), turns=turns, corrected=corrected)

    def _voices(self, scores: _Scores, contrast_T: np.ndarray, decisive: float) -> tuple[int, int]:
        """Each person's voice. Both faces give evidence for one decision, so a still listener does not undo it.

        Lips that take turns are believed whatever the ear says: every turn then goes to the one who moves them.
        """
        margin = straightness(scores)
        needed = max(self.config.min_margin, chance_margin(contrast_T))
        if abs(margin) < needed and decisive < self.config.min_decisive:
            raise Rejected(
                Reason.UNBOUND_VOICE,
                f"margin {abs(margin):.2f}, at least {needed:.2f} needed; lips tell {decisive:.0f} nats a second apart,"
                f" {self.config.min_decisive:g} would do",
            )
        return (0, 1) if margin > 0 else (1, 0)

    def _check_own(self, scores: _Scores, contrast_T: np.ndarray) -> None:
        """Files of two people whose voices were exchanged."""
        margin, chance = straightness(scores), chance_margin(contrast_T)
        if -margin > max(self.config.min_margin, chance):
            raise Rejected(
                Reason.SWAPPED_VOICES, f"lips fit the other file's voice by {-margin:.2f}, chance is {chance:.2f}"
            )

    def _check_seen(self, turns: Sequence[Turn], evidence_PT: np.ndarray, one_frame: bool) -> None:
        """Voices of people who are not in the picture, and, where voices were told apart by ear, faces without one."""
        for person in (None,) if one_frame else (0, 1):
            unseen = unseen_share(turns, evidence_PT, person)
            if unseen > self.config.max_unseen:
                whose = "" if person is None else f" of participant {person}"
                raise Rejected(Reason.UNSEEN_VOICE, f"nobody's lips move in {100 * unseen:.0f} % of the speech{whose}")
        spoken = [sum(turn.end - turn.start for turn in turns if turn.speaker == person) for person in (0, 1)]
        if one_frame and min(spoken) < self.config.min_share * sum(spoken):
            raise Rejected(
                Reason.SILENT_FACE,
                f"by the lips, the {('left', 'right')[int(spoken[1] < spoken[0])]} one speaks for {min(spoken):.1f} of"
                f" {sum(spoken):.1f} s",
            )

    def _offsets(
        self, conversation: Conversation, people: tuple[Member, Member], turns: Sequence[Turn]
    ) -> list[Offset | None]:
        """How late the sound of each person's file is, by the lips that speak in it."""
        if not self.config.max_offset:
            return [None, None]
        state_T = speech_state(turns, conversation.frames)
        heard = {media.sound: media for media in conversation.media}
        sounds = [conversation.media[person.media].sound for person in people]
        found: dict[str, Offset | None] = {}
        for sound in dict.fromkeys(sounds):
            audio_N = sound_of(heard[sound], conversation.frames)
            lags = [
                lag_of(person.mouth, audio_N, (state_T >> i & 1).astype(bool))
                for i, person in enumerate(people)
                if sounds[i] == sound
            ]
            known = [lag for lag in lags if lag]
            found[sound] = offset = file_offset(known)
            seconds = sum(lag.seconds for lag in known)
            if offset and not offset.sure and 0 < self.config.max_unsynced <= seconds:
                raise Rejected(Reason.DUBBED, f"{sound}: lips fit it at no offset in {seconds:.0f} s of speech")
            if offset and offset.sure and abs(offset.ms) > 1000 * (self.config.max_offset + _PRECISION):
                when = f"{abs(offset.ms):.0f} ms {'late' if offset.ms > 0 else 'early'}"
                raise Rejected(Reason.AV_OFFSET, f"{sound}: {when} for the lips, evidence {offset.confidence:.0f} nats")
        return [found[sound] for sound in sounds]


def turns_of(turns: Sequence[Turn], voices: tuple[int, int]) -> tuple[Turn, ...]:
    """Turns whose `speaker` is the participant's number instead of the voice's."""
    named = (t.model_copy(update={"speaker": voices.index(t.speaker)}) for t in turns if t.speaker in voices)
    return tuple(sorted(named, key=lambda t: (t.start, t.speaker)))


@dataclass(frozen=True)
class Seen:
    """One person in one piece: in frame where_V[i] of the grid, frame places[i][1] of the track places[i][0]."""

    piece: int
    where_V: np.ndarray
    places: tuple[tuple[Track, int], ...]
    row: FaceTracks

    def landmarks(self) -> np.ndarray:
        """float32 [V, 478, 3], pixels."""
        return np.stack([track.landmarks[i] for track, i in self.places])

    def blendshapes(self) -> np.ndarray:
        """float32 [V, 52]. Raises ValueError where the face model had none."""
        if any(track.blendshapes is None for track, _ in self.places):
            raise ValueError("these faces were tracked without blendshapes")
        return np.stack([track.blendshapes[i] for track, i in self.places if track.blendshapes is not None])


def seen_by_piece(binding: Binding, faces: Sequence[FaceTracks], participant_index: int) -> Iterator[Seen]:
    """One person, piece by piece: one row of `faces` is held at a time.

    Args:
        faces: all pieces of the conversation by (media, first frame), which is how `Segment.piece` counts them.

    Raises:
        ValueError: pieces of another conversation, or out of order.
    """
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
    return Seen(piece, np.array(frames, np.int64), tuple(seen[n] for n in frames), row)


def lip_scores(motion_PT: np.ndarray, contrast_T: np.ndarray) -> _Scores:
    """scores[person][voice]: correlation of lip motion with who speaks alone, −1…1.

    The two scores of a person are opposite by construction: overlap and silence do no harm, and someone who talks
    all the time is still told from someone who falls in. 0 where under a second of that is seen.
    """
    first, second = (_correlation(motion_T, contrast_T) for motion_T in motion_PT)
    return (first, -first), (second, -second)


def straightness(scores: _Scores) -> float:
    """By how much the voices fit the people in their order, in correlation; negative where they fit crosswise."""
    return (scores[0][0] + scores[1][1] - scores[0][1] - scores[1][0]) / 2


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

"""Bind: which face has which voice, and whether it is this face that speaks.

Where both people are in one picture, each voice goes to the face whose lips move when it speaks alone (as in Chung and
Zisserman 2016, "Out of time", with the mouth's motion in place of a learnt embedding). Then the lips correct what the
diarizer confused (`stages.face.lips`), and the sound is held against them: a voice that comes late or early is not what
this face said (`stages.face.lip_sync`). Where each person has a file of their own, the voice is the file's, and the
lips say whether the files were mixed up.

The trade-off: geometry and lips only, no pixels and no network; a mouth that is hidden or chews binds wrongly or not at
all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.config import BindConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import Cast, FaceTracks, Member, Segment, Track
from visavis.schemas.rows import Binding, BoundParticipant, Conversation, Diarization, Layout, Row, Turn
from visavis.stages.base import Stage
from visavis.stages.face.lip_sync import Offset, drift_of, file_offset, follows, lag_of
from visavis.stages.face.lips import (
    fit_lips,
    fit_lips_by_diarizer,
    lip_contest,
    lip_evidence,
    lip_motion,
    unseen_share,
    voice_contrast,
)
from visavis.stages.media.audio import sound_of, speech_state
from visavis.stages.voice.attribution import Attribution, attributed, labels_heard
from visavis.stages.voice.turntaking import check_dialogue

_MIN_EVIDENCE = FPS  # frames in which exactly one voice speaks while the face is seen: one second
_PRECISION = 0.04  # seconds by which an offset of a few seconds of speech is wrong: rejected is what is surely too much
_CHANCE = 0.7  # times 1 / √turns: see `chance_margin`

_SURE = 8.0  # nats of lips by which somebody speaks for sure; the silent one of acted monologues had up to 6
_CLEAR = 5.0  # nats a second by which lips tell speakers apart; where both talk all the time a path finds 2 to 3, …
_ONE_VOICE = -2.0  # … and nats at which both have one voice in what it finds
_MOSTLY = 0.5  # of what a third voice says, while nobody's lips move

_Scores = tuple[tuple[float, float], tuple[float, float]]


class _Bound(NamedTuple):
    """What was decided. voices: the diarizer's label of each participant."""

    turns: tuple[Turn, ...]
    voices: tuple[int, int]
    scores: _Scores
    margins: tuple[float, float]
    corrected: float


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
    version: ClassVar[int] = 11
    config: BindConfig

    def __init__(self, config: BindConfig) -> None:
        super().__init__(config)

    def process(self, item: BindInput) -> Iterator[Binding]:
        conversation, people = item.conversation, item.cast.members
        one_frame = conversation.layout is Layout.ONE_FRAME
        bound = self._by_all_evidence(item) if one_frame else self._by_file(item)
        offsets = self._offsets(conversation, people, bound.turns)
        first, second = (
            BoundParticipant(
                name=conversation.participants[i],
                media=people[i].media,
                speaker=bound.voices[i],
                segments=people[i].segments,
                score=bound.scores[i][i],
                margin=bound.margins[i],
                figures=people[i].figures,
                offset_ms=offset.ms if offset and offset.sure else None,
                offset_confidence=offset.confidence if offset else 0.0,
            )
            for i, offset in enumerate(offsets)
        )
        yield Binding(
            conversation=conversation.id,
            participants=(first, second),
            turns=bound.turns,
            corrected=bound.corrected,
        )

    def _by_file(self, item: BindInput) -> _Bound:
        """Each person's voice is that of the own file."""
        turns = item.diarization.turns
        motion_PT, lips_PT, _ = _lips(item)
        contrast_T = voice_contrast(turns, item.conversation.frames)
        scores = lip_scores(motion_PT, contrast_T)
        self._check_own(scores, contrast_T)
        for person in (0, 1):
            self._check_seen(turns, lips_PT, person)
        return _Bound(turns, (0, 1), scores, (0.0, 0.0), 0.0)

    def _by_all_evidence(self, item: BindInput) -> _Bound:
        """Each voice is that of the face which speaks it."""
        conversation, diarization = item.conversation, item.diarization
        motion_PT, lips_PT, contest_PT = _lips(item)
        heard_KT = labels_heard(diarization.turns, conversation.frames)
        mouths_PT2 = np.stack([person.mouth for person in item.cast.members])
        audio_N = sound_of(conversation.media[0], conversation.frames)
        sound_PT = follows(mouths_PT2, audio_N, heard_KT.sum(axis=0) > 0)
        found = attributed(
            diarization.turns, contest_PT + sound_PT, diarization.voices, diarization.speakers, diarization.odds
        )
        self._check_voices(diarization, heard_KT, lips_PT)
        self._check_seen(found.turns, lips_PT)
        self._check_two(found)
        check_dialogue(speech_state(found.turns, conversation.frames), self.config.strangers)
        contrast_T = voice_contrast(found.turns, conversation.frames)
        scores = lip_scores(motion_PT, contrast_T)
        margins = scores[0][0] - scores[0][1], scores[1][1] - scores[1][0]
        return _Bound(found.turns, found.voices, scores, margins, found.changed)

    def _check_voices(self, diarization: Diarization, heard_KT: np.ndarray, lips_PT: np.ndarray) -> None:
        """A third voice that the diarizer believes in, while both people's lips rest."""
        unseen = [unseen_share(only(diarization.turns, k), lips_PT) for k in range(len(heard_KT))]
        if diarization.speakers > 2 and max(unseen) > _MOSTLY:
            raise Rejected(
                Reason.TOO_MANY_SPEAKERS,
                f"{diarization.speakers} voices, and nobody's lips move in {100 * max(unseen):.0f} % of what one"
                " of them says",
            )

    def _check_two(self, found: Attribution) -> None:
        """That both speak, by all evidence (`stages.voice.odds`)."""
        sides, share = ("left", "right"), found.seconds / max(sum(found.seconds), 1e-9)
        quiet, weakest = int(found.seconds.argmin()), int(found.nats.argmin())
        odds = found.odds
        blurred = found.nats.sum() < _CLEAR * found.seconds.sum() and odds.voices < _ONE_VOICE
        if share[quiet] >= self.config.min_share and odds.total >= self.config.min_odds and not blurred:
            return
        parts = f"lips {odds.lips:+.1f}, voices {odds.voices:+.1f}, diarizer {odds.diarizer:+.1f} nats"
        told = f"evidence that both speak is {odds.total:+.1f} nats of {self.config.min_odds:g} needed ({parts})"
        if found.nats.max() < _SURE or blurred:
            raise Rejected(Reason.UNBOUND_VOICE, f"lips do not say who speaks; {told}")
        if share[quiet] < self.config.min_share:
            spoken = f"{found.seconds[quiet]:.1f} of {sum(found.seconds):.1f} s"
            raise Rejected(Reason.SILENT_FACE, f"by all evidence, the {sides[quiet]} one speaks for {spoken}")
        raise Rejected(Reason.SILENT_FACE, f"the {sides[weakest]} one may not speak: {told}")

    def _check_own(self, scores: _Scores, contrast_T: np.ndarray) -> None:
        """Files of two people whose voices were exchanged."""
        margin, chance = straightness(scores), chance_margin(contrast_T)
        if -margin > max(self.config.min_margin, chance):
            raise Rejected(
                Reason.SWAPPED_VOICES, f"lips fit the other file's voice by {-margin:.2f}, chance is {chance:.2f}"
            )

    def _check_seen(self, turns: Sequence[Turn], lips_PT: np.ndarray, person: int | None = None) -> None:
        """Voices of people who are not in the picture."""
        unseen = unseen_share(turns, lips_PT, person)
        if unseen > self.config.max_unseen:
            whose = "" if person is None else f" of participant {person}"
            raise Rejected(Reason.UNSEEN_VOICE, f"nobody's lips move in {100 * unseen:.0f} % of the speech{whose}")

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
            voices = [(p.mouth, (state_T >> i & 1).astype(bool)) for i, p in enumerate(people) if sounds[i] == sound]
            lags = [lag_of(mouth, audio_N, speaks_T) for mouth, speaks_T in voices]
            known = [lag for lag in lags if lag]
            found[sound] = offset = file_offset(known)
            seconds = sum(lag.seconds for lag in known)
            drift = drift_of(voices, audio_N)
            if drift is not None and abs(drift) > 1000 * (self.config.max_offset + _PRECISION):
                raise Rejected(Reason.AV_OFFSET, f"{sound}: its clock drifts, by {drift:+.0f} ms from beginning to end")
            if offset and not offset.sure and 0 < self.config.max_unsynced <= seconds:
                raise Rejected(Reason.DUBBED, f"{sound}: lips fit it at no offset in {seconds:.0f} s of speech")
            if offset and offset.sure and abs(offset.ms) > 1000 * (self.config.max_offset + _PRECISION):
                when = f"{abs(offset.ms):.0f} ms {'late' if offset.ms > 0 else 'early'}"
                raise Rejected(Reason.AV_OFFSET, f"{sound}: {when} for the lips, evidence {offset.confidence:.0f} nats")
        return [found[sound] for sound in sounds]


def only(turns: Sequence[Turn], label: int) -> tuple[Turn, ...]:
    """The turns of one voice, called 0."""
    return tuple(turn.model_copy(update={"speaker": 0}) for turn in turns if turn.speaker == label)


def _lips(item: BindInput) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`lip_motion`, `lip_evidence` and `lip_contest` of both people, [P, T] each."""
    motion_PT = np.stack([lip_motion(person.mouth[:, 0]) for person in item.cast.members])
    heard_KT = labels_heard(item.diarization.turns, item.conversation.frames)
    evidence_PT = lip_evidence(motion_PT, fit_lips(motion_PT, heard_KT.sum(axis=0)))
    model = fit_lips_by_diarizer(motion_PT, heard_KT, item.diarization.odds)
    return motion_PT, evidence_PT, lip_contest(motion_PT, model)


@dataclass(frozen=True)
class Seen:
    """One person in one piece: in frame where_V[i] of the grid, frame `places[i][1]` of the track `places[i][0]`."""

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
    """`scores[person][voice]`: correlation of lip motion with who speaks alone, −1…1.

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

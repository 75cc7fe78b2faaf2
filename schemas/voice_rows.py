"""Rows of what is heard: a voice for each of two people, how it sounds, and what is said.

Shape suffix: N audio samples.
"""

from __future__ import annotations

from typing import Literal

from visavis.schemas.row import Array, Row


class VoiceFigures(Row):
    """How one participant's track was had, how much of the other voice is left in it, and how it sounds.

    method: the participant's own track; the mix in the participant's turns; or that, with a network where both speak.
    residual_db: power of the other's voice in this track while the other speaks, against the own voice's while its
    owner speaks; -60 and less count as -60, None where nobody can tell (`stages.voice.leakage`). overlapped: share of
    the time in which the participant speaks that the other speaks, too.

    `stages.voice.sound` says what the others are; None where nobody measured. snr_db also where its owner is never
    heard alone for half a second.
    """

    method: Literal["own_track", "mask", "network"]
    residual_db: float | None
    overlapped: float
    level_db: float | None = None
    clipped: float | None = None
    bandwidth_hz: float | None = None
    snr_db: float | None = None


class Voices(Row):
    """What each participant says, one track each. audio: FLAC bytes as uint8 arrays, 16 kHz mono, T × 640 samples."""

    conversation: str
    audio: tuple[Array, Array]
    figures: tuple[VoiceFigures, VoiceFigures]


OfBoth = tuple[float | None, float | None]
"""A figure of both participants; None where it is not known."""


class VoicesFacts(Row):
    """What the ledger keeps of both voices: of `VoiceFigures` what thresholds bound."""

    level_db: OfBoth
    clipped: OfBoth
    bandwidth_hz: OfBoth
    snr_db: OfBoth
    residual_db: OfBoth


class Mos(Row):
    """DNSMOS P.835 of what one participant says alone: speech, background and both together, and P.808's, as people
    would rate them from 1 to 5. seconds: that the participant says alone; of too little there is no score.
    """

    sig: float | None
    bak: float | None
    ovrl: float | None
    p808: float | None
    seconds: float


class SpeechQuality(Row):
    """DNSMOS of both participants."""

    conversation: str
    people: tuple[Mos, Mos]


class SpeechQualityFacts(Row):
    """What the ledger keeps of it."""

    sig: OfBoth
    bak: OfBoth
    ovrl: OfBoth
    p808: OfBoth


class Word(Row):
    """Seconds of media time, end exclusive. turn: index into the turns of the `Binding`, one of `speaker`'s."""

    speaker: int
    turn: int
    start: float
    end: float
    text: str


class Transcript(Row):
    """What was said. Words are sorted by (start, speaker).

    aligned: False where there is no alignment model for the language; times and turns of words are rough then.
    """

    conversation: str
    language: str
    aligned: bool
    words: tuple[Word, ...]

"""Optional: what was said, word by word, with times, speakers and turns.

Who speaks when is known already, so there is no voice activity model: of each participant's own voice the turns are cut
out and joined to *excerpts* of up to 30 s, what Whisper hears at once, with a short pause between them. Silence, in
which it is known to invent words, is never heard, and the many short turns of a conversation cost one pass together
instead of one each. A word's time in an excerpt then tells the turn, and with it the time of day. (WhisperX cuts and
merges by a voice activity model, Bain et al., arXiv 2303.00747; joining cut speech and mapping times back is
faster-whisper's.)

`stages.voice.whisper` does the hearing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from visavis.schemas import SAMPLE_RATE
from visavis.schemas.config import TranscribeConfig
from visavis.schemas.rows import Binding, Row, Turn
from visavis.schemas.sample import decode_audio
from visavis.schemas.voice_rows import Transcript, Voices, Word
from visavis.stages.base import Resources, Stage
from visavis.stages.voice.recogniser import LONGEST, Recogniser, TimedWord

_EDGE = SAMPLE_RATE // 10  # samples heard around a turn: its borders are not exact
_PAUSE = SAMPLE_RATE * 3 // 10  # samples of silence between two turns of an excerpt
_QUIET = SAMPLE_RATE // 20  # samples over which the quietest place of a long turn is looked for
_SEARCH = 10 * SAMPLE_RATE  # samples at the end of what fits, in which it is


class TranscribeInput(Row):
    """Who speaks when, and each one's own voice."""

    binding: Binding
    voices: Voices


class TranscribeStage(Stage[TranscribeInput, Transcript]):
    """Each participant's words, from their own voice and turns."""

    name: ClassVar[str] = "transcribe"
    version: ClassVar[int] = 2
    config: TranscribeConfig

    def __init__(self, config: TranscribeConfig, recogniser: Recogniser | None = None) -> None:
        super().__init__(config)
        self._recogniser = recogniser

    @property
    def resources(self) -> Resources:
        return Resources(gpus=1.0 if self.config.device == "cuda" else 0.0)

    def setup(self) -> None:
        """Load the recogniser.

        Raises:
            UsageError: WhisperX or its weights are missing.
        """
        from visavis.stages.voice.whisper import WhisperX

        self._recogniser = self._recogniser or WhisperX(self.config)

    def process(self, item: TranscribeInput) -> Iterator[Transcript]:
        assert self._recogniser is not None, "call setup first"
        turns = item.binding.turns
        excerpts: list[Excerpt] = []
        for participant in (0, 1):
            voice_N = decode_audio(item.voices.audio[participant].tobytes())
            excerpts += cut_excerpts(voice_N, turns, participant)
        found = self._recogniser([excerpt.audio for excerpt in excerpts])
        words = (w for e, heard in zip(excerpts, found.words, strict=True) for w in place_words(heard, e, turns))
        yield Transcript(
            conversation=item.binding.conversation,
            language=found.language,
            aligned=found.aligned,
            words=tuple(sorted(words, key=lambda w: (w.start, w.speaker))),
        )


class Span(NamedTuple):
    """A stretch of a turn, in samples: where it lies in the conversation, and where in its excerpt."""

    turn: int
    first: int
    at: int
    length: int


@dataclass(frozen=True)
class Excerpt:
    """Stretches of one participant's turns, float32 [N] one after the other."""

    audio: np.ndarray
    spans: tuple[Span, ...]


def cut_excerpts(voice_N: np.ndarray, turns: Sequence[Turn], participant: int) -> Iterator[Excerpt]:
    """A participant's turns, joined in their order to as few excerpts as can be."""
    spans: list[Span] = []
    for turn, first, last in _stretches(voice_N, turns, participant):
        at = spans[-1].at + spans[-1].length + _PAUSE if spans else 0
        if at + last - first > LONGEST:
            yield _excerpt(voice_N, spans)
            spans, at = [], 0
        spans.append(Span(turn, first, at, last - first))
    if spans:
        yield _excerpt(voice_N, spans)


def _stretches(voice_N: np.ndarray, turns: Sequence[Turn], participant: int) -> Iterator[tuple[int, int, int]]:
    """(turn, first, last) samples of what is heard of each turn; a long one is cut where it is quietest."""
    before = 0  # where the last one ended
    for number, turn in enumerate(turns):
        first = max(before, round(turn.start * SAMPLE_RATE) - _EDGE)
        last = min(len(voice_N), round(turn.end * SAMPLE_RATE) + _EDGE)
        if turn.speaker != participant or last <= first:
            continue
        while last - first > LONGEST:
            cut = first + LONGEST - _SEARCH + _quietest(voice_N[first + LONGEST - _SEARCH : first + LONGEST])
            yield number, first, cut
            first = cut
        yield number, first, last
        before = last


def _quietest(voice_N: np.ndarray) -> int:
    """The middle of the quietest 50 ms."""
    steps_SQ = voice_N[: len(voice_N) // _QUIET * _QUIET].reshape(-1, _QUIET)
    return int(np.square(steps_SQ).sum(axis=1).argmin()) * _QUIET + _QUIET // 2


def _excerpt(voice_N: np.ndarray, spans: Sequence[Span]) -> Excerpt:
    audio_N = np.zeros(spans[-1].at + spans[-1].length, np.float32)
    for span in spans:
        audio_N[span.at : span.at + span.length] = voice_N[span.first : span.first + span.length]
    return Excerpt(audio_N, tuple(spans))


def place_words(heard: Sequence[TimedWord], excerpt: Excerpt, turns: Sequence[Turn]) -> Iterator[Word]:
    """The words of an excerpt where they were said. One that lies in a pause between two turns is left out.

    A word that reaches over a pause is cut to the turn that has most of it.
    """
    for word in heard:
        shares = [_shared(word, span) for span in excerpt.spans]
        span = excerpt.spans[int(np.argmax(shares))]
        if max(shares) > 0:
            shift = (span.first - span.at) / SAMPLE_RATE
            begin, end = span.at / SAMPLE_RATE, (span.at + span.length) / SAMPLE_RATE
            yield Word(
                speaker=turns[span.turn].speaker,
                turn=span.turn,
                start=round(max(word.start, begin) + shift, 3),
                end=round(min(word.end, end) + shift, 3),
                text=word.text,
            )


def _shared(word: TimedWord, span: Span) -> float:
    return min(word.end, (span.at + span.length) / SAMPLE_RATE) - max(word.start, span.at / SAMPLE_RATE)

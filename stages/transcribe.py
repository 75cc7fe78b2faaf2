"""Optional: what was said, word by word, with times and speakers.

WhisperX (Bain et al., 2023) transcribes and aligns words to ~50 ms with a phoneme model; who said a word is taken
from the turns, not from the text. Its weights are several GB and not part of any wheel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np

from schemas.config import TranscribeConfig
from schemas.errors import UsageError
from schemas.rows import Binding, Row, Turn, Voices
from schemas.sample import decode_audio
from stages.base import Stage


class TranscribeInput(Row):
    binding: Binding
    voices: Voices


class Word(Row):
    """Seconds of media time, end exclusive. speaker: the participant's number."""

    speaker: int
    start: float
    end: float
    text: str


class Transcript(Row):
    conversation: str
    words: tuple[Word, ...]  # sorted by start
    language: str


class Heard(NamedTuple):
    """A word before it has a speaker."""

    start: float
    end: float
    text: str


Transcriber = Callable[[np.ndarray], tuple[list[Heard], str]]
"""Words of one voice in float32 [N] mono audio at 16 kHz, and the language's code."""


class TranscribeStage(Stage[TranscribeInput, Transcript]):
    """Each participant's words, from their own voice."""

    name: ClassVar[str] = "transcribe"
    version: ClassVar[int] = 2
    config: TranscribeConfig

    def setup(self) -> None:
        """Load the model.

        Raises:
            UsageError: WhisperX or its weights are missing.
        """
        self._transcriber: Transcriber = WhisperX(self.config)

    def process(self, item: TranscribeInput) -> Iterator[Transcript]:
        words, languages = [], []
        for speaker, flac in enumerate(item.voices.audio):
            heard, language = self._transcriber(decode_audio(flac.tobytes()))
            words += assign(heard, item.binding.turns, speaker)
            languages.append((len(heard), language))
        yield Transcript(
            conversation=item.binding.conversation,
            words=tuple(sorted(words, key=lambda w: (w.start, w.speaker))),
            language=max(languages, key=lambda counted: counted[0])[1],
        )


def assign(heard: Sequence[Heard], turns: Sequence[Turn], speaker: int) -> list[Word]:
    """Words that lie by at least half of their length in the speaker's turns; others are echo or invention."""
    own = [turn for turn in turns if turn.speaker == speaker]
    words = []
    for word in heard:
        inside = sum(max(0.0, min(word.end, turn.end) - max(word.start, turn.start)) for turn in own)
        if inside > 0 and inside >= 0.5 * (word.end - word.start):
            words.append(Word(speaker=speaker, start=word.start, end=word.end, text=word.text))
    return words


class WhisperX:
    """Whisper for the words, a phoneme model of the same language for their times."""

    def __init__(self, config: TranscribeConfig) -> None:
        from stages.diarize import pick_device
        from stages.embedded import quiet_pyannote

        self._device = pick_device(config.device)
        try:
            with quiet_pyannote():
                import whisperx

                precision = "float16" if self._device == "cuda" else "int8"
                self._model = whisperx.load_model(
                    config.model, self._device, compute_type=precision, language=config.language
                )
        except ImportError as error:
            raise UsageError("transcribe needs WhisperX; install the extra visavis[asr]") from error
        except (OSError, RuntimeError, ValueError) as error:
            hint = "see `visavis assets`, or set transcribe.model to a local folder"
            raise UsageError(f"cannot load the Whisper model {config.model}; {hint}") from error
        self._whisperx = whisperx

    def __call__(self, audio_N: np.ndarray) -> tuple[list[Heard], str]:
        result = self._model.transcribe(audio_N)
        language: str = result["language"]
        aligner, metadata = self._whisperx.load_align_model(language_code=language, device=self._device)
        aligned = self._whisperx.align(result["segments"], aligner, metadata, audio_N, self._device)
        timed = [w for w in aligned["word_segments"] if "start" in w and "end" in w]  # digits have no phonemes
        return [Heard(float(w["start"]), float(w["end"]), str(w["word"])) for w in timed], language

"""Whisper for the words, a wav2vec2 CTC model of the same language for their times, both as WhisperX runs them.

Everything is loaded from folders on this machine, and said to be missing before any work starts (`check_models`).
Of the defaults that WhisperX has for its alignment models, those of torchaudio are files that would be unpickled whole;
models of the hub in safetensors stand in for them.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from visavis.schemas import SAMPLE_RATE
from visavis.schemas.config import TranscribeConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import install
from visavis.stages.models.hub import fetched
from visavis.stages.voice.recogniser import Recognised, TimedWord

WHISPER_FILES = ("config.json", "model.bin", "tokenizer.json")
ALIGNMENT_FILES = ("config.json", "vocab.json")

_ALIGNMENT = {
    "en": "facebook/wav2vec2-base-960h",
    "de": "jonatasgrosman/wav2vec2-large-xlsr-53-german",
    "es": "jonatasgrosman/wav2vec2-large-xlsr-53-spanish",
    "fr": "jonatasgrosman/wav2vec2-large-xlsr-53-french",
    "it": "jonatasgrosman/wav2vec2-large-xlsr-53-italian",
}
_ALIGNERS_KEPT = 2  # languages whose alignment models stay loaded: a large one takes 1.3 GB
_LANGUAGE_EXCERPTS = 4  # of each conversation, to hear its language in
_INSTALL = (  # its package asks for torch 2.8, which has a known hole, and works with newer
    f"transcribe needs WhisperX: {install('asr')}, and then pip install --no-deps whisperx"
)


class WhisperX:
    """See `stages.transcribe.Recogniser`."""

    def __init__(self, config: TranscribeConfig) -> None:
        """Load Whisper.

        Raises:
            UsageError: WhisperX or the model is missing.
        """
        from visavis.stages.models.devices import pick_device
        from visavis.stages.models.networks import quiet_pyannote

        self._config = config
        self._device = pick_device(config.device)
        folder = whisper_folder(config)
        try:
            with quiet_pyannote(), contextlib.redirect_stdout(io.StringIO()):  # it prints
                import torch
                import whisperx.alignment
                import whisperx.asr
        except ImportError as error:
            raise UsageError(_INSTALL) from error
        # They warn of every excerpt that cannot be aligned, and of a parameter that only training has.
        for name in ("whisperx", "transformers"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # Sentences are of no use here, and their model is not in any wheel: WhisperX would download it.
        whisperx.alignment.nltk_load = lambda _: _OneSentence()
        self._alignment = whisperx.alignment
        self._excerpts = _given_excerpts()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._pipeline = whisperx.asr.load_model(
                    str(folder),
                    self._device,
                    compute_type="float16" if self._device == "cuda" else "int8",
                    language=config.language,
                    vad_model=self._excerpts,
                    threads=torch.get_num_threads(),
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(f"transcribe.model: cannot load {folder}: {' '.join(str(error).split())}") from error
        self._multilingual = bool(self._pipeline.model.model.is_multilingual)
        if not self._multilingual and config.language not in (None, "en"):
            raise UsageError(f"transcribe.model: {config.model} knows English only, not {config.language!r}")
        self._aligner = lru_cache(maxsize=_ALIGNERS_KEPT)(self._load_aligner)

    def __call__(self, excerpts: Sequence[np.ndarray]) -> Recognised:
        language = self._config.language or self._language(excerpts)
        aligner = self._aligner(language)
        size = self._config.batch_size
        texts = [t for n in range(0, len(excerpts), size) for t in self._texts(excerpts[n : n + size], language)]
        words = [self._words(text, audio_N, aligner) for text, audio_N in zip(texts, excerpts, strict=True)]
        return Recognised(words, language, aligner is not None)

    def _texts(self, excerpts: Sequence[np.ndarray], language: str) -> Iterator[str]:
        """What is said in each of a batch of excerpts."""
        self._excerpts.lengths = [len(audio_N) for audio_N in excerpts]
        whole_N = np.concatenate(excerpts)
        result = self._pipeline.transcribe(whole_N, batch_size=len(excerpts), language=language)
        yield from (segment["text"].strip() for segment in result["segments"])

    def _language(self, excerpts: Sequence[np.ndarray]) -> str:
        """The language that the longest excerpts are most probably in, taken together."""
        if not self._multilingual or not excerpts:
            return "en"
        scores: dict[str, float] = {}
        for audio_N in sorted(excerpts, key=len, reverse=True)[:_LANGUAGE_EXCERPTS]:
            for language, probability in self._pipeline.model.detect_language(audio_N)[2]:
                scores[language] = scores.get(language, 0.0) + probability * len(audio_N)
        return max(scores, key=lambda language: scores[language])

    def _load_aligner(self, language: str) -> tuple[Any, dict[str, Any]] | None:
        folder = alignment_folder(language, self._config)
        if folder is None:
            return None
        with contextlib.redirect_stdout(io.StringIO()):
            model, metadata = self._alignment.load_align_model(
                language, self._device, model_name=str(folder), model_cache_only=True
            )
        return model.eval(), metadata

    def _words(self, text: str, audio_N: np.ndarray, aligner: tuple[Any, dict[str, Any]] | None) -> list[TimedWord]:
        """The words of an excerpt's text. Those that cannot be aligned share the time evenly, by letters."""
        seconds = len(audio_N) / SAMPLE_RATE
        if aligner and text:
            segment = {"text": text, "start": 0.0, "end": seconds}
            aligned = self._alignment.align([segment], *aligner, audio_N, self._device)["word_segments"]
            timed = [TimedWord(float(w["start"]), float(w["end"]), str(w["word"])) for w in aligned if "end" in w]
            if timed:
                return timed
        return list(_evenly(text, seconds))


class _OneSentence:
    """Stands in for NLTK's sentence splitter."""

    @staticmethod
    def span_tokenize(text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def _given_excerpts() -> Any:
    """What WhisperX takes for a voice activity model: it is told the excerpts, and finds just them."""
    from whisperx.vads import Vad

    class GivenExcerpts(Vad):  # type: ignore[misc]
        lengths: Sequence[int] = ()

        def __init__(self) -> None:
            super().__init__(0.5)

        @staticmethod
        def preprocess_audio(audio: np.ndarray) -> np.ndarray:
            return audio

        def __call__(self, _: dict[str, Any]) -> list[dict[str, float]]:
            edges = np.cumsum([0, *self.lengths])
            # Half a sample on, because WhisperX cuts seconds × rate down to whole samples.
            times = ((edges + 0.5) / SAMPLE_RATE).tolist()
            return [{"start": start, "end": end} for start, end in pairwise(times)]

        @staticmethod
        def merge_chunks(segments: list[dict[str, float]], *_: Any, **__: Any) -> list[dict[str, float]]:
            return segments

    return GivenExcerpts()


def _evenly(text: str, seconds: float) -> Iterator[TimedWord]:
    words = text.split()
    total = sum(map(len, words))
    letters = 0
    for word in words:
        start, letters = letters, letters + len(word)
        yield TimedWord(seconds * start / total, seconds * letters / total, word)


def whisper_folder(config: TranscribeConfig) -> Path:
    """Where the Whisper model lies.

    Raises:
        UsageError: faster-whisper is not installed, or the model is not on this machine.
    """
    local = Path(config.model).expanduser()
    if local.is_dir():
        missing = [name for name in WHISPER_FILES if not (local / name).exists()]
        if missing:
            raise UsageError(
                f"transcribe.model: {config.model} has no {missing[0]}; it takes a Whisper model in CTranslate2's"
                " format, as ct2-transformers-converter makes it of any other (--copy_files tokenizer.json)"
            )
        return local
    if _looks_local(config.model):
        raise UsageError(f"transcribe.model: {config.model}: no such folder")
    found = fetched(config.model, config.folder, WHISPER_FILES)
    if found is None:
        raise UsageError(
            f"transcribe.model: {config.model} is not on this machine;"
            f" run {_fetch(config.model, config)}, or name a folder"
        )
    return found


def _looks_local(name: str) -> bool:
    return name.count("/") != 1 or name.startswith((".", "/", "~"))


def _fetch(repository: str, config: TranscribeConfig) -> str:
    return f"`visavis assets fetch {repository}{f' --to {config.folder}' if config.folder else ''}`"


def alignment_folder(language: str, config: TranscribeConfig) -> Path | None:
    """Where the alignment model of a language lies; None: there is none on this machine."""
    name = config.alignment.get(language) or default_alignment(language)
    if name is None:
        return None
    local = Path(name).expanduser()
    if local.is_dir():
        return local if all((local / file).exists() for file in ALIGNMENT_FILES) else None
    return None if _looks_local(name) else fetched(name, config.folder, ALIGNMENT_FILES)


def default_alignment(language: str) -> str | None:
    """The hub's name of the model that times words of a language where the config names none."""
    if language in _ALIGNMENT:
        return _ALIGNMENT[language]
    from visavis.stages.models.networks import quiet_pyannote

    with quiet_pyannote():
        from whisperx.alignment import DEFAULT_ALIGN_MODELS_HF

    name: str | None = DEFAULT_ALIGN_MODELS_HF.get(language)
    return name


def check_models(config: TranscribeConfig) -> None:
    """Tell about a missing model before any work starts.

    Raises:
        UsageError: WhisperX, the Whisper model, or an alignment model is missing: that of `language`, one that
            `alignment` names, or, with neither of them set, all.
    """
    if not config.enabled:
        return
    import importlib.util

    if importlib.util.find_spec("whisperx") is None:
        raise UsageError(_INSTALL)
    whisper_folder(config)
    wanted = sorted({*config.alignment, *([config.language] if config.language else [])})
    if not wanted and any(alignment_folder(language, config) for language in _ALIGNMENT):
        return  # the language is to be heard; words of others are not timed, and the transcript says so
    for language in wanted or ["en"]:
        name = config.alignment.get(language) or default_alignment(language)
        if alignment_folder(language, config) is None:
            remedy = f"run {_fetch(name, config)}, or " if name and not _looks_local(name) else ""
            raise UsageError(
                f"transcribe.alignment: no model on this machine times words of {language!r}"
                f" ({name or 'none is known'}); {remedy}set transcribe.alignment.{language} to the folder of a"
                " wav2vec2 CTC model"
            )

"""Words are heard in turns only, and come back with the time and the turn in which they were said.

Real weights are not part of any wheel. What loads, batches, decodes and aligns here is the real thing all the same, on
tiny models that say known words of known tones (`tests.stages.speech_models`).
"""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.speech_models import HIGH, LOW, build_aligner, build_whisper, tone
from tests.stages.test_quality import GOOD
from visavis.schemas.config import TranscribeConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Binding, BoundParticipant, Turn
from visavis.schemas.sample import encode_audio
from visavis.schemas.voice_rows import Transcript, VoiceFigures, Voices
from visavis.stages.transcribe import Excerpt, Span, TranscribeInput, TranscribeStage, cut_excerpts, place_words
from visavis.stages.voice.recogniser import LONGEST, Recognised, TimedWord
from visavis.stages.voice.whisper import WhisperX, check_models

RATE = 16_000


def turn(speaker: int, start: float, end: float) -> Turn:
    return Turn(speaker=speaker, start=start, end=end)


def sounds(seconds: float, *tones: tuple[float, float, float]) -> np.ndarray:
    """Silence with tones in it, each (start, seconds, Hz)."""
    audio_N = np.zeros(round(seconds * RATE), np.float32)
    for start, length, pitch in tones:
        piece = tone(length, pitch)
        audio_N[round(start * RATE) :][: len(piece)] = piece
    return audio_N


def item(turns: Sequence[Turn], *voices: np.ndarray) -> TranscribeInput:
    one, other = (
        BoundParticipant(name=name, media=0, speaker=i, segments=(), score=0.5, margin=0.5, figures=GOOD)
        for i, name in enumerate(("a", "b"))
    )
    flac = tuple(np.frombuffer(encode_audio(voice), np.uint8) for voice in voices)
    own = VoiceFigures(method="own_track", residual_db=None, overlapped=0.0)
    return TranscribeInput(
        binding=Binding(conversation="c", participants=(one, other), turns=tuple(turns)),
        voices=Voices(conversation="c", audio=flac, figures=(own, own)),  # type: ignore[arg-type]
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_turn_is_heard_once_and_nothing_else_is(data: st.DataObject) -> None:
    seconds = data.draw(st.integers(1, 120))
    edges = data.draw(st.lists(st.integers(0, seconds * 20), min_size=2, max_size=16, unique=True).map(sorted))
    whose = data.draw(st.lists(st.integers(0, 1), min_size=8, max_size=8))
    turns = [turn(who, a / 20, b / 20) for who, a, b in zip(whose, edges[::2], edges[1::2], strict=False)]
    voice_N = np.random.default_rng(0).uniform(0.1, 1.0, seconds * RATE).astype(np.float32)
    excerpts = list(cut_excerpts(voice_N, turns, 0))
    heard_N = np.zeros(len(voice_N), int)
    for excerpt in excerpts:
        assert len(excerpt.audio) <= LONGEST
        silence_N = np.ones(len(excerpt.audio), bool)
        for span in excerpt.spans:
            own = slice(span.at, span.at + span.length)
            np.testing.assert_array_equal(excerpt.audio[own], voice_N[span.first : span.first + span.length])
            heard_N[span.first : span.first + span.length] += 1
            silence_N[own] = False
        assert not excerpt.audio[silence_N].any()
        assert silence_N.sum() == 4800 * (len(excerpt.spans) - 1)  # 0.3 s between two turns
    assert heard_N.max(initial=0) <= 1
    inside_N, near_N = np.zeros(len(voice_N), bool), np.zeros(len(voice_N), bool)
    for own_turn in (t for t in turns if t.speaker == 0):
        first, last = round(own_turn.start * RATE), round(own_turn.end * RATE)
        inside_N[first:last] = True
        near_N[max(0, first - 1600) : last + 1600] = True
    np.testing.assert_array_equal(heard_N > 0, near_N)
    assert (heard_N[inside_N] == 1).all()


def test_short_turns_share_a_pass_and_a_long_one_is_cut_where_it_is_quiet() -> None:
    voice_N = np.full(200 * RATE, 0.5, np.float32)
    voice_N[round(117.3 * RATE) : round(117.4 * RATE)] = 0.01
    short = [turn(0, start, start + 0.4) for start in range(0, 80, 4)]
    excerpts = list(cut_excerpts(voice_N, [*short, turn(0, 90.0, 130.0)], 0))
    assert [len(e.spans) for e in excerpts] == [20, 1, 1]
    first, second = (e.spans[0] for e in excerpts[1:])
    assert (first.turn, second.turn) == (20, 20)
    assert 117.3 < (first.first + first.length) / RATE < 117.4
    assert second.first == first.first + first.length


EXCERPT = Excerpt(
    audio=np.zeros(0, np.float32),
    spans=(Span(turn=1, first=5 * RATE, at=0, length=RATE), Span(turn=3, first=9 * RATE, at=20_800, length=RATE)),
)  # 5 to 6 s, 0.3 s of silence, 9 to 10 s
TURNS = (turn(1, 3.0, 5.0), turn(0, 5.0, 6.0), turn(1, 6.0, 9.0), turn(0, 9.0, 10.0))


def test_a_word_lies_in_the_turn_in_which_it_was_said() -> None:
    heard = [
        TimedWord(0.2, 0.5, "we"),
        TimedWord(0.9, 1.45, "sang"),
        TimedWord(1.05, 1.25, "thanks"),
        TimedWord(1.5, 1.9, "here"),
    ]
    words = list(place_words(heard, EXCERPT, TURNS))
    assert [(w.text, w.turn, w.start, w.end) for w in words] == [
        ("we", 1, 5.2, 5.5),
        ("sang", 3, 9.0, 9.15),  # reached over the pause: cut to the turn that has most of it
        ("here", 3, 9.2, 9.6),  # and what was heard in the pause was never said
    ]
    assert {w.speaker for w in words} == {0}


def test_each_voice_is_heard_without_the_other_and_all_of_it_at_once() -> None:
    given: list[np.ndarray] = []

    def recogniser(excerpts: Sequence[np.ndarray]) -> Recognised:
        given.extend(excerpts)
        return Recognised([[TimedWord(0.1, 0.4, f"word{i}")] for i in range(len(excerpts))], "en", True)

    stage = TranscribeStage(TranscribeConfig(), recogniser)
    stage.setup()
    turns = (turn(0, 0.0, 1.0), turn(1, 0.8, 2.0))
    voices = np.full(2 * RATE, 0.25, np.float32), np.full(2 * RATE, 0.75, np.float32)
    (transcript,) = stage.process(item(turns, *voices))
    assert [(len(e), round(float(e.mean()), 3)) for e in given] == [(17_600, 0.25), (20_800, 0.75)]
    assert [(w.speaker, w.turn, w.start, w.text) for w in transcript.words] == [
        (0, 0, 0.1, "word0"),
        (1, 1, 0.8, "word1"),
    ]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> TranscribeConfig:
    folder = tmp_path_factory.mktemp("speech")
    whisper, aligner = build_whisper(folder), build_aligner(folder / "aligner")
    return TranscribeConfig(
        enabled=True, model=str(whisper), alignment={"en": str(aligner)}, device="cpu", batch_size=2, language="en"
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("somebody reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def transcribed(config: TranscribeConfig, given: TranscribeInput) -> Transcript:
    stage = TranscribeStage(config)
    stage.setup()
    (transcript,) = stage.process(given)
    assert [transcript] == list(stage.process(given))
    return transcript


@pytest.mark.slow
def test_tones_become_words_with_times_and_turns(models: TranscribeConfig, no_network: None) -> None:
    check_models(models)
    turns = (turn(0, 0, 12), turn(1, 12, 24), turn(0, 24, 36), turn(1, 36, 48), turn(0, 48, 60))
    low = sounds(60, (1, 2, LOW), (25, 1, LOW), (49, 1.5, LOW))
    high = sounds(60, (5, 2, HIGH), (14, 2, HIGH), (37, 3, HIGH))  # the first one is in nobody's turn
    transcript = transcribed(models, item(turns, low, high))  # three excerpts in two batches
    assert (transcript.language, transcript.aligned) == ("en", True)
    assert [(w.text, w.speaker, w.turn) for w in transcript.words] == [
        ("yeah", 0, 0), ("garden", 1, 1), ("gate", 1, 1), ("yeah", 0, 4),
    ]  # fmt: skip
    assert [w.start for w in transcript.words] == pytest.approx([1.0, 14.0, 14.14, 49.0], abs=0.03)
    assert all(0.05 < w.end - w.start < 0.3 for w in transcript.words)


@pytest.mark.slow
def test_the_language_is_heard_and_without_an_aligner_for_it_times_are_rough(
    models: TranscribeConfig, no_network: None
) -> None:
    config = models.model_copy(update={"language": None})
    turns = (turn(0, 0.5, 1.5), turn(1, 2.0, 6.0))
    mostly_low = item(turns, sounds(8, (0.5, 1.0, LOW)), sounds(8, (2.0, 4.0, LOW)))
    assert transcribed(config, mostly_low).language == "en"
    mostly_high = transcribed(config, item(turns, sounds(8, (0.5, 1.0, LOW)), sounds(8, (2.0, 4.0, HIGH))))
    assert (mostly_high.language, mostly_high.aligned) == ("de", False)
    assert [(w.text, w.turn) for w in mostly_high.words] == [("yeah", 0), ("garden", 1), ("gate", 1)]


@pytest.mark.slow
def test_alignment_models_are_loaded_once(models: TranscribeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    whisper = WhisperX(models)
    import whisperx.alignment

    loaded, load = [], whisperx.alignment.load_align_model

    def counted(language: str, *args: Any, **more: Any) -> Any:
        loaded.append(language)
        return load(language, *args, **more)

    monkeypatch.setattr(whisperx.alignment, "load_align_model", counted)
    for _ in range(3):
        assert whisper([sounds(1, (0.1, 0.8, LOW))]).words[0][0].text == "yeah"
    assert whisper([]) == Recognised([], "en", True)
    assert loaded == ["en"]


@pytest.mark.slow
def test_what_cannot_be_loaded_is_told(models: TranscribeConfig, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (broken / name).write_text("{}")
    with pytest.raises(UsageError, match=r"transcribe\.model: cannot load") as error:
        WhisperX(models.model_copy(update={"model": str(broken)}))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_missing_models_are_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    whisper, aligner = tmp_path / "whisper", tmp_path / "aligner"
    for folder, names in ((whisper, ("config.json", "tokenizer.json")), (aligner, ("config.json", "vocab.json"))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()

    def told(**config: Any) -> str:
        with pytest.raises(UsageError) as error:
            check_models(TranscribeConfig(enabled=True, **config))
        assert "\n" not in str(error.value)
        return str(error.value)

    check_models(TranscribeConfig())  # not asked for
    assert "run `visavis assets fetch Systran/faster-whisper-large-v3`" in told()
    assert "fetch Systran/faster-whisper-large-v3 --to here`" in told(folder="here")
    assert "absent: no such folder" in told(model=str(tmp_path / "absent"))
    assert "has no model.bin" in told(model=str(whisper))
    (whisper / "model.bin").touch()
    assert "times words of 'en' (facebook/wav2vec2-base-960h)" in told(model=str(whisper))
    assert "times words of 'xx' (none is known); set transcribe.alignment.xx" in told(model=str(whisper), language="xx")
    named = {"de": str(tmp_path / "nowhere")}
    assert "times words of 'de'" in told(model=str(whisper), language="en", alignment={**named, "en": str(aligner)})
    check_models(TranscribeConfig(enabled=True, model=str(whisper), alignment={"en": str(aligner)}))


def test_models_of_the_hub_are_found_where_they_were_fetched_to(tmp_path: Path) -> None:
    for repository, names in (
        ("Systran/faster-whisper-large-v3", ("config.json", "model.bin", "tokenizer.json")),
        ("facebook/wav2vec2-base-960h", ("config.json", "vocab.json")),
    ):
        cached = tmp_path / f"models--{repository.replace('/', '--')}"
        snapshot = cached / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40)
        for name in names:
            (snapshot / name).touch()
    check_models(TranscribeConfig(enabled=True, folder=str(tmp_path)))
    (tmp_path / "models--facebook--wav2vec2-base-960h" / "snapshots" / ("0" * 40) / "vocab.json").unlink()
    with pytest.raises(UsageError, match="times words of 'en'"):
        check_models(TranscribeConfig(enabled=True, folder=str(tmp_path)))


def test_without_whisperx_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "model.bin", "tokenizer.json"):
        (tmp_path / name).touch()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "whisperx" else find(name))
    with pytest.raises(UsageError, match=r"visavis\[asr\].*--no-deps whisperx"):
        check_models(TranscribeConfig(enabled=True))
    for name in [n for n in sys.modules if n == "whisperx" or n.startswith("whisperx.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "whisperx", None)
    with pytest.raises(UsageError, match=r"visavis\[asr\].*--no-deps whisperx"):
        WhisperX(TranscribeConfig(model=str(tmp_path), device="cpu"))

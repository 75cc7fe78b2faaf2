"""Words go to whose turn they fall in.

Whisper's weights are not part of any wheel, so a fake transcriber stands in for them here: these tests show the
assignment and the road of the audio, not recognition.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from schemas.config import TranscribeConfig
from schemas.errors import UsageError
from schemas.rows import Turn, VoiceFigures, Voices
from schemas.sample import encode_audio
from stages.transcribe import Heard, TranscribeInput, TranscribeStage, Transcript, WhisperX, assign
from tests.stages.test_separate import bound

TURNS = (Turn(speaker=0, start=0.0, end=1.0), Turn(speaker=1, start=0.8, end=2.0))


def test_a_word_belongs_to_whoever_has_the_turn() -> None:
    heard = [Heard(0.1, 0.4, "hello"), Heard(0.9, 1.3, "late"), Heard(1.5, 1.8, "echo")]
    assert [w.text for w in assign(heard, TURNS, 0)] == ["hello"]
    assert [w.text for w in assign(heard, TURNS, 1)] == ["late", "echo"]


def test_a_word_said_in_overlap_may_be_of_both() -> None:
    heard = [Heard(0.82, 0.98, "yes")]
    assert [w.speaker for s in (0, 1) for w in assign(heard, TURNS, s)] == [0, 1]


def test_each_voice_is_transcribed_without_the_other() -> None:
    heard_levels = []

    def fake(audio_N: np.ndarray) -> tuple[list[Heard], str]:
        heard_levels.append([float(audio_N[round(t * 16_000)]) for t in (0.4, 1.6)])
        return [Heard(0.3, 0.5, "one"), Heard(1.5, 1.7, "two")], "en"

    stage = TranscribeStage(TranscribeConfig())
    stage._transcriber = fake
    said = [np.where(np.arange(2 * 16_000) // 16_000 == i, 0.5, 0.0).astype(np.float32) for i in (0, 1)]
    one, other = (np.frombuffer(encode_audio(voice), np.uint8) for voice in said)
    figures = VoiceFigures(method="mask", residual_db=None, overlapped=0.0)
    voices = Voices(conversation="c", audio=(one, other), figures=(figures, figures))
    item = TranscribeInput(binding=bound(list(TURNS), media=(0, 0)), voices=voices)
    (transcript,) = stage.process(item)
    assert isinstance(transcript, Transcript)
    assert transcript.language == "en"
    assert [(w.speaker, w.text) for w in transcript.words] == [(0, "one"), (1, "two")]
    assert np.allclose(heard_levels, [[0.5, 0.0], [0.0, 0.5]], atol=1e-3)


def test_without_whisperx_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisperx", None)
    with pytest.raises(UsageError, match=r"install the extra visavis\[asr\]"):
        WhisperX(TranscribeConfig(device="cpu"))

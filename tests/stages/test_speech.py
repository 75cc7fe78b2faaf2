"""Speech is heard under music, and music is not speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.diarization import MUSIC, music, with_music
from visavis.schemas import SAMPLE_RATE
from visavis.stages.media.audio import read_audio
from visavis.stages.models.networks import load_voice_activity
from visavis.stages.voice.activity import HEARD, VAD_STEP, speech_probability


@pytest.mark.parametrize("kind", MUSIC)
def test_music_alone_is_no_speech(kind: str) -> None:
    heard = speech_probability(load_voice_activity(), music(kind, 20 * SAMPLE_RATE, seed=1))
    assert (heard > HEARD).mean() < 0.01


@pytest.mark.parametrize("level", [0.0, 0.01, 0.3])
def test_silence_and_noise_are_no_speech(level: float) -> None:
    noise = np.random.default_rng(0).normal(0, level, 20 * SAMPLE_RATE).astype(np.float32)
    assert (speech_probability(load_voice_activity(), noise) > HEARD).mean() < 0.01


@pytest.mark.parametrize("kind", MUSIC)
def test_speech_is_heard_under_music(kind: str, shared_media: Path) -> None:
    speech = read_audio(str(shared_media / "diarization" / "anytalker_interact_15_mix.wav"))
    activity = load_voice_activity()
    loud = with_music(speech, kind, db=0.0, seed=1)
    heard = speech_probability(activity, loud) > HEARD
    assert heard.sum() * VAD_STEP / SAMPLE_RATE > 0.8 * len(speech) / SAMPLE_RATE
    assert heard.sum() >= (activity(loud) > HEARD).sum()

"""How people would rate speech: the networks are fed as their makers feed them, and tell noise from speech."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sound import noisy
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.config import DnsmosConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Binding, Turn
from visavis.schemas.sample import encode_audio
from visavis.schemas.voice_rows import VoiceFigures, Voices
from visavis.stages import dnsmos
from visavis.stages.dnsmos import DnsmosInput, DnsmosStage, rated, said_alone, windows_of
from visavis.stages.media.audio import read_audio
from visavis.stages.models import wheels
from visavis.stages.models.dnsmos import WINDOW, Dnsmos, Ratings, log_mel, mel_filters


def slow_mel(audio_N: np.ndarray) -> np.ndarray:
    """The same by definition: a discrete Fourier transform as a product of matrices, each triangle point by point."""
    size, hop, bands = 321, 160, 120
    mel = lambda f: f / (200 / 3) if f < 1000 else 15 + np.log(f / 1000) * 27 / np.log(6.4)  # noqa: E731
    hertz = lambda m: m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)  # noqa: E731
    edges = [hertz(mel(8000) * n / (bands + 1)) for n in range(bands + 2)]
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(size), np.arange(161)) / size)
    padded = np.concatenate([np.zeros(160), audio_N.astype(np.float64), np.zeros(160)])
    frames = np.array([padded[n : n + size] for n in range(0, len(padded) - size + 1, hop)])
    power = np.abs((frames * taper) @ fourier) ** 2
    filters = np.zeros((161, bands))
    for b in range(bands):
        low, middle, high = edges[b : b + 3]
        for k in range(161):
            f = k * 16000 / size
            inside = (f - low) / (middle - low) if f <= middle else (high - f) / (high - middle)
            filters[k, b] = max(0.0, inside) * 2 / (high - low)
    db = 10 * np.log10(np.maximum(1e-10, power @ filters))
    return (np.maximum(db - db.max(), -80) + 40) / 40


def test_the_spectrogram_is_what_its_definition_says() -> None:
    random = np.random.default_rng(0)
    audio_N = (random.standard_normal(16_000) * np.linspace(0, 0.5, 16_000) ** 3).astype(np.float32)
    found_FM = log_mel(audio_N, mel_filters())
    assert found_FM.shape == (100, 120)
    np.testing.assert_allclose(found_FM, slow_mel(audio_N), atol=1e-9)
    assert (found_FM.min(), found_FM.max()) == (-1, 1)


def test_windows_are_spread_over_all_that_is_said_and_no_more_than_asked_for() -> None:
    said_N = np.arange(60 * SAMPLE_RATE)
    assert [int(window_N[0]) // SAMPLE_RATE for window_N in windows_of(said_N, 4)] == [0, 17, 33, 50]
    assert [int(window_N[0]) // SAMPLE_RATE for window_N in windows_of(said_N, 10_000)] == list(range(51))
    one, *others = windows_of(said_N[: 6 * SAMPLE_RATE], 4)
    assert len(one) == WINDOW
    assert one[6 * SAMPLE_RATE] == 0  # once more from the beginning
    assert [int(window_N[0]) // SAMPLE_RATE for window_N in others] == [1, 2]


def test_only_what_somebody_says_alone_is_heard() -> None:
    state_T = np.array([0] * 20 + [1] * 30 + [3] * 20 + [1] * 5 + [2] * 25 + [1] * 40, np.uint8)
    audio_N = np.repeat(state_T, SAMPLES_PER_FRAME).astype(np.float32)
    audio_N[: 20 * SAMPLES_PER_FRAME] = 9
    said_N = said_alone(audio_N, state_T, 0)
    assert len(said_N) == 70 * SAMPLES_PER_FRAME  # five frames are too few to be heard
    assert set(said_N) == {1.0}


class Loudness:
    """Rates a window by its peak."""

    def __call__(self, audio_N: np.ndarray) -> Ratings:
        assert audio_N.shape == (WINDOW,)
        return Ratings(*(float(np.abs(audio_N).max()) + n for n in range(4)))


def spoken(seconds: float) -> DnsmosInput:
    """The first says so many seconds, the second one second."""
    frames = round((seconds + 2) * FPS)
    one, other = np.zeros((2, frames * SAMPLES_PER_FRAME), np.float32)
    first = round(seconds * SAMPLE_RATE)
    one[:first], other[first : first + SAMPLE_RATE] = 0.5, 0.25
    figures = VoiceFigures(method="own_track", residual_db=None, overlapped=0)
    turns = (Turn(speaker=0, start=0, end=seconds), Turn(speaker=1, start=seconds, end=seconds + 1))
    flac = [np.frombuffer(encode_audio(track_N), np.uint8) for track_N in (one, other)]
    return DnsmosInput.model_construct(
        binding=Binding.model_construct(conversation="c", participants=(), turns=turns),
        voices=Voices(conversation="c", audio=(flac[0], flac[1]), figures=(figures, figures)),
    )


def test_who_says_too_little_has_no_score_and_is_not_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dnsmos, "Dnsmos", Loudness)
    stage = DnsmosStage(DnsmosConfig(enabled=True))
    stage.setup()
    [row] = stage.process(spoken(12.0))
    one, other = row.people
    assert (one.sig, one.p808, one.seconds) == (0.5, 3.5, 12.0)
    assert (other.sig, other.ovrl, other.seconds) == (None, None, 1.0)
    assert json.loads(stage.facts([row]))["ovrl"] == [2.5, None]


def test_weights_that_are_missing_are_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_inside", lambda package, name: None)
    dnsmos.check_dnsmos(DnsmosConfig())
    with pytest.raises(UsageError, match=r'speechmos.*pip install "visavis\[sound\]", or set dnsmos.enabled=false'):
        dnsmos.check_dnsmos(DnsmosConfig(enabled=True))


@pytest.mark.slow
def test_more_noise_is_rated_lower_on_real_speech(shared_media: Path) -> None:
    pytest.importorskip("speechmos")
    network = Dnsmos()
    ratings = []
    audio_N = read_audio(str(shared_media / "diarization/pyannote_sample.wav"))[: 12 * SAMPLE_RATE]
    for snr_db in (60, 20, 10, 0):
        mos = rated(network, noisy(audio_N, audio_N, snr_db), 1)
        ratings.append([mos.bak, mos.ovrl, mos.p808])
    bak, ovrl, p808 = np.array(ratings, np.float64).T
    assert (np.diff(bak) < 0).all(), bak
    assert (np.diff(ovrl) < 0).all(), ovrl
    # P.808's network takes 10 dB for a little better than 20 in a single window.
    assert p808.argmax() == 0, p808
    assert p808.argmin() == 3, p808

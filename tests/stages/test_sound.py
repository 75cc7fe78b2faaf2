"""How a track sounds: figures that are kept of every voice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.stages.voice.leakage import frame_power
from visavis.stages.voice.sound import MOST_SNR, SILENT_DB, figures_of, snr_of, track_sound

FRAMES = 500  # 20 s
STATE = np.zeros(FRAMES, np.uint8)
STATE[25:225], STATE[250:475] = 1, 2


def voice(seed: int = 0) -> np.ndarray:
    """Noise as loud as a voice, in syllables, while the first person speaks: float32 [N]."""
    random = np.random.default_rng(seed)
    spectrum = np.fft.rfft(random.standard_normal(FRAMES * SAMPLES_PER_FRAME))
    spectrum /= np.maximum(1, np.fft.rfftfreq(FRAMES * SAMPLES_PER_FRAME, 1 / SAMPLE_RATE) / 1000)
    sound_N = np.fft.irfft(spectrum)
    t = np.arange(len(sound_N)) / SAMPLE_RATE
    sound_N *= (1 + np.sin(2 * np.pi * 4 * t)) * np.repeat(STATE == 1, SAMPLES_PER_FRAME)
    return (0.3 * sound_N / np.abs(sound_N).max()).astype(np.float32)


def test_a_whole_voice_is_not_clipped_and_reaches_the_top() -> None:
    sound = track_sound(voice())
    assert (sound.clipped, sound.bandwidth_hz) == (0.0, 8000)
    assert track_sound(voice() / 10).level_db == pytest.approx(sound.level_db - 20, abs=2)


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_what_is_cut_off_is_counted(share: float) -> None:
    whole_N = voice()
    said = np.abs(whole_N[np.repeat(STATE == 1, SAMPLES_PER_FRAME)])
    most = np.quantile(said, 1 - share)
    sound = track_sound(np.clip(whole_N, -most, most))
    assert sound.clipped == pytest.approx(share * 200 / FRAMES, rel=0.2)


@pytest.mark.parametrize("hertz", [3400, 5000])
def test_where_a_spectrum_ends_is_found(hertz: int) -> None:
    cut_N = sosfiltfilt(butter(12, hertz, fs=SAMPLE_RATE, output="sos"), voice()).astype(np.float32)
    assert track_sound(cut_N).bandwidth_hz == pytest.approx(hertz, abs=500)


@pytest.mark.parametrize("snr_db", [30, 20, 10, 0])
def test_speech_over_the_noise_beside_it(snr_db: float) -> None:
    voice_N = voice().astype(np.float64)
    power = (voice_N[np.repeat(STATE == 1, SAMPLES_PER_FRAME)] ** 2).mean()
    noise_N = np.random.default_rng(1).standard_normal(len(voice_N)) * np.sqrt(power) * 10 ** (-snr_db / 20)
    power_T = frame_power((voice_N + noise_N).astype(np.float32))
    assert snr_of(power_T, STATE, 0) == pytest.approx(snr_db, abs=0.5)


def test_what_nobody_can_tell_is_not_told() -> None:
    silence = np.zeros(FRAMES * SAMPLES_PER_FRAME, np.float32)
    sound = track_sound(silence)
    assert (sound.level_db, sound.clipped) == (SILENT_DB, 0.0)
    assert snr_of(frame_power(silence), STATE, 0) is None
    assert snr_of(frame_power(voice()), np.full(FRAMES, 3, np.uint8), 0) is None  # never alone
    assert snr_of(frame_power(voice()), STATE, 0) == MOST_SNR


def test_long_tracks_are_measured_in_parts_with_the_same_figures() -> None:
    once, often = track_sound(np.clip(voice(), -0.1, 0.1)), track_sound(np.tile(np.clip(voice(), -0.1, 0.1), 9))
    assert often.clipped == pytest.approx(once.clipped, rel=1e-3)
    assert (often.level_db, often.bandwidth_hz) == (once.level_db, once.bandwidth_hz)


def test_figures_of_both_are_told_apart() -> None:
    tracks = [voice(), np.clip(voice(1), -0.05, 0.05)]
    powers = [frame_power(track_N) for track_N in tracks]
    one, other = figures_of("own_track", [track_sound(t) for t in tracks], powers, (-60.0, None), STATE)
    assert (one.clipped, one.residual_db, other.residual_db) == (0.0, -60.0, None)
    assert other.clipped is not None
    assert other.clipped > 0.01

"""Many channels become one as people hear them; offsets go, voices stay as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scale import NIGHTLY
from visavis.stages.media.mixing import Piece, as_floats, mixed, weights_of, without_offset

RATE = 16_000
STEREO = np.array([0.5, 0.5], np.float32)


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Harmonics of a changing pitch in syllables, with pauses between phrases."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.4 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = sum(np.sin(k * phase + rng.uniform(0, 6)) / k for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 4 * time), 0, 1) * (np.sin(2 * np.pi * 0.3 * time + seed) > -0.3)
    return (0.1 * sound * syllables + 0.0005 * rng.standard_normal(len(time))).astype(np.float32)


def cut(samples_CN: np.ndarray, size: int = 1024) -> Iterator[np.ndarray]:
    return (samples_CN[:, at : at + size] for at in range(0, samples_CN.shape[1], size))


def whole(pieces: Iterable[Piece]) -> np.ndarray:
    return np.concatenate([np.zeros(piece) if isinstance(piece, int) else piece for piece in pieces])


def mix(*channels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    each = np.full(len(channels), 1 / len(channels), np.float32) if weights is None else weights
    return whole(mixed(cut(np.stack(channels)), RATE, each))


def kept(mono: np.ndarray, said: np.ndarray) -> float:
    """How much of a voice is in the mix: 1 is all of it, whatever its sign."""
    return abs(float(mono @ said / (said @ said)))


def clean(mono: np.ndarray, said: np.ndarray) -> float:
    """Correlation with the voice, whatever its sign."""
    return abs(float(np.corrcoef(mono, said)[0, 1]))


def test_ordinary_stereo_is_the_mean() -> None:
    one, other = voice(20), voice(20, seed=1)
    np.testing.assert_allclose(mix(one, 0.3 * one + other), (1.3 * one + other) / 2, atol=1e-7)
    np.testing.assert_array_equal(mix(one, one), one)


@pytest.mark.parametrize("level", [1.0, 0.5, 0.05])
def test_a_side_that_is_inverted_is_heard(level: float) -> None:
    said = voice(20)
    assert kept(mix(said, -level * said), said) == pytest.approx((1 + level) / 2, rel=0.01)
    assert kept(mix(-level * said, said), said) == pytest.approx((1 + level) / 2, rel=0.01)


@pytest.mark.slow
def test_a_side_may_be_inverted_for_a_part_of_the_time_only() -> None:
    said = voice(90)
    sign = np.where((np.arange(len(said)) // (30 * RATE)) == 1, -1, 1).astype(np.float32)
    mono = mix(said, sign * said)
    for first in (0, 35, 65):
        part = slice(first * RATE, (first + 20) * RATE)
        assert kept(mono[part], said[part]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("milliseconds", [1, 2.3, 5, 11, 30])
def test_a_delayed_copy_makes_no_comb_filter(milliseconds: float, sign: int) -> None:
    said = voice(20)
    copy = sign * 0.7 * np.roll(said, round(milliseconds * RATE / 1000))
    for one, other in ((said, copy), (copy, said)):
        mono = mix(one, other)
        assert clean(mono, said) > 0.999
        assert kept(mono, said) == pytest.approx(1, rel=0.01)


def test_two_people_whose_voices_reach_both_microphones_are_both_heard() -> None:
    """Each in turn is a delayed copy on the other side: nobody gets lost, whoever is louder."""
    one, other = voice(40), voice(40, seed=4)
    one[20 * RATE :] = 0
    other[: 20 * RATE] = 0
    mono = mix(one + 0.5 * np.roll(other, 40), 0.2 * other + 0.5 * np.roll(one, 40))
    for said, half in ((one, slice(0, 14 * RATE)), (other, slice(26 * RATE, 40 * RATE))):
        assert max(clean(mono[half], said[half]), clean(np.roll(mono, -40)[half], said[half])) > 0.99


def test_hum_of_opposite_sign_does_not_turn_a_voice_over() -> None:
    said = voice(20)
    hum = (0.2 * np.sin(2 * np.pi * 50 * np.arange(len(said)) / RATE)).astype(np.float32)
    np.testing.assert_allclose(mix(said + hum, said - hum), said, atol=1e-6)


def test_two_people_on_a_side_each_are_both_heard() -> None:
    one, other = voice(30), voice(30, seed=4)
    leaked = 0.1 * np.roll(one, 40)
    mono = mix(one - 0.1 * np.roll(other, 40), other - leaked)
    assert kept(mono, one) == pytest.approx(0.5, abs=0.06)
    assert kept(mono, other) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("level", [0.02, 1.0])
def test_steady_noise_beside_a_voice_is_left_out(level: float) -> None:
    said, rng = voice(30), np.random.default_rng(0)
    time = np.arange(len(said)) / RATE
    for noise in (
        rng.uniform(-1, 1, len(said)),
        np.sin(2 * np.pi * 50 * time),
        np.sign(np.sin(2 * np.pi * 1200 * time)),
    ):
        assert clean(mix(said, (level * noise).astype(np.float32)), said) > 0.999


def test_what_is_nothing_but_noise_stays() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * RATE).astype(np.float32)
    assert mix(noise, 0.5 * noise).std() == pytest.approx(0.075, rel=0.02)


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, -np.inf, 1e30])
def test_a_channel_of_rubbish_does_not_hide_the_other(rubbish: float) -> None:
    said = voice(20)
    broken = np.full(len(said), rubbish, np.float32)
    mono = whole(without_offset(mixed(cut(np.stack([said, broken])), RATE, STEREO), RATE))
    assert clean(mono, said) > 0.99


def test_channels_count_by_their_place() -> None:
    def by_name(layout: str) -> dict[str, float]:
        made = av.AudioLayout(layout)
        return {c.name: round(float(w), 3) for c, w in zip(made.channels, weights_of(made), strict=True)}

    assert by_name("mono") == {"FC": 1}
    assert by_name("stereo") == {"FL": 0.5, "FR": 0.5}
    assert by_name("2.1") == {"FL": 0.5, "FR": 0.5, "LFE": 0}
    assert by_name("5.1") == {"FL": 0.207, "FR": 0.207, "FC": 0.293, "LFE": 0, "BL": 0.146, "BR": 0.146}
    assert by_name("ambisonic 1") == {"AMBI0": 1, "AMBI1": 0, "AMBI2": 0, "AMBI3": 0}
    assert set(weights_of(av.AudioLayout("16 channels")).tolist()) == {1 / 16}


@given(
    channels=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=12),
    silences=st.sets(st.integers(0, 11)),
)
@settings(deadline=None, max_examples=1500 if NIGHTLY else 30)
def test_how_the_sound_arrives_makes_no_difference(channels: int, sizes: list[int], silences: set[int]) -> None:
    rng = np.random.default_rng(len(sizes))
    sound = rng.normal(0.1, 0.1, (channels, sum(sizes))).astype(np.float32)
    edges = np.cumsum([0, *sizes])
    parts: list[list[Piece]] = [[], []]
    for i, (first, last) in enumerate(pairwise(edges)):
        for where, size in zip(parts, (last - first, 700), strict=True):
            if i in silences:
                where.append(123)
            where.extend(cut(sound[:, first:last], size))
    weights = np.full(channels, 1 / channels, np.float32)
    one, other = (
        np.concatenate(
            [np.zeros(p) if isinstance(p, int) else p for p in without_offset(mixed(part, RATE, weights), RATE)]
        )
        for part in parts
    )
    assert len(one) == sum(sizes) + 123 * len([i for i in silences if i < len(sizes)])
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("offset", [0.002, 0.02, 0.5])
def test_an_offset_goes_whether_it_stays_or_drifts(offset: float) -> None:
    said = voice(20)
    time = np.arange(len(said)) / RATE
    plain = whole(without_offset(np.split(said, 100), RATE))
    for drift in (np.full(len(said), offset), offset * np.sin(2 * np.pi * 0.1 * time)):
        shifted = np.split((said + drift).astype(np.float32), 100)
        found = whole(without_offset(shifted, RATE))
        inner = slice(RATE // 4, -RATE // 4)  # at both ends a slope is mirrored and half of it stays
        np.testing.assert_allclose(found[inner], plain[inner], atol=0.002 * offset + 1e-6)
        np.testing.assert_allclose(found, plain, atol=0.03 * offset)


@pytest.mark.parametrize(("hertz", "tolerance"), [(80, 0.005), (200, 0.001), (1000, 1e-4)])
def test_voices_keep_their_level_and_their_time(hertz: int, tolerance: float) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(4 * RATE) / RATE).astype(np.float32)
    found = whole(without_offset(np.split(tone, 50), RATE))
    np.testing.assert_allclose(found[RATE:-RATE], tone[RATE:-RATE], atol=tolerance)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_samples_of_any_type_become_floats(kind: type) -> None:
    wave = 0.5 * np.sin(np.arange(1000) / 10)
    stored = {
        np.uint8: lambda: np.round(wave * 128 + 128),
        np.int16: lambda: np.round(wave * 2**15),
        np.int32: lambda: np.round(wave * 2**31),
    }.get(kind, lambda: wave)()
    floats = as_floats(stored.astype(kind))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, wave, atol=1 / 128 if kind is np.uint8 else 1e-4)


def test_what_is_too_loud_is_clipped() -> None:
    np.testing.assert_array_equal(as_floats(np.array([2.0, -3.0, np.nan, np.inf, -np.inf, 0.5])), [1, -1, 0, 0, 0, 0.5])

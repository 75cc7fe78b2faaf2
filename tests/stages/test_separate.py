"""Each participant gets its own voice, overlaps come apart as well as the network can, and what is left is measured.

Weights of a separation network ship in no wheel: stand-ins that know the truth show all that happens around one, and
torchaudio's architecture with untrained weights shows that the real one is loaded and run.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from benchmarks.separation import (
    LEVEL,
    STAND_INS,
    Made,
    StandIn,
    as_it_is,
    conversation,
    decibels,
    exchange,
    masked,
    residuals_of_mix,
    residuals_of_tracks,
    separated,
    si_sdr,
    voice_pairs,
)
from tests.stages.test_diarize import conversation as listed
from tests.stages.test_diarize import wav
from tests.stages.test_quality import GOOD
from visavis.pipeline.plan.graph import Graph
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.config import BuildConfig, SeparateConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Binding, BoundParticipant, Turn
from visavis.schemas.sample import decode_audio
from visavis.schemas.voice_rows import Voices
from visavis.stages.media.audio import read_audio, speech_state
from visavis.stages.models.networks import SpeakerEncoder, load_speaker_encoder
from visavis.stages.separate import SeparateInput, SeparateStage, rehearsal
from visavis.stages.voice.leakage import LEAST_DB, frame_power, overlapped, residual_of_mix, residual_of_tracks
from visavis.stages.voice.overlaps import (
    BOTH,
    CONTEXT,
    WINDOW,
    Speech,
    patches,
    picture,
    settle,
    spans_by_state,
    windows_of,
)
from visavis.stages.voice.separator import ConvTasNetSeparator, check_separator, load_separator

Pairs = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def pairs(shared_media: Path) -> Pairs:
    return voice_pairs(shared_media)


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return load_speaker_encoder()


def murmur(seconds: float, seed: int) -> np.ndarray:
    """Noise that comes and goes as syllables do."""
    random = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    syllables = np.repeat(random.uniform(0.2, 1.0, -(-count // 3200)), 3200)[:count]
    return (LEVEL * syllables * random.standard_normal(count)).astype(np.float32)


def turn(speaker: int, start: float, end: float) -> Turn:
    return Turn(speaker=speaker, start=start, end=end)


def bound(turns: list[Turn], *, media: tuple[int, int]) -> Binding:
    one, other = (
        BoundParticipant(name=f"p{i}", media=media[i], speaker=i, segments=(), score=0.5, margin=1.0, figures=GOOD)
        for i in (0, 1)
    )
    return Binding(conversation="c", participants=(one, other), turns=tuple(turns))


def voices_of(
    tmp_path: Path, tracks: list[np.ndarray], turns: list[Turn], stage: SeparateStage | None = None
) -> Voices:
    paths = [wav(tmp_path / f"{number}.wav", track) for number, track in enumerate(tracks)]
    item = SeparateInput(
        conversation=listed(*paths, frames=len(tracks[0]) // SAMPLES_PER_FRAME),
        binding=bound(turns, media=(0, len(tracks) - 1)),
    )
    (row,) = (stage or SeparateStage(SeparateConfig())).process(item)
    return row


def heard(voices: Voices) -> np.ndarray:
    return np.stack([decode_audio(audio.tobytes()) for audio in voices.audio])


# --- tracks of their own, and turns


def test_own_tracks_stay_as_they_are_and_tell_their_leak(tmp_path: Path) -> None:
    own = [np.zeros(12 * SAMPLE_RATE, np.float32) for _ in range(2)]
    own[0][: 5 * SAMPLE_RATE], own[1][5 * SAMPLE_RATE : 10 * SAMPLE_RATE] = murmur(5, 0), murmur(5, 1)
    tracks = [own[0] + 0.1 * own[1], own[1]]  # the second's voice is in the first's microphone, at −20 dB
    voices = voices_of(tmp_path, tracks, [turn(0, 0, 5), turn(1, 5, 10)])
    as_read = [read_audio(str(wav(tmp_path / f"{n}.wav", track))) for n, track in enumerate(tracks)]
    np.testing.assert_allclose(heard(voices), as_read, atol=2 / 32767)
    assert [f.method for f in voices.figures] == ["own_track", "own_track"]
    assert voices.figures[0].residual_db == pytest.approx(-20, abs=0.7)
    assert voices.figures[1].residual_db == LEAST_DB
    assert [f.overlapped for f in voices.figures] == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("leak_db", [-10.0, -20.0, -30.0, -40.0])
def test_a_leak_is_measured_under_noise_and_a_listeners_own_words(pairs: Pairs, leak_db: float) -> None:
    made = conversation(pairs, np.random.default_rng(1))
    for measured, true in residuals_of_tracks(made, leak_db, np.random.default_rng(2)):
        assert measured == pytest.approx(true, abs=1.0)


def test_a_mix_is_given_to_whoever_has_the_turn_and_overlap_to_both(tmp_path: Path) -> None:
    voices = voices_of(tmp_path, [murmur(4, 0)], [turn(0, 0, 2), turn(1, 1.5, 4)])
    mix = read_audio(str(tmp_path / "0.wav"))
    one, other = heard(voices)
    assert not other[: round(1.47 * SAMPLE_RATE)].any()
    assert not one[round(2.03 * SAMPLE_RATE) :].any()
    both = slice(round(1.5 * SAMPLE_RATE), 2 * SAMPLE_RATE)
    for voice in (one, other):
        np.testing.assert_allclose(voice[both], mix[both], atol=2 / 32767)
    assert [f.method for f in voices.figures] == ["mask", "mask"]
    assert [f.overlapped for f in voices.figures] == [pytest.approx(0.25, abs=0.02), pytest.approx(0.2, abs=0.02)]


def test_what_masks_leave_of_the_other_is_measured(pairs: Pairs) -> None:
    found = [
        pair
        for seed in range(3)
        for pair in residuals_of_mix(conversation(pairs, np.random.default_rng(seed)), np.random.default_rng(seed))
    ]
    assert len(found) == 6
    assert np.ptp([true for _, true in found]) > 5  # some overlap more, some are louder
    for measured, true in found:
        assert measured == pytest.approx(true, abs=2.5)


def test_no_residual_is_told_of_somebody_who_is_never_heard_alone() -> None:
    power = np.ones(100, np.float32)
    inside = np.where(np.arange(100) < 50, 3, 1).astype(np.uint8)  # the second speaks only while the first does
    assert residual_of_mix(power, [power, power], inside) == (None, None)
    assert residual_of_tracks([power, power], inside) == (None, None)
    assert (overlapped(inside, 0), overlapped(inside, 1)) == (0.5, 1.0)
    assert overlapped(np.zeros(5, np.uint8), 0) == 0.0


# --- overlaps


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("seconds", [0.2, 0.8])
def test_true_voices_come_back_and_to_whom_they_belong(
    pairs: Pairs, encoder: SpeakerEncoder, seconds: float, inside: bool
) -> None:
    values = []
    for seed, pair in enumerate(pairs[:4]):
        made = exchange(*pair, seconds, inside=inside)
        for right, found in separated(made, StandIn(made, as_it_is, seed), encoder):  # scales and order at random
            assert right
            values += found
    assert np.median(values) > 18  # what an 8 kHz network leaves over is not lost


@pytest.mark.parametrize("name", ["mask", "noisy", "leaky"])
def test_voices_go_to_whom_they_belong_however_well_they_come_apart(
    pairs: Pairs, encoder: SpeakerEncoder, name: str
) -> None:
    for seed, pair in enumerate(pairs[:3]):
        made = exchange(*pair, 0.4, inside=bool(seed % 2))
        assert all(right for right, _ in separated(made, StandIn(made, STAND_INS[name], seed), encoder))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask", "noisy", "leaky"])
def test_what_a_network_leaves_of_the_other_is_measured_in_a_rehearsal(
    pairs: Pairs, encoder: SpeakerEncoder, name: str
) -> None:
    errors = []
    for pair in pairs:
        made = exchange(*pair, 0.8, inside=False)
        found = residuals_of_mix(made, np.random.default_rng(0), StandIn(made, STAND_INS[name]), encoder)
        errors += [measured - true for measured, true in found]
    assert len(errors) == 2 * len(pairs)
    assert np.abs(np.median(errors)) < 4


def stage_with(separator: Callable[[np.ndarray], np.ndarray], encoder: SpeakerEncoder) -> SeparateStage:
    stage = SeparateStage(SeparateConfig(backend="convtasnet"))
    stage._separator, stage._encoder = separator, encoder
    return stage


def test_a_network_touches_overlaps_alone(tmp_path: Path, pairs: Pairs, encoder: SpeakerEncoder) -> None:
    voices_2N, turns = exchange(*pairs[2], 0.8, inside=False)
    raw = voices_2N.sum(0)
    mix = read_audio(str(wav(tmp_path / "mix.wav", raw)))
    made: Made = (np.stack([voices_2N[0], mix - voices_2N[0]]), turns)  # the file has 16 bits and no offset
    by_mask = voices_of(tmp_path, [raw], turns)
    by_network = voices_of(tmp_path, [raw], turns, stage_with(StandIn(made, masked), encoder))
    assert [f.method for f in by_network.figures] == ["network", "network"]
    ((first, last),) = Speech.of(mix, turns).spans[BOTH]
    plain, taken_apart = heard(by_mask), heard(by_network)
    fade = round(0.02 * SAMPLE_RATE)
    for span in (slice(0, first - fade), slice(last + fade, None)):
        np.testing.assert_array_equal(plain[:, span], taken_apart[:, span])
    inside = slice(first, last)
    np.testing.assert_allclose(taken_apart[:, inside].sum(0), mix[inside], atol=3 / 32767)
    for plain_N, found_N, truth_N in zip(plain, taken_apart, voices_2N, strict=True):
        assert si_sdr(found_N[inside], truth_N[inside]) > si_sdr(plain_N[inside], truth_N[inside]) + 5
    for mask, network, i in zip(by_mask.figures, by_network.figures, (0, 1), strict=True):
        assert mask.residual_db == pytest.approx(
            decibels((plain[i] != 0) * voices_2N[1 - i], voices_2N[i], turns, i), abs=3
        )
        assert network.residual_db is not None
        assert network.residual_db < mask.residual_db - 6  # type: ignore[operator]


def test_without_an_overlap_no_network_is_asked(tmp_path: Path, encoder: SpeakerEncoder) -> None:
    def unasked(mixes_BN: np.ndarray) -> np.ndarray:
        raise AssertionError

    voices = voices_of(tmp_path, [murmur(4, 0)], [turn(0, 0, 2), turn(1, 2, 4)], stage_with(unasked, encoder))
    assert [f.method for f in voices.figures] == ["mask", "mask"]


def test_long_overlaps_are_bounded_work_and_have_no_seams(pairs: Pairs, encoder: SpeakerEncoder) -> None:
    truth = np.stack([np.resize(voice, 40 * SAMPLE_RATE) for voice in pairs[1]])
    truth[0, 30 * SAMPLE_RATE :] = truth[1, : 5 * SAMPLE_RATE] = 0
    speech, batches = Speech.of(truth.sum(0), [turn(0, 0, 30), turn(1, 5, 40)]), list[tuple[int, ...]]()
    windows = iter(windows_of(speech.spans[BOTH], len(speech.mix)))

    def crossed_every_other_time(mixes_BN: np.ndarray) -> np.ndarray:
        batches.append(mixes_BN.shape)
        cuts = [truth[:, window.first : window.first + WINDOW] for _, window in zip(mixes_BN, windows, strict=False)]
        return np.stack([cut[:: 1 - 2 * (n % 2)] for n, cut in enumerate(cuts)])

    pictures = (picture(encoder, speech.alone(0)), picture(encoder, speech.alone(1)))
    (patch,) = patches(speech, pictures, crossed_every_other_time, encoder, 0.02)
    assert sum(shape[0] for shape in batches) == 13  # 25 s, two seconds of each window
    assert {shape[1] for shape in batches} == {WINDOW}
    assert max(shape[0] for shape in batches) <= 8
    assert (patch.weight[320:-320] == 1).all()
    np.testing.assert_allclose(patch.voices, truth[:, patch.span], atol=1e-4)


spans = st.lists(
    st.builds(lambda speaker, start, length: turn(speaker, start, start + length), st.integers(0, 1),
              st.floats(-1, 12), st.floats(0.01, 6)),
    max_size=8,
)  # fmt: skip


@given(turns=spans)
def test_every_sample_belongs_to_the_span_of_those_who_speak(turns: list[Turn]) -> None:
    samples = 10 * SAMPLE_RATE
    speaks_2N = np.zeros((2, samples), int)
    for t in turns:
        speaks_2N[t.speaker, max(0, round(t.start * SAMPLE_RATE)) : max(0, round(t.end * SAMPLE_RATE))] = 1
    found_N = np.full(samples, -1)
    for state, found in enumerate(spans_by_state(turns, samples)):
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(found))
        for first, last in found:
            assert (found_N[first:last] == -1).all()
            found_N[first:last] = state
    np.testing.assert_array_equal(found_N, speaks_2N[0] + 2 * speaks_2N[1])


@given(turns=spans)
def test_windows_hold_every_overlap_with_context_where_there_is_any(turns: list[Turn]) -> None:
    samples = 10 * SAMPLE_RATE
    overlaps = spans_by_state(turns, samples)[BOTH]
    windows = windows_of(overlaps, samples)
    parts = [part for window in windows for part in window.parts]
    assert sum(last - first for first, last in parts) == sum(last - first for first, last in overlaps)
    for window in windows:
        assert 0 <= window.first <= samples - WINDOW
        for first, last in window.parts:
            assert first - window.first >= min(CONTEXT, first)
            assert window.first + WINDOW - last >= min(CONTEXT, samples - last)


@settings(deadline=None)
@given(scales=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), seed=st.integers(0, 99))
def test_settled_voices_sum_to_the_mix_whatever_their_scale(scales: tuple[float, float], seed: int) -> None:
    truth = np.stack([murmur(1, seed), murmur(1, seed + 1000)])
    found = settle(truth * np.array(scales, np.float32)[:, None], truth.sum(0))
    np.testing.assert_allclose(found, truth, atol=1e-4)
    np.testing.assert_allclose(found.sum(0), truth.sum(0), atol=1e-6)
    nothing = settle(np.zeros_like(truth), truth.sum(0))
    np.testing.assert_allclose(nothing.sum(0), truth.sum(0), atol=1e-6)


@pytest.mark.parametrize(("one", "other"), [(0.5, 30), (3.1, 3.1), (14, 2)])
def test_a_rehearsal_is_made_of_what_both_say(one: float, other: float) -> None:
    alone = (murmur(one, 0), murmur(other, 1))
    truth, turns = rehearsal(alone)
    state = speech_state(turns, truth.shape[1] // SAMPLES_PER_FRAME)
    assert truth.shape[1] % WINDOW == 0
    assert truth.shape[1] // WINDOW == max(1, min(4, int(min(one, other) // 3)))
    for participant in (0, 1):
        power = frame_power(truth[participant])
        assert (power[(state >> participant & 1) == 0] < 1e-6).mean() > 0.95
    assert 0.3 * min(one, other, 3) < (state == 3).sum() / 25 * WINDOW / truth.shape[1] < 2.1


# --- torchaudio's network


def tiny() -> torch.nn.Module:
    from torchaudio.models import ConvTasNet

    torch.manual_seed(0)
    return ConvTasNet(2, 16, 8, 3, 8, 8, 2, 1, "relu")


def test_the_network_hears_8_khz_and_answers_at_16() -> None:
    mixes = np.stack([murmur(1, seed)[:15_999] for seed in range(3)])
    separator = ConvTasNetSeparator(tiny())
    found = separator(mixes)
    assert (found.shape, found.dtype) == ((3, 2, 15_999), np.float32)
    np.testing.assert_array_equal(found, separator(mixes))
    np.testing.assert_allclose(found[1:2], separator(mixes[1:2]), atol=1e-6)
    spectrum = np.abs(np.fft.rfft(found[0, 0])) ** 2
    assert spectrum[8200:].sum() < 0.01 * spectrum.sum()  # nothing above 4 kHz


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real architecture, untrained."""
    from torchaudio.models import conv_tasnet_base

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "conv_tasnet.safetensors"
    save_file(conv_tasnet_base(num_sources=2).state_dict(), path)
    return path


@pytest.mark.slow
def test_the_real_network_is_loaded_and_run(
    tmp_path: Path, pairs: Pairs, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    config = SeparateConfig(backend="convtasnet", weights=str(weights), weights_sha256=digest, device="cpu")
    check_separator(config)
    stage = SeparateStage(config)
    stage.setup()
    voices_2N, turns = exchange(*pairs[1], 0.4, inside=False)
    voices = voices_of(tmp_path, [voices_2N.sum(0)], turns, stage)
    mix = read_audio(str(tmp_path / "0.wav"))
    assert {f.method for f in voices.figures} == {"network"}
    ((first, last),) = Speech.of(voices_2N[0], turns).spans[BOTH]
    found = heard(voices)[:, first:last]
    np.testing.assert_allclose(found.sum(0), mix[first:last], atol=3 / 32767)
    for figures in voices.figures:  # untrained: both voices are in both tracks, and the figures say so
        assert figures.residual_db is not None
        assert figures.residual_db > -20


def test_weights_that_are_missing_wrong_or_a_trap_are_told(tmp_path: Path, weights: Path) -> None:
    def config(path: Path, **more: str) -> SeparateConfig:
        return SeparateConfig(backend="convtasnet", weights=str(path), device="cpu", **more)  # type: ignore[arg-type]

    with pytest.raises(UsageError, match=r"separate\.weights: .*nowhere.*; `visavis assets` says"):
        check_separator(config(tmp_path / "nowhere.pt"))
    with pytest.raises(UsageError, match=r"has sha256 [0-9a-f]{12}…, not 000000000000…"):
        check_separator(config(weights, weights_sha256="0" * 64))
    other = tmp_path / "other.pt"
    save_file(tiny().state_dict(), other)
    with pytest.raises(UsageError, match=r"not torchaudio's conv_tasnet_base\(2\)"):
        load_separator(config(other), "cpu")
    save_file({name: weight * torch.nan for name, weight in load_file(weights).items()}, other)
    with pytest.raises(UsageError, match="weights that are not finite"):
        load_separator(config(other), "cpu")
    buffer, mark = io.BytesIO(), tmp_path / "mark"
    torch.save(Trap(mark), buffer)
    for data in (b"", b"not weights", weights.read_bytes()[:-1]):
        other.write_bytes(data)
        with pytest.raises(UsageError, match="is no whole file of tensors"):
            check_separator(config(other))
    for data in (pickle.dumps(Trap(mark), protocol=2), buffer.getvalue()):
        other.write_bytes(data)
        with pytest.raises(UsageError, match=r"is pickled, and only safetensors are read; `visavis convert FILE`"):
            check_separator(config(other))
    assert not mark.exists()
    check_separator(SeparateConfig(weights=str(tmp_path / "nowhere.pt")))  # masks need none


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_where_no_weights_are_named_a_sentence_helps() -> None:
    with pytest.raises(UsageError, match=r"needs separate\.weights, .* or set separate\.backend=mask"):
        check_separator(SeparateConfig(backend="convtasnet"))


def test_voices_are_known_by_the_content_of_their_weights(tmp_path: Path, weights: Path) -> None:
    def prints(**separate: str) -> dict[str, str]:
        return Graph(BuildConfig.model_validate({"separate": separate})).fingerprints

    moved, other = tmp_path / "moved.pt", tmp_path / "other.pt"
    moved.write_bytes(weights.read_bytes())
    save_file({name: weight + 1 for name, weight in load_file(weights).items()}, other)
    plain = prints()
    assert prints(weights="unused.pt", device="cpu") == plain
    network = prints(backend="convtasnet", weights=str(weights))
    assert prints(backend="convtasnet", weights=str(moved)) == network
    assert prints(backend="convtasnet", weights=str(other))["separate"] != network["separate"]
    changed = {stage for stage in plain if network[stage] != plain[stage]}
    assert changed == {"separate", "shard"}

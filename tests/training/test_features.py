"""Audio features hear what they say they hear, in a stream as in a whole, and no sample more."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.training.conftest import SMALL
from tests.training.encoders import BASE_LIKE, LARGE_LIKE, loaded, write_torchaudio
from tests.training.synthetic import DIM, SPEC
from tests.training.test_causality import changed_after, inputs
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.train import FeatureConfig, ModelConfig, SamplerConfig
from visavis.training.encoder import Encoder
from visavis.training.features import Features, Wav2Vec2, audio_spec, build_features
from visavis.training.masks import last_condition
from visavis.training.model import Listener, build_model
from visavis.training.sampler import Stream, rollout

MS = 1000 // FPS
LENGTH = 37


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    folder = tmp_path_factory.mktemp("encoders")
    kinds = {"group": BASE_LIKE, "layer": LARGE_LIKE}
    return {norm: loaded(write_torchaudio(folder / f"{norm}.pt", a), a) for norm, a in kinds.items()}


@st.composite
def set_ups(draw: st.DrawFn) -> tuple[str, FeatureConfig, ModelConfig]:
    """A kind of encoder (none: log-mel), and configurations of features and model that fit each other."""
    norm = draw(st.sampled_from(["", "group", "layer"]))
    chunk = draw(st.integers(1, 9))
    look_ahead = draw(st.integers(0, 3))
    block = chunk * draw(st.integers(-(-max(1, look_ahead) // chunk), 5))
    features = FeatureConfig(
        kind="wav2vec2" if norm else "log_mel",
        n_mels=8,
        layers=draw(st.sampled_from([(1,), (2,), (1, 2)])),
        history=draw(st.integers(0, 12)),
        chunk=chunk,
        look_ahead=draw(st.integers(0, 5)),
    )
    return norm, features, ModelConfig(block=block, look_ahead=look_ahead)


def built(encoders: dict[str, Encoder], set_up: tuple[str, FeatureConfig, ModelConfig]) -> Features:
    norm, features, model = set_up
    return build_features(features, model, encoders.get(norm))


def sound(frames: int = LENGTH, batch: int = 2, seed: int = 0) -> torch.Tensor:
    """Noise of which a third is silence."""
    generator = torch.Generator().manual_seed(seed)
    noise_BN = 0.1 * torch.randn(batch, frames * SAMPLES_PER_FRAME, generator=generator)
    noise_BN[:, noise_BN.shape[1] // 3 : 2 * noise_BN.shape[1] // 3] = 0
    return noise_BN


def changed(audio_BN: torch.Tensor, frames: slice) -> torch.Tensor:
    other = audio_BN.clone()
    samples = slice(*(None if f is None else f * SAMPLES_PER_FRAME for f in (frames.start, frames.stop)))
    other[:, samples] = 0.3 - 2 * other[:, samples]
    return other


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(set_up=set_ups(), n=st.integers(0, LENGTH - 1))
def test_features_ignore_every_sample_after_those_they_may_hear(encoders: dict[str, Encoder], set_up, n: int):
    features, audio = built(encoders, set_up), sound()
    before = features(audio)
    assert before.shape == (2, LENGTH, features.size)
    after = features(changed(audio, slice(features.last_heard(n) + 1, None)))
    assert torch.equal(before[:, : n + 1], after[:, : n + 1])


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(set_up=set_ups(), n=st.integers(0, LENGTH - 1))
def test_the_bound_is_reached(encoders: dict[str, Encoder], set_up, n: int):
    """What is said to be heard is heard, so the test above does not pass because nothing matters."""
    features, audio = built(encoders, set_up), sound()
    last = min(features.last_heard(n), LENGTH - 1)
    after = features(changed(audio, slice(last, last + 1)))
    assert not torch.equal(features(audio)[:, n], after[:, n])


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(set_up=set_ups(), n=st.integers(0, LENGTH - 1))
def test_features_remember_no_more_than_their_history(encoders: dict[str, Encoder], set_up, n: int):
    features, audio = built(encoders, set_up), sound()
    chunk = next(m for m in range(LENGTH) if features.last_heard(m) == features.last_heard(n))  # its first frame
    oldest = max(0, chunk - features.history)
    torch.testing.assert_close(
        features(audio)[:, n], features(changed(audio, slice(0, oldest)))[:, n], rtol=0, atol=1e-6
    )


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(set_up=set_ups(), pieces=st.lists(st.integers(1, 15), min_size=LENGTH, max_size=LENGTH))
@example(set_up=("group", FeatureConfig(kind="wav2vec2", layers=(1,)), ModelConfig()), pieces=[1] * LENGTH)
def test_a_stream_hears_what_the_whole_hears(encoders: dict[str, Encoder], set_up, pieces: list[int]):
    features, audio = built(encoders, set_up), sound()
    heard = start = first = 0
    parts = []
    for piece in pieces:
        heard = min(LENGTH, heard + piece)
        ready = features.ready(heard, last=heard == LENGTH)
        if ready > first:
            kept = audio[:, start * SAMPLES_PER_FRAME : heard * SAMPLES_PER_FRAME]
            parts.append(features(kept, start, first, last=heard == LENGTH))
            assert parts[-1].shape[1] == ready - first
            first = ready
            start = max(0, first - features.history)
    torch.testing.assert_close(torch.cat(parts, dim=1), features(audio), rtol=0, atol=2e-5)


@settings(max_examples=60, deadline=None)
@given(set_up=set_ups())
def test_the_record_states_what_features_hear(encoders: dict[str, Encoder], set_up):
    norm, config, model = set_up
    features, spec = built(encoders, set_up), audio_spec(config, model)
    assert spec.horizon_ms == max(features.last_heard(n) - n for n in range(50)) * MS
    waits = next(n for n in range(100) if features.ready(n, last=False) >= model.block + min(model.look_ahead, 2))
    assert spec.stream_wait_ms == waits * MS
    assert spec.look_ahead_ms == (config.look_ahead * MS if norm else 0)
    assert audio_spec(config, model.model_copy(update={"mask": "full"})).stream_wait_ms is None


def test_figures_of_the_defaults():
    log_mel = audio_spec(FeatureConfig(), ModelConfig())
    assert (log_mel.history_ms, log_mel.chunk_ms, log_mel.horizon_ms, log_mel.stream_wait_ms) == (15, 40, 0, 480)
    encoded = audio_spec(FeatureConfig(kind="wav2vec2", weights_sha256="0" * 64), ModelConfig())
    assert (encoded.history_ms, encoded.chunk_ms, encoded.look_ahead_ms) == (1005, 400, 80)
    assert (encoded.horizon_ms, encoded.stream_wait_ms) == (520, 560)
    assert (encoded.weights_sha256, encoded.layers) == ("0" * 64, (8,))


def test_too_little_sound_is_refused(encoders: dict[str, Encoder]):
    for norm, config in (("", FeatureConfig()), ("group", FeatureConfig(kind="wav2vec2", layers=(1,), history=3))):
        features = built(encoders, (norm, config, ModelConfig()))
        with pytest.raises(ValueError, match="not a whole number of frames"):
            features(torch.zeros(1, 1000))
        with pytest.raises(ValueError, match=f"frame 12 needs {features.history} frames before it"):
            features(torch.zeros(1, 6400), start=12, first=12)


class Clicks(Encoder):
    """Says where in its 400 samples, 320 apart like wav2vec 2.0's, there is any sound."""

    width = 2

    def layers(self, clips_CN: torch.Tensor, wanted: tuple[int, ...]) -> list[torch.Tensor]:
        loud_CJ = clips_CN.unfold(1, 400, 320).abs().sum(dim=2)
        return [torch.stack([loud_CJ, -loud_CJ], dim=2) for _ in wanted]


@settings(max_examples=40, deadline=None)
@given(set_up=set_ups(), at=st.integers(0, 2 * LENGTH - 1), late=st.booleans())
def test_a_click_is_heard_in_its_own_20_ms(encoders: dict[str, Encoder], set_up, at: int, late: bool):
    """And, in the last 5 ms of them, in the next ones, whose first sample lies there."""
    _, config, model = set_up
    features = Wav2Vec2(config, model, Clicks(encoders["group"].network, BASE_LIKE, ""))
    audio = torch.zeros(1, LENGTH * SAMPLES_PER_FRAME)
    audio[0, 320 * at + (240 if late else 239)] = 0.5
    heard = features(audio).reshape(2 * LENGTH, -1).abs().sum(dim=1).nonzero().flatten().tolist()
    following = [at + 1] if late and at + 1 < 2 * LENGTH else []
    assert heard == [at, *following]


def test_many_chunks_at_once_or_few_give_the_same(encoders: dict[str, Encoder], monkeypatch: pytest.MonkeyPatch):
    features = built(encoders, ("group", FeatureConfig(kind="wav2vec2", layers=(1,), chunk=5), ModelConfig()))
    audio = sound(80, batch=3)
    together = features(audio)
    monkeypatch.setattr("visavis.training.features.CLIPS", 1)
    torch.testing.assert_close(features(audio), together, rtol=0, atol=1e-5)
    alone = torch.cat([features(one) for one in audio.split(1)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_silence_and_loudness_stay_within_bounds(encoders: dict[str, Encoder]):
    """Digital silence has no deviation to divide by; features of any sound are of one scale."""
    for norm in encoders:
        features = built(encoders, (norm, FeatureConfig(kind="wav2vec2", layers=(1, 2)), ModelConfig()))
        for level in (0.0, 1e-4, 1.0):
            found = features(level * sound())
            assert torch.isfinite(found).all()
            assert found.square().mean() < 1.01


def listener(encoders: dict[str, Encoder], **model: object) -> Listener:
    """A small model whose every weight matters, over the tiny encoder."""
    features = FeatureConfig(kind="wav2vec2", layers=(2,), history=7, chunk=5, look_ahead=3)
    made = build_model(SMALL.model_copy(update=model), features, SPEC, 0, encoders["group"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(0.15 * torch.randn(weight.shape, generator=generator))
    return made.eval()


@pytest.mark.parametrize(("mask", "frames", "look_ahead"), [("block", 43, 2), ("block", 31, 0), ("frame", 27, 2)])
def test_cached_rollout_equals_the_uncached_one(encoders: dict[str, Encoder], mask: str, frames: int, look_ahead: int):
    model, x = listener(encoders, mask=mask, look_ahead=look_ahead), inputs(frames)
    given = (x["avatar_audio"], x["user_audio"], x["user_motion"], x["reference"], SamplerConfig(steps=2), ["a", "b"])
    cached = rollout(model, *given)
    assert cached.shape == (2, frames, DIM)
    torch.testing.assert_close(cached, rollout(model, *given, cached=False), rtol=0, atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["avatar_audio", "user_audio"])
def test_generated_frames_ignore_sound_after_their_bound(encoders: dict[str, Encoder], name: str):
    model, original = listener(encoders), inputs(25)

    def generated(x: dict[str, torch.Tensor]) -> torch.Tensor:
        conditions = (x["avatar_audio"], x["user_audio"], x["user_motion"])
        return rollout(model, *conditions, x["reference"], SamplerConfig(steps=1, guidance="full"), ["a", "b"])

    before = generated(original)
    for n in (0, 4, 5, 13):
        condition = last_condition(model.config, n)
        assert condition is not None
        last = model.features.last_heard(condition)
        assert (last + 1 - (n // 5 + 1) * 5) * MS == (2 + 3) * MS  # the model's look-ahead, and the features'
        assert torch.equal(before[:, : n + 1], generated(changed_after(original, name, last))[:, : n + 1])
        assert not torch.equal(before[:, : n + 1], generated(changed_after(original, name, last - 1))[:, : n + 1])


def test_a_stream_waits_for_the_look_ahead_and_forgets_what_is_too_old(encoders: dict[str, Encoder]):
    model, x = listener(encoders), inputs(60)
    stream = Stream(model, x["reference"], SamplerConfig(steps=1, guidance="none"), ["a", "b"])
    spec = audio_spec(model.features.config, model.config)
    given, kept = 0, []
    while given < 60:
        end = min(60, given + stream.needs)
        assert end == 60 or end * MS == stream.state.done * MS + spec.stream_wait_ms  # type: ignore[operator]
        samples = slice(given * SAMPLES_PER_FRAME, end * SAMPLES_PER_FRAME)
        stream.step(
            x["avatar_audio"][:, samples], x["user_audio"][:, samples], x["user_motion"][:, given:end], last=end == 60
        )
        given = end
        kept.append(stream.state.user_motion.shape[1])
    assert max(kept) == model.features.history + model.features.look_ahead
    nothing = x["avatar_audio"][:, :0], x["user_audio"][:, :0], x["user_motion"][:, :0]
    while stream.state.done < 60:
        stream.step(*nothing, last=True)
    with pytest.raises(ValueError, match="every frame that was given has been generated"):
        stream.step(*nothing, last=True)


def test_the_encoder_is_no_part_of_the_model(encoders: dict[str, Encoder]):
    model = listener(encoders)
    assert isinstance(model.features, Wav2Vec2)
    held = {weight.data_ptr() for weight in model.features.encoder.network.parameters()}
    assert not held & {tensor.data_ptr() for tensor in (*model.parameters(), *model.state_dict().values())}
    x = inputs(10)
    conditions = model.conditions(x["avatar_audio"], x["user_audio"], x["user_motion"])
    assert not conditions.user_audio.requires_grad
    assert not any(weight.requires_grad for weight in model.features.encoder.network.parameters())

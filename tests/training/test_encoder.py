"""The frozen encoder: both libraries' files mean the same, wrong ones are told in a line, and runs know theirs."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.training.encoders import BASE_LIKE, LARGE_LIKE, fill, transformers_config, write_torchaudio
from tests.training.test_train import CutOff, losses, stop_after
from visavis.schemas.errors import UsageError
from visavis.schemas.recipes import parse_config
from visavis.schemas.train import EncoderArchitecture, FeatureConfig, TrainConfig
from visavis.training import encoder as encoder_module
from visavis.training.checkpoint import Checkpoint, checkpoint_id, load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.encoder import Encoder, load_encoder
from visavis.training.evaluate import evaluate
from visavis.training.generate import generate
from visavis.training.train import train

HUGE = EncoderArchitecture(width=1 << 14, hidden=1 << 16, depth=256, heads=1)
"""More than any machine has memory for."""


def features_of(path: Path, **changes: Any) -> FeatureConfig:
    plain = {"kind": "wav2vec2", "weights": str(path), "architecture": BASE_LIKE, "layers": (1, 2), "history": 5}
    return FeatureConfig.model_validate(plain | changes)


def the_encoder(config: FeatureConfig) -> Encoder:
    loaded = load_encoder(config)[1]
    assert loaded is not None
    return loaded


def clips() -> torch.Tensor:
    return 0.1 * torch.randn(3, 6400, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow  # transformers takes its time to load
@pytest.mark.parametrize("architecture", [BASE_LIKE, LARGE_LIKE], ids=["base", "large"])
@pytest.mark.parametrize("headed", [False, True], ids=["bare", "recogniser"])
def test_a_transformers_folder_gives_what_transformers_computes(
    tmp_path: Path, architecture: EncoderArchitecture, headed: bool
):
    transformers = pytest.importorskip("transformers", reason="comes with the extra asr")
    config = transformers.Wav2Vec2Config(**transformers_config(architecture))
    theirs = (transformers.Wav2Vec2ForCTC if headed else transformers.Wav2Vec2Model)(config).eval()
    fill(theirs, 1)
    theirs.save_pretrained(tmp_path)
    filled, ours = load_encoder(features_of(tmp_path, architecture=None))
    assert ours is not None
    assert filled.architecture == architecture
    assert filled.weights_sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    sound = clips()
    heard = F.layer_norm(sound, sound.shape[1:]) if architecture.norm == "layer" else sound
    with torch.no_grad():
        expected = theirs(heard, output_hidden_states=True).hidden_states
        for layer, found in zip((1, 2), ours.layers(sound, (1, 2)), strict=True):
            torch.testing.assert_close(found, expected[layer], rtol=0, atol=1e-4)
            assert found.std() > 0.1
    older = tmp_path / "older"  # torch's older name of the normed weights
    older.mkdir()
    shutil.copy(tmp_path / "config.json", older)
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = theirs.state_dict()
    for new, name in old.items():
        state = {key.replace(new, name): value for key, value in state.items()}
    save_file(state, older / "model.safetensors")
    again = the_encoder(features_of(older, architecture=None))
    assert torch.equal(again.layers(sound, (2,))[0], ours.layers(sound, (2,))[0])


@pytest.mark.parametrize("architecture", [BASE_LIKE, LARGE_LIKE], ids=["base", "large"])
def test_a_torchaudio_file_gives_what_torchaudio_computes(tmp_path: Path, architecture: EncoderArchitecture):
    from torchaudio.models import wav2vec2_model

    path = write_torchaudio(tmp_path / "weights.safetensors", architecture)
    a = architecture
    shape = [(a.channels, k, s) for k, s in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True)]
    sizes = (a.width, 0.1, a.position_kernel, a.position_groups, a.depth, a.heads, 0.1, a.hidden, 0.1, 0.1)
    theirs = wav2vec2_model(f"{a.norm}_norm", shape, a.conv_bias, *sizes, a.pre_norm, 0.1, aux_num_out=5).eval()
    theirs.load_state_dict(load_file(path))
    sound = clips()
    heard = F.layer_norm(sound, sound.shape[1:]) if a.norm == "layer" else sound
    expected = theirs.extract_features(heard)[0]
    encoder = the_encoder(features_of(path, architecture=architecture))
    assert len(encoder.network.encoder.transformer.layers) == 2  # none that nobody listens to
    for layer, found in zip((1, 2), encoder.layers(sound, (1, 2)), strict=True):
        torch.testing.assert_close(found, expected[layer - 1], rtol=0, atol=1e-5)
        assert found.shape == (3, 19, a.width)


def test_what_cannot_serve_is_told_in_one_line(tmp_path: Path):
    good = write_torchaudio(tmp_path / "good.safetensors")
    write_torchaudio(tmp_path / "other.safetensors", seed=1)
    digest = hashlib.sha256(good.read_bytes()).hexdigest()
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "none at all.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0no header at all")
    save_file({"a": torch.zeros(1)}, tmp_path / "unrelated.safetensors")
    state = load_file(good)
    shallow = {k: v for k, v in state.items() if "transformer.layers.1." not in k}
    save_file(shallow, tmp_path / "shallow.safetensors")
    save_file({k: torch.full_like(v, math.nan) for k, v in state.items()}, tmp_path / "nan.safetensors")
    save_file({k: v.to(torch.int32) for k, v in state.items()}, tmp_path / "whole numbers.safetensors")
    torch.save(state, tmp_path / "pickled.pt")
    (tmp_path / "pickled").mkdir()
    shutil.copy(tmp_path / "pickled.pt", tmp_path / "pickled" / "pytorch_model.bin")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name, change in {
        "hubert": {"model_type": "hubert"},
        "strided": {"conv_stride": [5, 2, 2, 2, 2, 2, 4]},
        "uneven": {"conv_dim": [8, 8, 8, 8, 8, 8, 9]},
        "relu": {"hidden_act": "relu"},
        "headless": {"num_attention_heads": 3},
        "listed": None,
        "broken": {},
        "sound": {},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        plain = {"model_type": "wav2vec2", **transformers_config(BASE_LIKE)}
        text = json.dumps([] if change is None else plain | change)
        (folder / "config.json").write_text(text if name != "broken" else text[:-5])
        shutil.copy(good, folder / "model.safetensors")

    def refused(message: str, where: str = "good.safetensors", **changes: Any) -> None:
        with pytest.raises(UsageError, match=message) as error:
            load_encoder(features_of(tmp_path / where, **changes))
        assert "\n" not in str(error.value)

    refused("needs features.weights", weights=None)
    refused(r"cannot read .*none\.pt \(No such file.*visavis assets", "none.pt")
    refused("nowhere://weights is no local file: give its sha256", weights="nowhere://weights")
    refused("cannot read nowhere://weights", weights="nowhere://weights", weights_sha256=digest)
    refused("holds no model.safetensors", "empty")
    refused(rf"other\.safetensors has sha256 .*, not {digest[:12]}", "other.safetensors", weights_sha256=digest)
    refused("not a whole file of tensors", "cut.safetensors")
    refused("not a whole file of tensors", "none at all.safetensors")
    refused("numbers that are not finite", "nan.safetensors")
    refused("does not fit features.architecture: .* of int32", "whole numbers.safetensors")
    refused("is pickled, and only safetensors are read; `visavis convert", "pickled.pt")
    refused("pytorch_model.bin is pickled, and only", "pickled")
    refused("pipe is no file", "pipe")
    refused("holds no wav2vec 2.0 encoder", "unrelated.safetensors")
    refused("lacks encoder.transformer.layers.1.", "shallow.safetensors")
    refused("does not fit features.architecture: ", architecture=None)
    refused("features.weights: .* features.architecture", architecture=HUGE)
    refused("does not fit features.architecture", architecture=BASE_LIKE.model_copy(update={"hidden": 25}))
    refused("features.layers: 3 of an encoder of 2", layers=(3,))
    refused("does not describe a wav2vec 2.0 encoder with two", "hubert")
    refused("does not describe a wav2vec 2.0 encoder with two", "strided")
    refused("describes a variant", "uneven")
    refused("describes a variant", "relu")
    refused("does not describe a wav2vec 2.0 encoder: ", "headless")
    refused("does not describe a wav2vec 2.0 encoder: ", "listed")
    refused("does not describe a wav2vec 2.0 encoder: ", "broken")
    refused("is not that of config.json", "sound", architecture=LARGE_LIKE)
    load_encoder(features_of(tmp_path / "sound", architecture=None, weights_sha256=digest))


def test_weights_cannot_run_code(tmp_path: Path):
    touched = tmp_path / "touched"

    class Trap:
        def __reduce__(self):
            return Path.touch, (touched,)

    torch.save({"encoder.transformer.x": Trap()}, tmp_path / "trap.safetensors")  # whatever it is called
    with pytest.raises(UsageError, match="is pickled"):
        load_encoder(features_of(tmp_path / "trap.safetensors"))
    assert not touched.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["features.chunk=4"], "blocks of 10 frames do not split into chunks of 4"),
        (["features.layers=[0]"], "greater than or equal to 1"),
        (["features.layers=[]"], "at least 1 item"),
        (["features.weights_sha256=abc"], "should match pattern"),
        (["features.architecture={width: 770}"], "a width of 770 does not split into 12"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides: list[str], message: str):
    with pytest.raises(UsageError, match=message):
        parse_config("features: {kind: wav2vec2}", TrainConfig, overrides)
    parse_config("{}", TrainConfig, ["features.chunk=4"])  # log-mel has no chunks


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_torchaudio(tmp_path / "weights.safetensors")


@pytest.fixture
def encoded_config(small_config: TrainConfig, weights: Path) -> TrainConfig:
    return small_config.model_copy(update={"features": features_of(weights)})


@pytest.mark.slow
def test_a_run_goes_on_with_its_encoder_and_with_no_other(
    windows: Path, tmp_path: Path, encoded_config: TrainConfig, weights: Path
):
    whole = train(str(windows), tmp_path / "whole", encoded_config)
    with pytest.raises(CutOff):
        train(str(windows), tmp_path / "cut", encoded_config, progress=stop_after(4))
    moved = weights.rename(tmp_path / "moved.safetensors")
    with pytest.raises(UsageError, match=r"cannot read .*weights\.safetensors"):
        train(str(windows), tmp_path / "cut", encoded_config)
    write_torchaudio(weights, seed=1)
    with pytest.raises(UsageError, match="holds a run with another encoder; name its weights"):
        train(str(windows), tmp_path / "cut", encoded_config)
    pinned = features_of(weights, weights_sha256=load_checkpoint(whole).config.features.weights_sha256)
    with pytest.raises(UsageError, match="has sha256"):
        train(str(windows), tmp_path / "new", encoded_config.model_copy(update={"features": pinned}))
    assert not (tmp_path / "new").exists()
    train(str(windows), tmp_path / "cut", encoded_config.model_copy(update={"features": features_of(moved)}))
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_a_checkpoint_names_its_encoder_and_does_not_hold_it(
    windows: Path,
    tmp_path: Path,
    encoded_config: TrainConfig,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    path = train(str(windows), tmp_path / "run", encoded_config)
    checkpoint = load_checkpoint(path)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert checkpoint.config.features.weights_sha256 == digest
    assert checkpoint.config.features.architecture == BASE_LIKE
    assert not [name for name in checkpoint.model if "transformer" in name or "extractor" in name]
    with safe_open(path, "pt") as file:  # without our code
        stated = json.loads(file.metadata()["visavis"])["audio"]
    assert stated == checkpoint.audio.model_dump(mode="json")
    assert (stated["weights_sha256"], stated["horizon_ms"], stated["stream_wait_ms"]) == (digest, 520, 560)

    moved = str(weights.rename(tmp_path / "moved.safetensors"))
    lay = rf"sha256 {digest[:12]}… \(they lay at .*weights\.safetensors\); name the file .*--encoder"
    with pytest.raises(UsageError, match=lay):
        evaluate(path, str(windows))
    shutil.copy(moved, weights)  # where the checkpoint says: a hint, which is not followed
    with pytest.raises(UsageError, match=lay):
        evaluate(path, str(windows))
    monkeypatch.setattr(sys, "argv", f"visavis evaluate {path} {windows} --limit 1 --json --encoder {moved}".split())
    with pytest.raises(SystemExit):
        pytest.importorskip("visavis.pipeline.app", reason="a machine for training only has no command line").main()
    assert json.loads(capsys.readouterr().out)["audio"] == stated
    key = next(Dataset(str(windows)).samples("val")).key
    assert generate(path, str(windows), key, tmp_path / "generated", encoder=moved).exists()
    other = write_torchaudio(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(UsageError, match=f"has sha256 .*, not {digest[:12]}"):
        load_model(checkpoint, weights=str(other))


@pytest.mark.slow
def test_one_encoder_serves_every_model_of_a_run(
    windows: Path,
    pairs: Path,
    tmp_path: Path,
    encoded_config: TrainConfig,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    base = train(str(windows), tmp_path / "base", encoded_config)
    built = []

    def counted(*arguments: Any) -> Any:
        built.append(original(*arguments))
        return built[-1]

    original = encoder_module._network
    monkeypatch.setattr(encoder_module, "_network", counted)
    moved = weights.rename(tmp_path / "moved.safetensors")
    recipe = TrainConfig.model_validate(encoded_config.model_dump() | {"features": {"weights": str(moved)}})
    dpo = recipe.model_copy(update={"dpo": recipe.dpo.model_copy(update={"steps": 3, "warmup": 0})})
    tuned = train(str(windows), tmp_path / "dpo", dpo, init=base, pairs=str(pairs))
    assert len(built) == 1  # of the policy, its average and its frozen reference
    first, second = (load_checkpoint(path).config.features for path in (base, tuned))
    assert second == first.model_copy(update={"weights": str(moved)})  # the initial model's features, found elsewhere


@pytest.mark.slow
def test_an_encoder_leaves_the_rest_of_a_run_as_it_is(windows: Path, tmp_path: Path, encoded_config: TrainConfig):
    """Loading draws no random number of the trainer's, and the same run gives the same bytes."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = (train(str(windows), tmp_path / name, encoded_config) for name in ("a", "b"))
    assert torch.equal(torch.rand(3), expected)
    assert checkpoint_id(one) == checkpoint_id(other)


@pytest.mark.slow
def test_an_encoder_in_half_precision_follows_full_precision(
    windows: Path, tmp_path: Path, encoded_config: TrainConfig
):
    optim = encoded_config.optim.model_copy(update={"precision": "bfloat16", "steps": 3})
    half = encoded_config.model_copy(update={"optim": optim})
    full = half.model_copy(update={"optim": optim.model_copy(update={"precision": "float32"})})
    for name, config in (("half", half), ("full", full)):
        train(str(windows), tmp_path / name, config)
    rounded, exact = losses(tmp_path / "half"), losses(tmp_path / "full")
    assert rounded != exact
    assert list(rounded.values()) == pytest.approx(list(exact.values()), rel=0.02)


def test_a_log_mel_checkpoint_states_that_it_hears_no_future(windows: Path, tmp_path: Path, small_config: TrainConfig):
    checkpoint: Checkpoint = load_checkpoint(train(str(windows), tmp_path, small_config))
    assert (checkpoint.audio.kind, checkpoint.audio.horizon_ms) == ("log_mel", 0)
    assert checkpoint.audio.weights_sha256 is None

"""`visavis convert`: old files serve as they did, and a hostile one leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.conftest import _one_thread as _one_thread
from tests.training.conftest import small_config as small_config
from tests.training.conftest import windows as windows
from tests.training.encoders import BASE_LIKE, write_torchaudio
from tests.training.test_train import CutOff, stop_after
from visavis.pipeline.app import main
from visavis.schemas.errors import UsageError
from visavis.schemas.train import TrainConfig
from visavis.training.checkpoint import Checkpoint, checkpoint_id, load_checkpoint, load_model
from visavis.training.convert import convert
from visavis.training.encoder import load_encoder
from visavis.training.train import train

Visavis = Callable[..., tuple[int, str, str]]


@pytest.fixture
def visavis(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Visavis:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["visavis", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def save_old(checkpoint: Checkpoint, path: Path, **config: Any) -> Path:
    """A checkpoint as format 2 was written."""
    header = {
        "config": checkpoint.config.model_dump(mode="json") | config,
        "motion": checkpoint.motion.model_dump(mode="json"),
        "audio": checkpoint.audio.model_dump(mode="json"),
        "manifest": checkpoint.manifest,
        "step": checkpoint.step,
        "loaders": checkpoint.loaders,
        "reference": checkpoint.reference,
        "pairs": checkpoint.pairs,
    }
    tensors = {"model": checkpoint.model, "ema": checkpoint.ema, "optimizer": checkpoint.optimizer}
    torch.save({"format": 2, "header": json.dumps(header, sort_keys=True), **tensors}, path)
    return path


@pytest.mark.slow
def test_a_run_goes_on_from_its_converted_checkpoint_bit_by_bit(
    windows: Path, tmp_path: Path, small_config: TrainConfig, visavis: Visavis
) -> None:
    whole = train(str(windows), tmp_path / "whole", small_config)
    with pytest.raises(CutOff):
        train(str(windows), tmp_path / "cut", small_config, progress=stop_after(4))
    new = tmp_path / "cut" / "checkpoint.safetensors"
    was = checkpoint_id(new)
    old = save_old(load_checkpoint(new), tmp_path / "cut" / "checkpoint.pt")
    new.unlink()
    with pytest.raises(UsageError, match=r"checkpoint\.pt is of an older format; `visavis convert`"):
        train(str(windows), tmp_path / "cut", small_config)
    code, out, err = visavis("evaluate", old, windows)
    assert (code, err.count("\n")) == (2, 1)
    assert "`visavis convert`" in err
    code, out, _ = visavis("convert", old)
    assert (code, out) == (0, f"{new}  sha256 {was}\n")  # just what would have been written
    assert old.exists()
    assert checkpoint_id(train(str(windows), tmp_path / "cut", small_config)) == checkpoint_id(whole)
    code, _, err = visavis("convert", old)
    assert (code, "exists; remove it" in err) == (2, True)


@pytest.mark.nightly("an encoder beside a checkpoint of an old format")
def test_a_checkpoint_and_its_encoder_are_converted_to_a_pair_that_works(
    windows: Path, tmp_path: Path, small_config: TrainConfig, visavis: Visavis
) -> None:
    weights = write_torchaudio(tmp_path / "base.safetensors")
    features = {"kind": "wav2vec2", "weights": str(weights), "architecture": BASE_LIKE.model_dump(), "layers": [1]}
    config = TrainConfig.model_validate(small_config.model_dump() | {"features": features})
    path = train(str(windows), tmp_path / "run", config)
    pickled = tmp_path / "old.pth"
    torch.save(load_file(weights), pickled)
    digest = hashlib.sha256(pickled.read_bytes()).hexdigest()
    old_features = features | {"weights": str(pickled), "weights_sha256": digest}
    old = save_old(load_checkpoint(path), tmp_path / "checkpoint.pt", features=old_features)

    code, _, err = visavis("convert", old)
    assert (code, f"--encoder FILE (sha256 {digest[:12]}…; they lay at {pickled})" in err) == (2, True)
    code, _, err = visavis("convert", old, "--encoder", weights)
    assert (code, "has sha256" in err) == (2, True)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    code, out, _ = visavis("convert", old, "--encoder", pickled)
    encoder, new = tmp_path / "old.safetensors", tmp_path / "checkpoint.safetensors"
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, [str(encoder), str(new)])
    converted = load_checkpoint(new)
    assert converted.config.features.weights_sha256 == checkpoint_id(encoder)
    model = load_model(converted, weights=str(encoder))
    assert all(torch.equal(value, load_checkpoint(path).ema[name]) for name, value in model.state_dict().items())
    assert convert(pickled, tmp_path / "elsewhere.safetensors") == [tmp_path / "elsewhere.safetensors"]
    assert checkpoint_id(tmp_path / "elsewhere.safetensors") == checkpoint_id(encoder)  # wherever it is made


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_weights_are_the_same_tensors(tmp_path: Path, zipped: bool) -> None:
    state = load_file(write_torchaudio(tmp_path / "made.safetensors"))
    shared = state["feature_extractor.conv_layers.0.conv.weight"]
    state |= {"tied": shared, "turned": shared.transpose(0, 2)}
    folder = tmp_path / "hub"
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    (made,) = convert(folder / "pytorch_model.bin")
    assert made == folder / "model.safetensors"
    found = load_file(made)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())
    features = TrainConfig().features.model_copy(
        update={"kind": "wav2vec2", "weights": str(made), "architecture": BASE_LIKE, "layers": (1,)}
    )
    assert load_encoder(features)[1] is not None


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path, *call: Any) -> None:
        self.call = call or (os.mkdir, (str(path),))

    def __reduce__(self) -> Any:
        return self.call


class Claim:
    """A pickled storage or buffer of any size that has nothing in it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> Any:
        return bytearray, (self.size,)


def saved(thing: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer, **options)
    return buffer.getvalue()


def deflated(archive: bytes) -> bytes:
    """The same parts, compressed."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return buffer.getvalue()


def nested(depth: int) -> Any:
    found: Any = torch.zeros(1)
    for _ in range(depth):
        found = {"a": found}
    return found


SOON = ("mkdir", "buffer", "compressed", "text")
"""What CI tries; 3 s each."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "soon", [True, pytest.param(False, marks=pytest.mark.nightly("hostile files of more kinds"))], ids=["some", "more"]
)
def test_a_hostile_file_leaves_nothing(tmp_path: Path, visavis: Visavis, soon: bool) -> None:
    sprung = tmp_path / "sprung"
    folder = tmp_path / "files"
    folder.mkdir()
    plain = saved({"a": torch.zeros(1000)})
    files = {
        "mkdir": saved({"a": Trap(sprung)}),
        "older mkdir": saved({"a": Trap(sprung)}, _use_new_zipfile_serialization=False),
        "bare pickle": pickle.dumps(Trap(sprung), protocol=2),
        "run": saved({"a": Trap(sprung, subprocess.getoutput, (f"mkdir {sprung}",))}),
        "of torch": saved({"a": Trap(sprung, torch.hub.load, (str(folder), "x"))}),
        "buffer": saved({"a": Claim(1 << 44)}),
        "expanded": saved({"a": torch.zeros(1).expand(1 << 44)}),
        "many": saved({str(n): torch.zeros(1).expand(1 << 28) for n in range(8)}),
        "meta": saved({"a": torch.zeros(1 << 44, device="meta")}),
        "compressed": deflated(saved({"a": torch.zeros(1 << 26)})),
        "deep": saved(nested(50)),
        "cut": plain[:-200],
        "not finite": saved({"format": 2, "header": '{"config": NaN}', "model": {}, "ema": {}, "optimizer": {}}),
        "no checkpoint": saved({"format": 2, "header": "[" * 100_000}),
        "future": saved({"format": 9}),
        "nested": saved({"model": {"a": torch.zeros(1)}}),
        "list": saved([torch.zeros(1)]),
        "empty": saved({}),
        "text": b"hello",
        "nothing": b"",
    }
    tried = {name: data for name, data in files.items() if (name in SOON) is soon}
    for name, data in tried.items():
        file = folder / f"{name}.pt"
        file.write_bytes(data)
        code, out, err = visavis("convert", file)
        assert (name, code, out, err.count("\n")) == (name, 2, "", 1)
        assert err.startswith(f"visavis: {file}")
    assert not sprung.exists()
    assert {file.name for file in folder.iterdir()} == {f"{name}.pt" for name in tried}


@pytest.mark.slow
def test_who_unpickles_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted")
    given: dict[str, Any] = {}
    popen = subprocess.Popen

    def watched(words: list[str], **options: Any) -> Any:
        given.update(options["env"])
        return popen(words, **options)

    monkeypatch.setattr("subprocess.Popen", watched)
    file = tmp_path / "weights.pt"
    file.write_bytes(saved({"a": torch.ones(3)}))
    convert(file)
    assert "planted" not in given.values()
    assert load_file(tmp_path / "weights.safetensors")["a"].tolist() == [1, 1, 1]
    save_file({"a": torch.ones(1)}, tmp_path / "new.pt")
    with pytest.raises(UsageError, match="there is nothing to convert"):
        convert(tmp_path / "new.pt")

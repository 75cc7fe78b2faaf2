"""A checkpoint from strangers: whatever it claims, it is whole and itself, or refused in one line and little memory."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visavis.schemas.errors import UsageError
from visavis.training.checkpoint import load_checkpoint
from visavis.training.tensors import looks_pickled, read_head, read_tensors, write_tensors

Header = dict[str, Any]


def parts(data: bytes) -> tuple[Header, bytes]:
    """Header and tensors of a file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def built(header: Header | bytes, tensors: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def refused(path: Path, data: bytes, told: str = "") -> None:
    path.write_bytes(data)
    with pytest.raises(UsageError, match=told) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 700


def changed(data: bytes, change: Callable[[Header], object]) -> bytes:
    """The file with another JSON beside its tensors."""
    header, tensors = parts(data)
    plain = json.loads(header["__metadata__"]["visavis"])
    change(plain)
    header["__metadata__"]["visavis"] = json.dumps(plain)
    return built(header, tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("config.model.width", 10**9, "another version"),
        ("config.model.width", 1 << 16, "is .*expected"),
        ("config.model.depth", 10**9, "another version"),
        ("config.model.depth", 1000, "describes 1000 blocks|lacks"),
        ("config.model.mlp_ratio", 1e300, "another version"),
        ("config.model.encoder_width", 1 << 16, "expected"),
        ("config.features.n_mels", 128, "expected"),
        ("config.features.kind", "wav2vec2", "does not say which encoder"),
        ("config.sampler.steps", 10**12, "another version"),
        ("config.model.block", 10**12, "another version"),
        ("motion.dim", 10**9, "another version"),
        ("step", 10**400, "another version"),
        ("step", -1, "another version"),
        ("manifest", "../../etc", "another version"),
        ("reference", "\x1b[2J", "another version"),
        ("loaders", {"windows": [{"listening": [10**30]}]}, "another version"),
        ("loaders", {"../x": []}, "another version"),
        ("groups", [{"params": [0], "lr": "no"}], "another version"),
        ("config.model.more", 1, "another version"),
        ("format", 2, "not a checkpoint of format 3"),
        ("format", [[]], "not a checkpoint of format 3"),
    ],
)
def test_a_header_that_claims_something_else_is_refused(
    trained: Path, tmp_path: Path, path: str, value: Any, told: str
) -> None:
    def change(plain: Header) -> None:
        *sections, key = path.split(".")
        for section in sections:
            plain = plain[section]
        plain[key] = value

    refused(tmp_path / "c.safetensors", changed(trained.read_bytes(), change), told)


def test_a_file_whose_tensors_are_not_its_own_is_refused(trained: Path, tmp_path: Path) -> None:
    data = trained.read_bytes()
    header, tensors = parts(data)
    first, second = (name for name, _ in zip(header, range(3), strict=False) if name != "__metadata__")
    end = header[first]["data_offsets"][1]

    def other(name: str, **entry: Any) -> bytes:
        return built(header | {name: header[first] | entry}, tensors)

    twice = json.dumps(header).encode()[:-1] + b"," + json.dumps({first: header[first]}).encode()[1:]
    nan = struct.pack("<f", float("nan"))
    at = header["ema.velocity.weight"]["data_offsets"][0]
    for broken, told in (
        (b"", "no safetensors"),
        (struct.pack("<Q", 1 << 62) + b"{}", "bytes of a header"),
        (struct.pack("<Q", 50_000_000) + b"{" + b" " * 50_000_000, "bytes of a header"),
        (built(b"[" * 1000, tensors), "no safetensors"),
        (built(b'{"a":' * 100_000, tensors), "nested too deeply"),
        (built(b'{"a": NaN}', tensors), "NaN"),
        (built(b"{}", b""), "tensors and no checkpoint"),
        (built(twice, tensors), "comes twice"),
        (data[:-1], "the file at"),
        (data + b"\0", "the file at"),
        (other(first, dtype="F128"), "of type F128"),
        (other(first, dtype=["F32"]), "of type"),
        (other(first, dtype="I32"), "expected F32"),
        (other(first, shape=[1 << 60, 1 << 60]), "whole numbers"),
        (other(first, shape=[-1, -4]), "whole numbers"),
        (other(first, shape=[True]), "whole numbers"),
        (other(first, shape=[1] * 100), "short list"),
        (other(first, data_offsets=[0, end, 1]), "short list"),
        (other(first, data_offsets=[end, 0]), "fits into"),
        (other(second), "does not begin where"),
        (other(first, extra=1), "no description"),
        (other("model.more", shape=[0], data_offsets=[0, 0]), "of no use: model.more"),
        (other("else.more", shape=[0], data_offsets=[0, 0]), "of no use: else.more"),
        (other("optimizer.0.secret", shape=[0], data_offsets=[0, 0]), "nothing that Adam keeps"),
        (other("optimizer.999.step", shape=[0], data_offsets=[0, 0]), "of no parameter"),
        (built(header | {"__metadata__": {"visavis": ["x"]}}, tensors), "no mapping of texts"),
        (built(header | {"__metadata__": {"visavis": "[" * 100_000}}, tensors), "nested too deeply"),
        (built(header | {"__metadata__": {"visavis": '{"format": 3}'}}, tensors), "another version"),
        (built(header, tensors[:at] + nan + tensors[at + 4 :]), "not finite"),
        (b"PK\x03\x04" + data[8:], "is pickled"),
        (b"\x80\x02.", "is pickled"),
    ):
        refused(tmp_path / "c.safetensors", broken, told)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(UsageError, match="is no file"):
            load_checkpoint(path)


@pytest.mark.slow
def test_claims_cost_no_memory(trained: Path, tmp_path: Path) -> None:
    """Files of nothing: as large as their headers say, and with nothing on the disk."""
    header, _ = parts(trained.read_bytes())
    huge = {"__metadata__": header["__metadata__"]}
    huge["ema.a"] = {"dtype": "F32", "shape": [1 << 32], "data_offsets": [0, 1 << 34]}
    paths = []
    for name, begin in (("described", built(huge, b"")), ("zeros", b"")):
        path = tmp_path / name
        path.write_bytes(begin)
        os.truncate(path, len(begin) + (1 << 34))
        paths.append(path)
    far = tmp_path / "far"
    far.write_bytes(b"")
    os.truncate(far, 1 << 42)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from visavis.pipeline.engine.memory import peak_mb\n"
        "from visavis.schemas.errors import UsageError\n"
        "from visavis.training.checkpoint import load_checkpoint\n"
        "before = peak_mb()\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        load_checkpoint(Path(path))\n"
        "    except UsageError as error:\n"
        "        print(error)\n"
        "print(int(peak_mb() - before))\n"
    )
    words = [sys.executable, "-c", code, *map(str, [*paths, far])]
    done = subprocess.run(words, capture_output=True, text=True, check=True, preexec_fn=_limited)
    *told, grown = done.stdout.splitlines()
    assert len(told) == 3
    assert int(grown) < 200


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_other_bytes_are_refused_or_the_same_model(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(trained.read_bytes())
    (length,) = struct.unpack("<Q", whole[:8])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, length + 200))
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "c.safetensors"
    path.write_bytes(whole)
    try:
        found = load_checkpoint(path)
    except UsageError as error:
        assert str(error).isprintable()  # noqa: PT017 - either is right
    else:
        assert all(torch.isfinite(value).all() for value in found.ema.values())


def test_a_header_whose_length_begins_like_a_pickle_is_one(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(built(b"{}" + b" " * (0x0280 - 2), b""))
    with path.open("rb") as file:
        assert not looks_pickled(file)
        assert read_head(file).tensors == {}


shapes = st.lists(st.integers(0, 5), max_size=3)
dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64])


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), st.tuples(shapes, dtypes), max_size=5))
def test_tensors_come_back_and_others_read_them(tmp_path: Path, kinds: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    kinds.pop("__metadata__", None)
    tensors = {name: torch.ones(shape).cumsum(0).to(dtype) if shape else torch.ones((), dtype=dtype)
               for name, (shape, dtype) in kinds.items()}  # fmt: skip
    path = tmp_path / "t.safetensors"
    with path.open("wb") as file:
        write_tensors(file, tensors, {"note": "é"})
    with path.open("rb") as file:
        head = read_head(file)
        found = read_tensors(file, head, head.tensors)
    assert head.note == {"note": "é"}
    for read in (found, load_file(path)):
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], value) for name, value in tensors.items())
        assert all(read[name].dtype == value.dtype for name, value in tensors.items())

"""A network's codes of static crops: where they are cut, in which batches, and which files are refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.stages.networks import CODES, SIZE, exported, scripted
from tests.stages.tracks import FIGURES, track_of
from visavis.schemas.config import EncodeConfig
from visavis.schemas.dyads import Encoded
from visavis.schemas.errors import UsageError
from visavis.schemas.face_rows import Cast, FaceTracks, Member, Piece, Segment
from visavis.stages.encode import EncodeInput, EncodeStage, crop_square, network_digest, square_of

FRAMES = 30


class Mean(nn.Module):
    """The crop's mean colour."""

    def forward(self, crops_B3SS: Tensor) -> Tensor:
        return crops_B3SS.mean((2, 3))


class Huge(nn.Module):
    def forward(self, crops_B3SS: Tensor) -> Tensor:
        return crops_B3SS.mean((2, 3)) + 1000


class Flat(nn.Module):
    def forward(self, crops_B3SS: Tensor) -> Tensor:
        return crops_B3SS.mean((1, 2, 3))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Left half: red that grows by 8 a frame; right half: green, constant."""
    path = tmp_path_factory.mktemp("encode") / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 320, 120, "bgr0"
        for n in range(FRAMES):
            rgb = np.zeros((120, 320, 3), np.uint8)
            rgb[:, :160, 0], rgb[:, 160:, 1] = 8 * n, 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    return path


def item_of(clip: Path, valid: np.ndarray | None = None) -> EncodeInput:
    """A face in the middle of each half, in view in frames 0 … 29, the left one where valid."""
    tracks = []
    for x in (80, 240):
        landmarks = np.zeros((FRAMES, 478, 3), np.float32)
        landmarks[:, 0, :2], landmarks[:, 1:, :2] = (x - 20, 40), (x + 20, 80)
        tracks.append(track_of(landmarks))
    if valid is not None:
        tracks[0] = tracks[0].model_copy(update={"valid": valid})
    piece = Piece(conversation="c", media=0, uri="", first=0, last=FRAMES)
    faces = FaceTracks(piece=piece, width=320, height=120, cuts=(), tracks=tuple(tracks))
    members = tuple(
        Member(
            media=0,
            segments=(Segment(piece=0, track=i),),
            mouth=np.zeros((FRAMES, 2), np.float32),
            box=(x - 20.0, 40.0, x + 20.0, 80.0),
            figures=FIGURES,
        )
        for i, x in enumerate((80, 240))
    )
    cast = Cast(conversation="c", members=(members[0], members[1]), crowd=0.0, cuts=0.0, together=1.0, uncut=1.0)
    return EncodeInput(uri=str(clip), number=0, cast=cast, faces=faces)


def encoded(item: EncodeInput, data: bytes, folder: Path, **settings: Any) -> Encoded:
    file = folder / "network"
    file.write_bytes(data)
    plain = {"network": str(file), "network_sha256": hashlib.sha256(data).hexdigest(), "size": SIZE, "device": "cpu"}
    stage = EncodeStage(EncodeConfig.model_validate(plain | settings))
    stage.setup()
    (row,) = stage.process(item)
    return row


def test_each_participant_is_cut_out_of_each_frame_in_which_it_is_valid(clip: Path, tmp_path: Path) -> None:
    valid = np.arange(FRAMES) % 3 > 0
    row = encoded(item_of(clip, valid), scripted(Mean()), tmp_path, batch=8, span="0..1")
    left, right = row.people
    assert left.where.tolist() == np.flatnonzero(valid).tolist()
    assert right.where.tolist() == list(range(FRAMES))
    np.testing.assert_allclose(
        left.code, np.stack([8 * left.where / 255, 0 * left.where, 0 * left.where], 1), atol=1e-5
    )
    np.testing.assert_allclose(right.code, np.tile([0, 200 / 255, 0], (FRAMES, 1)), atol=1e-5)


def test_pixels_span_what_the_network_wants(clip: Path, tmp_path: Path) -> None:
    plain, signed = (encoded(item_of(clip), scripted(Mean()), tmp_path, span=span) for span in ("0..1", "-1..1"))
    for one, other in zip(plain.people, signed.people, strict=True):
        np.testing.assert_allclose(other.code, one.code * 2 - 1, atol=1e-5)


@pytest.mark.slow
def test_torchscript_and_export_agree_whatever_the_batch(clip: Path, tmp_path: Path) -> None:
    item = item_of(clip)
    rows = [encoded(item, scripted(), tmp_path, batch=batch) for batch in (1, 7, 64)]
    rows.append(encoded(item, exported(batch=7), tmp_path, batch=7))  # made for seven crops, no more and no fewer
    for row in rows:
        for person, first in zip(row.people, rows[0].people, strict=True):
            assert person.code.shape == (FRAMES, CODES)
            assert person.code.dtype == np.float32
            np.testing.assert_allclose(person.code, first.code, atol=1e-5)


def test_nobody_in_a_piece_is_no_error(clip: Path, tmp_path: Path) -> None:
    item = item_of(clip).model_copy(update={"number": 5, "uri": "does not exist"})
    assert [len(person.where) for person in encoded(item, scripted(), tmp_path).people] == [0, 0]


def test_the_square_is_twice_the_face_and_does_not_move() -> None:
    member = item_of(Path()).cast.members[0]
    assert square_of(member) == (40, 20, 80)


def test_beyond_the_picture_the_border_goes_on() -> None:
    rgb = np.zeros((20, 20, 3), np.uint8)
    rgb[:, :10], rgb[:, 10:] = 50, 90
    crop = crop_square(rgb, (-10, -10, 40), 40)
    assert crop.shape == (40, 40, 3)
    assert (crop[:, :20] == 50).all()
    assert (crop[:, 20:] == 90).all()
    assert crop_square(rgb, (4, 4, 8), 16).shape == (16, 16, 3)


@pytest.mark.parametrize(("network", "told"), [(Huge(), "scale its output"), (Flat(), "one vector for each")])
def test_codes_that_cannot_be_used_are_told(clip: Path, tmp_path: Path, network: nn.Module, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        encoded(item_of(clip), scripted(network), tmp_path)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def pickled(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def swapped(archive: bytes, ending: str, data: bytes) -> bytes:
    """An archive with other bytes in the entries of that ending."""
    found, buffer = 0, io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            found += name.endswith(ending)
            new.writestr(name, data if name.endswith(ending) else old.read(name))
    assert found
    return buffer.getvalue()


def test_nothing_in_an_exported_network_is_unpickled_but_tensors(clip: Path, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    data = swapped(exported(batch=2), ".pt", pickled({"mix.weight": Trap(trap)}))
    with pytest.raises(UsageError, match="does not load"):
        encoded(item_of(clip), data, tmp_path, batch=2)
    assert not trap.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_network_is_run_only_where_its_digest_is_named(tmp_path: Path) -> None:
    file = tmp_path / "network.ts"
    file.write_bytes(scripted())
    with pytest.raises(UsageError, match=r"is a program that runs as you: .* encode\.network_sha256"):
        network_digest(EncodeConfig(network=str(file)))
    with pytest.raises(UsageError, match=r"encode\.network: .* has sha256"):
        network_digest(EncodeConfig(network=str(file), network_sha256="0" * 64))
    with pytest.raises(UsageError, match=r"a program that runs as you"):
        network_digest(EncodeConfig(network="https://192.0.2.1/network.ts?key=secret"))


def test_what_is_no_network_is_refused_in_one_line(tmp_path: Path) -> None:
    native, bomb = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(native, "w") as archive:
        archive.writestr("model/data/aotinductor/model/code.so", b"")
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/models/model.json", bytes(100 << 20))
    files = {
        "weights.pt": (pickled(nn.Linear(2, 2).state_dict()), "a state_dict alone"),
        "text.pt2": (b"hello", "neither"),
        "native.pt2": (native.getvalue(), "native code"),
        "bomb.pt2": (bomb.getvalue(), "bytes of an archive's parts"),
        "cut.pt2": (exported(batch=2)[:-100], "neither"),
        "deep.pt2": (swapped(exported(batch=2), "model.json", b"[" * 100_000), "nested too deeply"),
    }
    for name, (data, told) in files.items():
        (tmp_path / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        with pytest.raises(UsageError, match=told) as caught:
            network_digest(EncodeConfig(network=str(tmp_path / name), network_sha256=digest))
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"(?i)no such file"):
        network_digest(EncodeConfig(network=str(tmp_path / "none.pt2"), network_sha256="0" * 64))


def test_sizes_of_an_exported_network_are_symbols_and_arithmetic(clip: Path, tmp_path: Path) -> None:
    """torch evaluates them as Python."""
    data = exported(batch=2, dynamic=True)
    assert encoded(item_of(clip), data, tmp_path, batch=7).people[0].code.shape == (FRAMES, CODES)
    trap = tmp_path / "sprung"
    run = f"__import__('os').mkdir('{trap}')"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        text = archive.read(next(name for name in archive.namelist() if name.endswith("models/model.json"))).decode()
    size = json.dumps(re.findall(r"Symbol\([^)]*\)", text)[0])[1:-1]
    assert size in text
    for other, told in {
        run: "more than arithmetic",
        f'Symbol("{run}")': "more than arithmetic",
        "Integer(2).__class__": "more than arithmetic",
        "[x for x in (1,)]": "more than arithmetic",
        "exit()": "more than arithmetic",
        "Pow(Integer(9), Pow(Integer(9), Integer(9)))": "more than arithmetic",
        "Add(" * 300 + ")" * 300: "no expression",
        "1" * 20_000: "characters of a size",
    }.items():
        changed = swapped(data, "models/model.json", text.replace(size, json.dumps(other)[1:-1]).encode())
        with pytest.raises(UsageError, match=told):
            encoded(item_of(clip), changed, tmp_path, batch=7)
    for before, after, told in (
        ('"guards_code": []', f'"guards_code": ["{run}"]', "guards in Python"),
        ('"torch.ops.aten.linear.default"', '"torch.os.system"', "no operation on tensors"),
        ('"torch.ops.aten.linear.default"', '"torch.ops.aten.__class__"', "no operation on tensors"),
    ):
        assert before in text
        with pytest.raises(UsageError, match=told):
            encoded(item_of(clip), swapped(data, "models/model.json", text.replace(before, after).encode()), tmp_path)
    assert not trap.exists()

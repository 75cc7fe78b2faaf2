"""What crosses a boundary comes back as it was, and the same data gives the same bytes."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.stages.tracks import track_of
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.artifact import StoredRows, dump_rows, load_heads, load_rows, read_note
from visavis.schemas.errors import DatasetError, Reason, Rejected
from visavis.schemas.face_rows import FaceTracks, Piece
from visavis.schemas.rows import Array, Head, Row, Turn
from visavis.schemas.sample import Sample, SampleMeta, decode_array, decode_sample, encode_array, encode_sample


class Nested(Row):
    label: str
    values: tuple[float, ...]
    turn: Turn
    arrays: tuple[Array, ...]


arrays = hnp.arrays(
    st.sampled_from([np.float32, np.uint8, np.bool_, np.int64]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
)


@given(
    st.text(max_size=20),
    st.lists(st.floats(allow_nan=False), max_size=4),
    st.lists(arrays, max_size=3),
    st.integers(0, 3),
)
def test_rows_come_back_as_they_were(label: str, values: list[float], data: list[np.ndarray], count: int) -> None:
    turn = Turn(speaker=1, start=0.1, end=0.30000000000000004)
    row = Nested(label=label, values=tuple(values), turn=turn, arrays=tuple(data))
    encoded = dump_rows([row] * count, note={"inputs": "x", "item": label})
    found = load_rows(encoded, Nested)
    assert len(found) == count
    for each in found:
        assert (each.label, each.values, each.turn) == (label, tuple(values), turn)
        for one, other in zip(each.arrays, data, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert read_note(encoded) == {"inputs": "x", "item": label}
    assert dump_rows(found, note={"inputs": "x", "item": label}) == encoded


def test_bytes_do_not_depend_on_the_process() -> None:
    code = (
        "import sys, hashlib\n"
        "from visavis.schemas.artifact import StoredRows, dump_rows\nfrom visavis.schemas.rows import Turn\n"
        "data = dump_rows([Turn(speaker=0, start=1, end=2)], note={c: c for c in 'abcdefgh'})\n"
        "sys.stdout.write(hashlib.sha256(data).hexdigest())"
    )
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(digests) == 1


class TracksHead(Head):
    whole = FaceTracks

    piece: Piece
    cuts: tuple[int, ...]


def test_a_head_is_read_without_the_arrays() -> None:
    track = track_of(np.zeros((9, 478, 3), np.float32), first=3)
    piece = Piece(conversation="c", media=0, uri="x", first=0, last=9)
    data = dump_rows([FaceTracks(piece=piece, width=4, height=3, cuts=(2,), tracks=(track,))])
    asked = []

    def head(size: int) -> bytes:
        asked.append(size)
        return data[:size]

    assert load_heads(head, TracksHead) == (TracksHead(piece=piece, cuts=(2,)),)
    assert max(asked) < len(data) / 10


def test_stored_rows_are_loaded_when_they_are_looked_at_and_not_before() -> None:
    turns = [Turn(speaker=n, start=0, end=1) for n in range(5)]
    files = {f"a/{turn.speaker}": dump_rows([turn]) for turn in turns}
    read: list[str] = []

    def load(path: str) -> bytes:
        read.append(path)
        return files[path]

    rows = StoredRows(sorted(files), load, Turn)
    assert len(rows) == 5
    assert rows[-1] == turns[4]
    part = rows[1:3]
    assert read == ["a/4"]
    assert list(part) == turns[1:3]
    assert read == ["a/4", "a/1", "a/2"]
    with pytest.raises(DatasetError, match="not a readable Turn"):
        StoredRows(["x"], lambda _: b"damaged", Turn)[0]


def test_a_head_of_another_row_is_refused() -> None:
    data = dump_rows([Turn(speaker=0, start=0, end=1)])
    with pytest.raises(DatasetError, match="holds Turn rows, expected FaceTracks"):
        load_heads(lambda size: data[:size], TracksHead)


@pytest.mark.parametrize("data", [b"", b"not an artifact", b"\xff" * 100, (10**12).to_bytes(8, "little") + b"{}"])
def test_what_is_no_artifact_is_told(data: bytes) -> None:
    with pytest.raises(DatasetError, match="not a readable"):
        load_rows(data, Turn)


def test_rows_of_another_type_are_refused() -> None:
    with pytest.raises(DatasetError, match="holds Turn rows, expected Piece"):
        load_rows(dump_rows([Turn(speaker=0, start=0, end=1)]), Piece)


def make_sample(**changes: Any) -> Sample:
    rng = np.random.default_rng(0)
    frames, dim = 10, 6
    fields: dict[str, Any] = {
        "key": "c-0-0000000",
        "avatar_motion": rng.standard_normal((frames, dim)).astype(np.float32),
        "user_motion": rng.standard_normal((frames, dim)).astype(np.float32),
        "avatar_audio": rng.uniform(-1, 1, frames * SAMPLES_PER_FRAME).astype(np.float32),
        "user_audio": np.zeros(frames * SAMPLES_PER_FRAME, np.float32),
        "state": np.arange(frames).astype(np.uint8) % 4,
        "valid": np.ones((frames, 2), bool),
        "reference": np.zeros(dim, np.float32),
        "meta": SampleMeta(
            conversation="c", avatar="a", user="u", start=0, label="listening", expressiveness=1.0, weight=0.5,
            binding=0.4, codec="x",
        ),
    }  # fmt: skip
    return Sample(**(fields | changes))


def test_a_sample_comes_back_within_sixteen_bits() -> None:
    sample = make_sample()
    members = encode_sample(sample)
    found = decode_sample(sample.key, members)
    np.testing.assert_array_equal(found.avatar_motion, sample.avatar_motion)
    np.testing.assert_allclose(found.avatar_audio, sample.avatar_audio, atol=1 / 32767)
    assert not found.user_audio.any()
    assert found.meta == sample.meta
    assert encode_sample(found) == members  # a second generation loses nothing more


@given(
    hnp.arrays(np.float32, (10, 6), elements=st.floats(width=32)),
    hnp.arrays(np.float32, (6,), elements=st.floats(width=32)),
    hnp.arrays(np.uint8, (10,), elements=st.integers(0, 15)),
    hnp.arrays(bool, (10, 2)),
)
def test_a_sample_of_any_finite_numbers_comes_back_and_any_other_is_named(
    motion: np.ndarray, reference: np.ndarray, state: np.ndarray, valid: np.ndarray
) -> None:
    sample = make_sample(avatar_motion=motion, reference=reference, state=state, valid=valid)
    members = encode_sample(sample)
    broken = {"avatar.motion": motion, "reference": reference}
    for name, array in broken.items():
        count = int((~np.isfinite(array)).sum())
        if count:
            with pytest.raises(DatasetError, match=rf"{name} has {count} of {array.size} numbers that are not finite"):
                decode_sample("k", members)
            return
    found = decode_sample("k", members)
    np.testing.assert_array_equal(found.avatar_motion, motion)
    np.testing.assert_array_equal(found.reference, reference)
    np.testing.assert_array_equal(found.state, state)
    np.testing.assert_array_equal(found.valid, valid)
    assert encode_sample(found) == members


def test_a_sample_that_does_not_fit_is_named() -> None:
    with pytest.raises(DatasetError, match=r"sample c-0-0000000: user\.audio: audio of 640 samples"):
        decode_sample("c-0-0000000", encode_sample(make_sample(user_audio=np.zeros(640, np.float32))))
    members = encode_sample(make_sample())
    del members["state.npy"]
    with pytest.raises(DatasetError, match=r"member state\.npy is missing"):
        decode_sample("k", members)
    with pytest.raises(DatasetError, match="sample k"):
        decode_sample("k", encode_sample(make_sample()) | {"avatar.audio.flac": b"noise"})


def test_nothing_is_unpickled() -> None:
    trap = encode_array(np.zeros(1))[:10] + pickle.dumps({"a": 1})
    with pytest.raises(ValueError):  # noqa: PT011 - numpy has several texts for this
        decode_array(trap)
    with pytest.raises(ValueError, match="Object arrays cannot be"):
        encode_array(np.array([{"a": 1}], dtype=object))


def reject() -> None:
    raise Rejected(Reason.ONE_FACE, "x")


@pytest.mark.slow
def test_a_rejection_survives_the_way_between_processes() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(Rejected) as error:
        pool.submit(reject).result()
    rejected = error.value
    assert (rejected.reason, rejected.detail, str(rejected)) == (Reason.ONE_FACE, "x", "one_face: x")

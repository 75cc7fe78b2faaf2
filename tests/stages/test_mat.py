"""A stranger's .mat: its one matrix of numbers, or a refusal, whatever it holds."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat
from scipy.sparse import csc_array

from visavis.stages.media.mat import read_matrix

MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3)


def mat(packed: bool = False, **variables: object) -> bytes:
    file = io.BytesIO()
    savemat(file, variables, do_compression=packed)
    return file.getvalue()


def read(data: bytes, largest: int = 1 << 20) -> np.ndarray:
    return read_matrix(io.BytesIO(data), "coeff", largest)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_matrix_is_read_as_it_was_written(packed: bool, dtype: type) -> None:
    matrix = np.random.default_rng(0).standard_normal((50, 257)).astype(dtype)
    found = read(mat(packed, lm68=np.zeros((50, 2)), coeff=matrix, name="a"))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, matrix)


def test_numbers_that_matlab_wrote_as_bytes_are_fractions_again() -> None:
    """It stores doubles that are small whole numbers in a byte each."""
    data = bytearray(mat(coeff=np.array([[1.0, 2.0]])))
    assert data.count(struct.pack("<II", 9, 16)) == 1
    at = data.index(struct.pack("<II", 9, 16))
    data[at:] = struct.pack("<HH", 2, 2) + bytes([1, 2, 0, 0])
    data[132:136] = struct.pack("<I", len(data) - 136)
    found = read(bytes(data))
    assert (found.dtype, found.tolist()) == (np.float64, [[1.0, 2.0]])


def test_a_file_of_a_machine_that_writes_numbers_the_other_way_round_is_read() -> None:
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, 2, 3) + struct.pack(">II5s3x", 1, 5, b"coeff")
    body += struct.pack(">II6d", 9, 48, *range(6))
    data = b"by hand".ljust(124) + struct.pack(">H", 0x0100) + b"MI" + struct.pack(">II", 14, len(body)) + body
    assert read(data).tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (mat(coef=MATRIX), r"0 variables `coeff` in it, one is expected \(there: coef\)"),
        (mat(), "there: nothing"),
        (mat(coeff=np.array([MATRIX, 1], dtype=object)), "class cell"),
        (mat(coeff={"a": MATRIX}), "class struct"),
        (mat(coeff="abc"), "class char"),
        (mat(coeff=MATRIX.astype(np.int16)), "class other"),
        (mat(coeff=MATRIX * 1j), "class complex"),
        (mat(coeff=csc_array(MATRIX)), "class sparse"),
        (mat(coeff=MATRIX) + mat(coeff=MATRIX)[128:], "2 variables"),
        (mat(coeff=MATRIX)[:-8], "cut off"),
        (mat(True, coeff=MATRIX)[:-8], "cut off"),
        (mat(coeff=MATRIX)[:100], "no .mat file"),
        (b"", "no .mat file"),
        (b"\x80\x04\x95" + bytes(200), "no .mat file"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<H", 0x0200) + b"IM", "HDF5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(200), "HDF5"),
        (mat(coeff=MATRIX)[:128] + struct.pack("<II", 9, 8) + bytes(8), "kind 9"),
    ],
    # The bytes hold the time at which they were made, and processes must agree on names.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_matrix_of_numbers_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(data)


def packed(variable: bytes) -> bytes:
    squeezed = zlib.compress(variable)
    return mat(coeff=MATRIX)[:128] + struct.pack("<II", 15, len(squeezed)) + squeezed


def test_what_unpacks_to_more_than_is_read_is_refused_before_it_does() -> None:
    data = mat(True, coeff=np.zeros((2000, 2000)))
    assert len(data) < 100_000
    with pytest.raises(ValueError, match="packed variable of more than 1048576 bytes"):
        read(data)
    with pytest.raises(ValueError, match="another size"):
        read(packed(struct.pack("<II", 14, 1 << 31) + bytes(64)))
    with pytest.raises(ValueError, match="at most 1048576"):
        read(mat(coeff=MATRIX)[:128] + struct.pack("<II", 14, 1 << 31))


def test_cells_in_cells_to_any_depth_are_refused_without_following_them() -> None:
    """A reader that calls itself for each, in C, ends the process."""
    shape = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1)  # a cell, 1 × 1
    data, names = b"", [b"coeff"] + [b""] * 15_000
    for name in reversed(names):
        body = shape + struct.pack("<II", 1, len(name)) + name.ljust(-(-len(name) // 8) * 8, b"\0") + data
        data = struct.pack("<II", 14, len(body)) + body
    with pytest.raises(ValueError, match="class cell"):
        read(mat(coeff=MATRIX)[:128] + data)


@given(st.data())
def test_no_damage_to_a_file_does_more_than_raise(draw: st.DataObject) -> None:
    data = bytearray(mat(draw.draw(st.booleans()), coeff=MATRIX, other=np.array([1, "a"], object)))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    found = None
    with suppress(Exception):
        found = read(bytes(data))
    assert found is None or found.dtype in (np.float32, np.float64)

"""One matrix of numbers from a stranger's `.mat` file, of versions 5 to 7 of MATLAB's format.

scipy.io.loadmat runs nothing that it finds, but is written in C and believes a file: a damaged byte in a kind of number
ends the process, cells in cells do so by their depth, and a packed variable unpacks to what it likes (scipy 1.17). Here
all that is claimed is held against what is there, and only a real matrix of one class is read. Version 7.3 is HDF5,
which is not.

Format: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from visavis.schemas.storage.files import Reader
from visavis.schemas.untrusted import TooLarge, bounded
from visavis.schemas.words import counted

_HEAD, _TAG = 128, 8  # bytes
_MATRIX, _COMPRESSED, _INT8, _INT32, _UINT32 = 14, 15, 1, 5, 6  # kinds of elements
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""How numbers of a matrix can lie there: doubles that are small whole numbers take a byte."""
_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "double", 7: "single"}
_READ = {6: np.float64, 7: np.float32}
_COMPLEX = 0x800
_MOST_VARIABLES, _MOST_AXES, _LONGEST_NAME = 1000, 32, 63
_HDF5 = "a file of MATLAB 7.3, which is HDF5: write it again by `save -v7`, or by scipy.io.savemat"


class _Element(NamedTuple):
    kind: int
    data: bytes


def read_matrix(file: Reader | io.BytesIO, name: str, largest: int) -> np.ndarray:
    """The variable of this name, float32 or float64, read-only.

    Args:
        largest: bytes that all variables together may unpack to.

    Raises:
        Exception: whatever; the file is at fault, where its reading did not fail.
    """
    order, found, there = _order(file.read(_HEAD)), list[bytes](), list[str]()
    for body in _variables(file, order, largest):
        parts = _elements(body, order)
        next(parts, None), next(parts, None)  # flags and shape
        letters = next(parts, _Element(_INT8, b"")).data
        bounded(len(letters), _LONGEST_NAME, "letters of a variable's name")
        called = letters.decode("latin-1")
        there.append(called)
        if called == name:
            found.append(body)
    if len(found) != 1:
        said = ", ".join(there[:10]) or "nothing"
        raise ValueError(f"{counted(len(found), 'variable')} `{name}` in it, one is expected (there: {said})")
    return _numbers(found[0], name, order, largest)


def _numbers(body: bytes, name: str, order: str, largest: int) -> np.ndarray:
    flags, shape, _, *values = islice(_elements(body, order), 5)
    if flags.kind != _UINT32 or shape.kind != _INT32 or len(flags.data) != 8:
        raise ValueError(f"`{name}` has no head of a matrix")
    what = int(np.frombuffer(flags.data, f"{order}u4")[0])
    sizes = np.frombuffer(shape.data, f"{order}i4").tolist()
    kind = what & 0xFF
    if kind not in _READ or what & _COMPLEX or not 2 <= len(sizes) <= _MOST_AXES or min(sizes) < 0:
        said = "complex" if what & _COMPLEX else _CLASSES.get(kind, "other")
        raise ValueError(f"`{name}` is of class {said}, a matrix of fractions is expected")
    bounded(8 * math.prod(sizes), largest, f"bytes of `{name}`")
    if len(values) != 1 or values[0].kind not in _STORED:
        raise ValueError(f"`{name}` holds no numbers of one kind")
    stored = np.frombuffer(values[0].data, f"{order}{_STORED[values[0].kind]}")
    if stored.size != math.prod(sizes):
        raise ValueError(f"`{name}` claims {math.prod(sizes)} numbers and holds {stored.size}")
    return stored.astype(_READ[kind]).reshape(sizes, order="F")


def _variables(file: Reader | io.BytesIO, order: str, largest: int) -> Iterator[bytes]:
    """Each variable, without its tag."""
    count = taken = 0
    while tag := file.read(_TAG):
        count += 1
        bounded(count, _MOST_VARIABLES, "variables")
        kind, size = np.frombuffer(tag, f"{order}u4").tolist()
        bounded(taken + size, largest, "bytes of variables")
        data = file.read(size)
        if len(data) != size:
            raise ValueError("the file is cut off")
        if kind not in (_MATRIX, _COMPRESSED):
            raise ValueError(f"a variable of kind {kind}, which no variable is")
        body = data if kind == _MATRIX else _inflated(data, largest - taken, order)
        taken += len(body)
        yield body


def _order(head: bytes) -> str:
    """How numbers lie in the file, by its head."""
    order = {b"IM": "<", b"MI": ">"}.get(head[126:], "")
    version = int(np.frombuffer(head[124:126], f"{order}u2")[0]) >> 8 if order else 0
    if version == 2 or head.startswith(b"\x89HDF"):
        raise ValueError(_HDF5)
    if version != 1:
        raise ValueError("no .mat file of version 5 to 7")
    return order


def _inflated(data: bytes, most: int, order: str) -> bytes:
    """A packed variable without its tag."""
    inflater = zlib.decompressobj()
    plain = inflater.decompress(data, max(1, most))
    if inflater.unconsumed_tail:
        raise TooLarge(f"a packed variable of more than {most} bytes")
    if len(plain) < _TAG or not inflater.eof:
        raise ValueError("a packed variable is cut off")
    if np.frombuffer(plain[:_TAG], f"{order}u4").tolist() != [_MATRIX, len(plain) - _TAG]:
        raise ValueError("a packed variable is of another size than it says")
    return plain[_TAG:]


def _elements(body: bytes, order: str) -> Iterator[_Element]:
    """The elements of a variable, one after the other, each filled up to 8 bytes; one of up to 4 bytes may have kind
    and size in 2 bytes each."""
    at = 0
    while at < len(body):
        if len(body) - at < _TAG:
            raise ValueError("a variable is cut off")
        kind, size = np.frombuffer(body, f"{order}u4", 2, at).tolist()
        small = kind >> 16
        start, size, kind = (at + 4, small, kind & 0xFFFF) if small else (at + _TAG, size, kind)
        if (small and size > 4) or start + size > len(body):
            raise ValueError("an element claims more bytes than there are")
        yield _Element(kind, body[start : start + size])
        at = at + _TAG if small else start + -(-size // 8) * 8

"""What a file was when it was hashed, cheap enough to be looked at again before each decoding.

A witness holds a file's size, a digest of its beginning, and one of up to 32 blocks that are spread over it evenly; of
a file up to 256 kB that is all of it. It is a matter of content, so a corpus may be moved or touched. Local files are
held against all three (0.4 ms), others against size and beginning, which are read anyway.

The trade-off: somebody who knows the blocks can change what lies between them. A second hash of everything would find
that, and take as long as the first.
"""

from __future__ import annotations

import hashlib
import io

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.storage.files import Reader
from visavis.schemas.uris import is_local, shown

_BLOCK = 8 << 10  # bytes
_BLOCKS = 32


class Unchanged:
    """A file that is opened several times, and must be the same one each time.

    Args:
        witness: what it was; none: what it is when it is opened first.
    """

    def __init__(self, uri: str, witness: str = "") -> None:
        self._uri, self._witness = uri, witness

    def check(self, reader: Reader) -> None:
        """Hold an open file against what is known of it; it is at its beginning afterwards.

        Raises:
            Rejected: CHANGED.
        """
        seen = _seen(reader, local=is_local(self._uri))
        self._witness = self._witness or seen
        self.check_witness(self._witness if self._witness.startswith(seen) else seen)

    def check_witness(self, witness: str) -> None:
        """The same of a witness that holds as much or more.

        Raises:
            Rejected: CHANGED.
        """
        if not witness.startswith(self._witness):
            raise Rejected(Reason.CHANGED, f"{shown(self._uri)}: changed since it was ingested")

    @property
    def size(self) -> int:
        """Bytes, once it was opened."""
        return int(self._witness.partition(":")[0] or 0)


class Witness:
    """Made of a file's bytes as they are read, in order.

    Args:
        size: of the file, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._size, self._stride, self._at = size, _stride(size), 0
        self._head, self._spread = _digest(), _digest()

    def add(self, chunk: bytes) -> None:
        self._head.update(chunk[: max(0, _BLOCK - self._at)])
        end = self._at + len(chunk)
        for begin in range(self._at // self._stride * self._stride, end, self._stride):
            self._spread.update(chunk[max(0, begin - self._at) : max(0, begin + _BLOCK - self._at)])
        self._at = end

    def __str__(self) -> str:
        return f"{self._size}:{self._head.hexdigest()}:{self._spread.hexdigest()}"


def size_of(reader: Reader) -> int:
    """Bytes of an open file, which is at its beginning afterwards."""
    size = reader.seek(0, io.SEEK_END)
    reader.seek(0)
    return size


def _seen(reader: Reader, *, local: bool) -> str:
    """A witness of an open file; without its last part where reading here and there takes long."""
    size = size_of(reader)
    head, spread = _digest(reader.read(min(_BLOCK, size))), _digest()
    for begin in range(0, size if local else 0, _stride(size)):
        reader.seek(begin)
        spread.update(reader.read(_BLOCK))
    reader.seek(0)
    return f"{size}:{head.hexdigest()}:{spread.hexdigest() if local else ''}"


def _digest(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=12)


def _stride(size: int) -> int:
    return _BLOCK * max(1, -(-size // (_BLOCKS * _BLOCK)))

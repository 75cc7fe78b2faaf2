"""Files that are either whole or absent, on a disk or an object store (fsspec).

On a disk: a temporary name beside the target, fsync, rename. On an object store: one upload of a finished file, which
becomes visible when it is complete, in one part or many. Temporary names start with `.tmp-`, so leftovers of a killed
run can be told apart. Parts of an upload that was killed are never visible; a bucket's lifecycle rule
(AbortIncompleteMultipartUpload) frees what they occupy.

A name that only one writer may get is created (fsspec's `mode="create"`: If-None-Match on S3, generation 0 on Google's
store, no overwriting on Azure's; a hard link on a disk). Nothing is compared and swapped, so that any store will do.

On a disk no link inside the folder is followed, and nothing outside of it is read, written or removed
(`schemas.storage.inside`); the folder itself may be one.

What a store answers is never remembered: another process may have written since. A listing tells which of a million
artifacts exist at the price of one request per thousand, so planners should ask `names`, not `exists`.
"""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from fsspec.implementations.local import LocalFileSystem

from visavis.schemas.storage import inside
from visavis.schemas.storage.faults import about, retried
from visavis.schemas.storage.files import is_there, locate, read_whole
from visavis.schemas.untrusted import TooLarge

TEMPORARY = ".tmp-"
_SMALL = 1 << 20  # bytes of what is taken for a small entry


class Store:
    """A folder, local or remote. Paths are relative to it, with forward slashes.

    Raises, here and in all methods:
        OSError: with `filename` and `strerror` that say what is wrong: no such bucket, no credentials, access denied,
            disk full.
        UsageError: the root is a URL of a kind that is not known or not installed.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._fs, self._base = locate(root, use_listings_cache=False)
        self.local = isinstance(self._fs, LocalFileSystem)
        self._folder = self._base.rstrip("/") or "/"  # of a local one

    def full(self, path: str) -> str:
        """The path or URL of an entry.

        Raises:
            ValueError: the path would leave the store.
        """
        inside.parts_of(path)
        return f"{self._base.rstrip('/')}/{path}"

    def exists(self, path: str) -> bool:
        if self.local:
            return retried(lambda: inside.is_inside(self._folder, path), self._shown(path))
        return is_there(self._fs, self.full(path), self._shown(path))

    def read(self, path: str, most: int | None = None) -> bytes:
        """All bytes of an entry.

        Raises:
            TooLarge: there are more than `most`.
        """
        if self.local:
            return retried(lambda: inside.read_inside(self._folder, path, most), self._shown(path))
        return read_whole(self._fs, self.full(path), self._shown(path), most)

    def read_head(self, path: str, size: int) -> bytes:
        """The first `size` bytes, or all where there are fewer."""
        if self.local:
            with about(self._shown(path)), inside.open_inside(self._folder, path) as file:
                return file.read(size)
        data: bytes = retried(lambda: self._fs.cat_file(self.full(path), start=0, end=size), self._shown(path))
        return data[:size]  # some HTTP servers send all

    def peek(self, path: str) -> bytes | None:
        """A small entry's bytes; None where it is absent, and no bytes of one that is not small: it is a stranger's."""
        try:
            return self.read(path, _SMALL)
        except FileNotFoundError:
            return None
        except TooLarge:
            return b""

    def write(self, path: str, data: bytes) -> None:
        """Commit bytes under a name."""
        if self.local:
            with self.writer(path) as file:
                file.write(data)
        else:
            retried(lambda: self._fs.pipe_file(self.full(path), data), self._shown(path))

    def create(self, path: str, data: bytes) -> bool:
        """Commit bytes under a name that nobody has: of several writers at once, one succeeds.

        A client repeats a request whose answer was lost, and is refused: whether the bytes there are its own is for
        the caller to see.

        Returns:
            Whether the bytes were committed.
        """
        try:
            retried(lambda: self._create(path, data), self._shown(path))
            return True
        except OSError as error:
            taken = error.errno == errno.EEXIST
            if not taken and error.errno != errno.ENOTSUP:
                raise
        if not taken and not (taken := self.exists(path)):  # no conditional writes: two may within milliseconds
            self.write(path, data)
        return not taken

    def _create(self, path: str, data: bytes) -> None:
        if self.local:
            with inside.replace_inside(self._folder, path, _temporary(), fresh=True) as file:
                file.write(data)
        else:
            self._fs.pipe_file(self.full(path), data, mode="create")

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file that appears under its name when the block ends well, and not at all when it raises."""
        if self.local:
            with inside.replace_inside(self._folder, path, _temporary()) as file:
                yield file
            return
        with tempfile.NamedTemporaryFile(prefix="visavis-") as spool:  # whole here first, then one upload
            with about(spool.name):  # a disk that is full
                yield spool.file
                spool.flush()
            retried(lambda: self._fs.put_file(spool.name, self.full(path)), self._shown(path))

    def names(self, folder: str) -> Iterator[str]:
        """Names, relative to a folder, of all files at any depth below it; none where it is absent. No temporary files.

        In no particular order, and streamed: memory does not grow with the number of files on a disk or on S3. Files
        that come or go meanwhile may or may not be among them.
        """
        with suppress(FileNotFoundError), about(self._shown(folder)):
            for name in self._below(folder):
                if not name.endswith("/") and not _is_temporary(name):
                    yield name  # a name that ends with a slash is a placeholder that S3 consoles make for a folder

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted names of the files directly inside a folder that has no folders of many files in it."""
        return sorted(n for n in self.names(folder) if "/" not in n and n.endswith(suffix))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Name, relative to a folder, and bytes of every file at any depth below it; of links, their own. Elsewhere
        than on a disk, all names are held at once."""
        if self.local:
            for name in self.names(folder):
                with suppress(FileNotFoundError):
                    yield name, os.lstat(f"{self._folder}/{folder}/{name}").st_size
        else:
            base = self.full(folder).rstrip("/")
            for path, info in self._fs.find(base, detail=True).items():
                yield str(path)[len(base) + 1 :], int(info.get("size") or 0)

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError), about(self._shown(path)):
            if self.local:
                inside.remove_inside(self._folder, path)
            else:
                self._fs.rm_file(self.full(path))

    def sweep(self) -> int:
        """Remove what killed runs left half-written, anywhere in the store, and say how many files that were.

        What somebody is writing stays. Object stores have no temporary files. Looks at every name once.
        """
        leftovers = [path for path in inside.walk(self._folder) if _is_temporary(path)] if self.local else []
        return sum(inside.remove_left(self._folder, path) for path in leftovers)

    def _below(self, folder: str) -> Iterator[str]:
        """Paths of all files below a folder, relative to it."""
        if self.local:
            return inside.walk(self._folder, folder)
        base = self.full(folder).rstrip("/")
        paths: Iterable[str] = self._pages(base) if hasattr(self._fs, "call_s3") else self._fs.find(base)
        return (path[len(base) + 1 :] for path in paths)

    def _pages(self, base: str) -> Iterator[str]:
        """`find` on S3 keeps a record of every object, some 600 bytes; this keeps a page of 1,000 of them."""
        bucket, key, _ = self._fs.split_path(base)
        more: dict[str, str] | None = {}
        while more is not None:
            page = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/", **more)
            yield from (f"{bucket}/{entry['Key']}" for entry in page.get("Contents", []))
            more = {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else None

    def _shown(self, path: str) -> str:
        """The name that errors give: whatever a client library raises comes out as an OSError with it and a reason."""
        full = self.full(path)
        return full if self.local else str(self._fs.unstrip_protocol(full))


def _temporary() -> str:
    return f"{TEMPORARY}{uuid.uuid4().hex[:12]}"  # the target's name may be long enough


def _is_temporary(path: str) -> bool:
    return path.rpartition("/")[2].startswith(TEMPORARY)

"""Files that are either whole or absent, on a disk or an object store (fsspec).

On a disk: a temporary name beside the target, fsync, rename. On an object store: one upload of a finished file, which
becomes visible when it is complete, in one part or many. Temporary names start with `.tmp-`, so leftovers of a killed
run can be told apart. Parts of an upload that was killed are never visible; a bucket's lifecycle rule
(AbortIncompleteMultipartUpload) frees what they occupy.

On a disk no link inside the folder is followed, and nothing outside of it is read, written or removed
(`schemas.inside`); the folder itself may be one.

What a store answers is never remembered: another process may have written since. A listing tells which of a million
artifacts exist at the price of one request per thousand, so planners should ask `names`, not `exists`.
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from fsspec.implementations.local import LocalFileSystem

from schemas.faults import about, retried
from schemas.files import is_there, locate, read_whole
from schemas.inside import is_inside, open_inside, parts_of, read_inside, remove_inside, replace_inside, walk
from schemas.untrusted import TooLarge

T = TypeVar("T")
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
        self._s3 = hasattr(self._fs, "call_s3")

    def full(self, path: str) -> str:
        """The path or URL of an entry.

        Raises:
            ValueError: the path would leave the store.
        """
        parts_of(path)
        return f"{self._base.rstrip('/')}/{path}"

    def exists(self, path: str) -> bool:
        if self.local:
            return self._tried(path, lambda: is_inside(self._folder, path))
        return is_there(self._fs, self.full(path), self._shown(path))

    def read(self, path: str, most: int | None = None) -> bytes:
        """All bytes of an entry.

        Raises:
            TooLarge: there are more than `most`.
        """
        if self.local:
            return self._tried(path, lambda: read_inside(self._folder, path, most))
        return read_whole(self._fs, self.full(path), self._shown(path), most)

    def read_head(self, path: str, size: int) -> bytes:
        """The first `size` bytes, or all where there are fewer."""
        if self.local:
            with self._about(path), open_inside(self._folder, path) as file:
                return file.read(size)
        data: bytes = self._tried(path, lambda: self._fs.cat_file(self.full(path), start=0, end=size))
        return data[:size]  # some HTTP servers send all

    def write(self, path: str, data: bytes) -> None:
        """Commit bytes under a name."""
        if not self.local:
            self._tried(path, lambda: self._fs.pipe_file(self.full(path), data))
            return
        with self.writer(path) as file:
            file.write(data)

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file that appears under its name when the block ends well, and not at all when it raises."""
        if self.local:
            temporary = f"{TEMPORARY}{uuid.uuid4().hex[:12]}"  # the target's name may be long enough
            with replace_inside(self._folder, path, temporary) as file:
                yield file
            return
        with tempfile.TemporaryDirectory() as folder:  # whole here first, then one upload
            spool = Path(folder) / "spool"
            with _created(spool, str(spool)) as file:
                yield file
            self._tried(path, lambda: self._fs.put_file(str(spool), self.full(path)))

    def names(self, folder: str) -> Iterator[str]:
        """Names, relative to a folder, of all files at any depth below it; none where it is absent. No temporary files.

        In no particular order, and streamed: memory does not grow with the number of files on a disk or on S3. Files
        that come or go meanwhile may or may not be among them.
        """
        with self._about(folder):
            for name in self._below(folder):
                if not name.endswith("/") and not name.rpartition("/")[2].startswith(TEMPORARY):
                    yield name  # a name that ends with a slash is a placeholder that S3 consoles make for a folder

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted names of the files directly inside a folder that has no folders of many files in it."""
        return sorted(n for n in self.names(folder) if "/" not in n and n.endswith(suffix))

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError), self._about(path):
            if self.local:
                remove_inside(self._folder, path)
            else:
                self._fs.rm_file(self.full(path))

    def sweep(self) -> int:
        """Remove what killed runs left half-written, anywhere in the store, and say how many files that were.

        Only for who holds the store's lock: the temporary file of a writer at work would go too, and that write would
        fail. Object stores have no temporary files. Looks at every name once and at no file.
        """
        if not self.local:
            return 0
        leftovers = [path for path in walk(self._folder) if path.rpartition("/")[2].startswith(TEMPORARY)]
        for path in leftovers:
            with suppress(FileNotFoundError):
                remove_inside(self._folder, path)
        return len(leftovers)

    def peek(self, path: str) -> tuple[bytes, str] | None:
        """A small entry's bytes and its version, which any change changes; None where it is absent.

        Of one that is not small (somebody else wrote it) no bytes are read.

        If it changes between the two, the version is the older one, and a `swap` that expects it fails.
        """
        with suppress(FileNotFoundError), self._about(path):
            if self.local:
                data = self._small(path)
                return data, hashlib.sha256(data).hexdigest()
            full = self.full(path)
            info = self._fs.info(full)
            version = info["ETag"] if self._s3 else ""
            data = self._fs.cat_file(full) if (info["size"] or 0) <= _SMALL else b""
            return data, version or hashlib.sha256(data).hexdigest()
        return None

    def _small(self, path: str) -> bytes:
        try:
            return read_inside(self._folder, path, _SMALL)
        except TooLarge:
            return b""

    def swap(self, path: str, data: bytes, expected: str | None) -> bool:
        """Commit bytes if the entry still has the expected version; None: if it is absent.

        Of several writers that expect the same version one succeeds, where the store can write conditionally
        (S3: If-Match, If-None-Match). Elsewhere this is check-then-write, and two may within milliseconds.

        Returns:
            Whether the bytes were committed.
        """
        if self._s3:
            with self._about(path):
                done = self._put_if(self.full(path), data, expected)
            if done is not None:
                return done
        found = self.peek(path)
        if (found[1] if found else None) != expected:
            return False
        self.write(path, data)
        return True

    def _put_if(self, full: str, data: bytes, expected: str | None) -> bool | None:
        """`swap` on S3; None where the server does not know conditional writes."""
        bucket, key, _ = self._fs.split_path(full)
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
        try:
            self._fs.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except OSError as error:
            code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code", "")
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409"):
                return False
            if expected is not None and code == "NoSuchKey":
                return False
            if code in ("NotImplemented", "501"):
                return None
            raise
        return True

    def _below(self, folder: str) -> Iterator[str]:
        """Paths of all files below a folder, relative to it."""
        base = self.full(folder).rstrip("/")
        if self.local:
            yield from walk(self._folder, folder)
        elif self._s3:
            yield from (path[len(base) + 1 :] for path in self._pages(base))
        else:
            with suppress(FileNotFoundError), about(base):
                yield from (path[len(base) + 1 :] for path in self._fs.find(base))

    def _pages(self, base: str) -> Iterator[str]:
        """`find` on S3 keeps a record of every object in a list; this keeps a page of 1,000."""
        bucket, key, _ = self._fs.split_path(base)
        more: dict[str, str] = {}
        while True:
            try:
                page = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/", **more)
            except FileNotFoundError:
                return
            for entry in page.get("Contents", []):
                yield f"{bucket}/{entry['Key']}"
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _tried(self, path: str, act: Callable[[], T]) -> T:
        """What may be done again: it is, as long as the store is away."""
        return retried(act, self._shown(path))

    def _about(self, path: str) -> AbstractContextManager[None]:
        """Whatever a client library raises comes out as an OSError with the entry's name and a reason."""
        return about(self._shown(path))

    def _shown(self, path: str) -> str:
        full = self.full(path)
        return full if self.local else str(self._fs.unstrip_protocol(full))


@contextmanager
def _created(path: Path, shown: str) -> Iterator[IO[bytes]]:
    """A new file. A full or read-only disk is reported under the name that people know."""
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(path)):
            raise
        raise OSError(error.errno, error.strerror, shown) from error

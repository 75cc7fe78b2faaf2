"""Files that are either whole or absent, on a disk or an object store (fsspec).

On a disk: a temporary name beside the target, fsync, rename. On an object store: one upload of a finished file, which
becomes visible when it is complete. Temporary names start with `.tmp-`, so leftovers of a killed run can be told apart.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

TEMPORARY = ".tmp-"


class Store:
    """A folder, local or remote. Paths are relative to it, with forward slashes."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._fs, self._base = fsspec.core.url_to_fs(root)
        self.local = isinstance(self._fs, LocalFileSystem)

    def full(self, path: str) -> str:
        """The path or URL of an entry.

        Raises:
            ValueError: the path would leave the store.
        """
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise ValueError(f"{path!r} is not a path inside the store")
        return f"{self._base.rstrip('/')}/{path}"

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(self.full(path)))

    def read(self, path: str) -> bytes:
        data: bytes = self._fs.cat_file(self.full(path))
        return data

    def read_head(self, path: str, size: int) -> bytes:
        """The first `size` bytes, or all where there are fewer."""
        data: bytes = self._fs.cat_file(self.full(path), start=0, end=size)
        return data

    def write(self, path: str, data: bytes) -> None:
        """Commit bytes under a name."""
        with self.writer(path) as file:
            file.write(data)

    @contextmanager
    def writer(self, path: str) -> Iterator[IO[bytes]]:
        """A file that appears under its name when the block ends well, and not at all when it raises."""
        full = self.full(path)
        if self.local:
            target = Path(full)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{target.name}")
            try:
                with temporary.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory() as folder:  # whole here first, then one upload
            spool = Path(folder) / "spool"
            with spool.open("wb") as file:
                yield file
            self._fs.put_file(str(spool), full)

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Sorted names of the files directly inside a folder; none where it does not exist. No temporary files."""
        full = self.full(folder)
        self._fs.invalidate_cache(full)
        if not self._fs.exists(full):
            return []
        names = (PurePosixPath(entry["name"]).name for entry in self._fs.ls(full, detail=True))
        return sorted(n for n in names if n.endswith(suffix) and not n.startswith(TEMPORARY))

    def delete(self, path: str) -> None:
        if self.exists(path):
            self._fs.rm_file(self.full(path))

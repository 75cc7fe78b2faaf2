"""The folder of a public corpus: all its files, and names of what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from visavis.pipeline.plan.stamps import remote_stamp
from visavis.schemas.errors import UsageError
from visavis.schemas.names import LONGEST_NAME, is_name
from visavis.schemas.storage.files import is_there, locate, read_whole
from visavis.schemas.uris import printable, shown

SPLITS = ("train", "test", "ood", "val", "valid", "dev")
"""Names of folders that are splits."""
TABLE_BYTES = 256 << 20
"""Bytes of a table of conversations, at most."""


class Folder:
    """All files below a folder, and what tells each from a later one of its name."""

    def __init__(self, place: str) -> None:
        """
        Raises:
            UsageError: no such folder.
        """
        self.place = place.rstrip("/") or "/"
        self.files, root = locate(self.place)
        name = root.rstrip("/").rpartition("/")[2]
        self.own_split = name if name in SPLITS else ""
        if not is_there(self.files, root, self.place) or not self.files.isdir(root):
            raise UsageError(f"{printable(shown(place))}: no such folder")
        root = root.rstrip("/")
        found: Mapping[str, Any] = self.files.find(root, detail=True)
        self.found = {str(path)[len(root) + 1 :]: info for path, info in sorted(found.items())}

    def uri(self, path: str) -> str:
        """Address of a file, as workers find it."""
        return str(self.files.unstrip_protocol(f"{locate(self.place)[1].rstrip('/')}/{path}"))

    def stamp(self, path: str) -> str:
        return remote_stamp(self.found[path])

    def begin(self, path: str, size: int) -> bytes:
        """A file's first bytes, no more than there are."""
        root = locate(self.place)[1].rstrip("/")
        return bytes(self.files.cat_file(f"{root}/{path}", start=0, end=size))

    def read(self, path: str) -> bytes:
        """A table's bytes. Raises TooLarge: they are more than a table has."""
        root = locate(self.place)[1].rstrip("/")
        return read_whole(self.files, f"{root}/{path}", f"{self.place}/{path}", TABLE_BYTES)


def identity(layout: str, name: str) -> str:
    """16 hexadecimal digits of a conversation: its name within its corpus."""
    return hashlib.sha256(f"{layout}:{name}".encode()).hexdigest()[:16]


def checked(name: str) -> str:
    """The same name. Raises UsageError: it is none."""
    if not is_name(name):
        raise UsageError(
            f"{printable(name[:80])}: a name must be one line of at most {LONGEST_NAME} characters; rename the file"
        )
    return name

"""From a name as somebody wrote it to one that holds wherever it is read."""

from __future__ import annotations

import os
import posixpath
from functools import cache
from importlib.util import find_spec

from fsspec import available_protocols
from fsspec.registry import known_implementations

from schemas.uris import is_local, local_path, local_uri


class Place:
    """A folder, by path or URL, that the names in a list are relative to: so a corpus can be moved."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._local = is_local(folder)
        self._kinds: set[str] = set()  # of URLs, that are known

    def uri(self, text: str) -> str:
        """The uri or URL of a file that a list names.

        Raises:
            ValueError: no file can have that name. The message says what is expected.
        """
        if text.isascii() and text.isprintable() and text[:1].isalnum() and text[-1] != " ":  # nearly every name
            kind, url, _ = text.partition("://")
            if url and kind in self._kinds:
                return text
            if self._local and not url and "/." not in text and "//" not in text and text[-1] != "/":
                return f"{self._folder}/{text}"
        name = text.strip()
        if name != text and self._local and is_local(text) and os.path.lexists(absolute(self._folder, text)):
            name = text  # those blanks are a part of it
        if not is_local(name):
            self._check_kind(name.partition("://")[0])
            _check(name, local=False)
            return name
        if self._local or name.startswith(("/", "file://")):
            path = absolute(self._folder, local_path(name))
            return path if path.isascii() and path.isprintable() else _written(path)
        _check(name, local=False)
        kind, _, path = f"{self._folder}/{name}".partition("://")
        return f"{kind}://{posixpath.normpath(path) if '/.' in path or '//' in path else path}"

    def _check_kind(self, kind: str) -> None:
        """Imports nothing: workers read the files, and the driver of a large build may have no use for the library."""
        if kind in self._kinds:
            return
        last = kind.rpartition("::")[2]
        if last not in available_protocols():
            raise ValueError(f"a path or a URL of a known kind, not {last}://")
        listed = known_implementations.get(last)
        if listed and find_spec(listed["class"].partition(".")[0]) is None:
            raise ValueError(f"a URL of a kind that is installed ({listed.get('err', last)})")
        self._kinds.add(kind)


def absolute(folder: str, name: str) -> str:
    """A local path without `.`, `..` and `~`; a folder that is a link is left where it leads to.

    Raises:
        ValueError: no file can have that name.
    """
    _check(name, local=True)
    path = name if name.startswith("/") else f"{folder}/{name}"
    if name.startswith("~/") and not os.path.lexists(path):
        path = os.path.expanduser(name)  # noqa: PTH111 - pathlib takes away what it thinks is superfluous
    return _plain(path) if "/." in path or "//" in path or path.endswith("/") else path


def _written(path: str) -> str:
    """A name from a text file: bytes that are no UTF-8 are a file's name if there is such a file, else a mistake."""
    if any("\ud800" <= c < "\ue000" for c in path) and not os.path.lexists(path):
        raise ValueError("UTF-8, or the name of a file that is there; save the list as UTF-8")
    return local_uri(path)


def _plain(path: str) -> str:
    found = ""
    for part in path.split("/"):
        if part == "..":
            found = _above(found)
        elif part not in ("", "."):
            found = f"{found}/{part}"
    return found or "/"


@cache
def _above(folder: str) -> str:
    return posixpath.dirname(os.path.realpath(folder) if os.path.islink(folder) else folder).rstrip("/")  # noqa: PTH114


def _check(name: str, *, local: bool) -> None:
    if name.isascii() and "\0" not in name:
        return
    if "\0" in name:
        raise ValueError("a name without NUL")
    if any("\ud800" <= c < ("\udc80" if local else "\ue000") or "\udcff" < c < "\ue000" for c in name):
        raise ValueError("a name in UTF-8")

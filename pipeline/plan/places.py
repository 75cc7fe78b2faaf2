"""From a name as somebody wrote it to one that holds wherever it is read, and that may be read (`schemas.access`)."""

from __future__ import annotations

import os
import posixpath
from functools import cache
from importlib.util import find_spec

from fsspec import available_protocols
from fsspec.registry import known_implementations

from visavis.schemas.access import WEB, Access, host_of, kinds_of, plainly_private
from visavis.schemas.extras import extra_of, install
from visavis.schemas.uris import is_local, local_path, local_uri

_MOST_HOSTS = 100_000  # that are remembered


class Place:
    """A folder, by path or URL, that the names in a list are relative to: so a corpus can be moved.

    A list that lies elsewhere names nothing on this machine, and nothing above its own server or bucket.
    """

    def __init__(self, folder: str, access: Access) -> None:
        self._folder = folder
        self._local = is_local(folder)
        self._access = access
        self._own = self._local or (folder.partition("://")[0] in WEB and plainly_private(host_of(folder)))
        self._kinds: set[str] = set()  # of URLs, that are known
        self._hosts: set[str] = set()  # as URLs have them, with user and port, that may be read

    def uri(self, text: str) -> str:
        """The uri or URL of a file that a list names.

        Raises:
            ValueError: no file can have that name. The message says what is expected.
        """
        if text.isascii() and text.isprintable() and text[:1].isalnum() and text[-1] != " ":  # nearly every name
            kind, url, rest = text.partition("://")
            if (
                url
                and kind in self._kinds
                and "::" not in rest
                and (kind not in WEB or rest.partition("/")[0] in self._hosts)
            ):
                return text
            if self._local and not url and "/." not in text and "//" not in text and text[-1] != "/":
                return f"{self._folder}/{text}"
        name = text.strip()
        if name != text and self._local and is_local(text) and os.path.lexists(absolute(self._folder, text)):
            name = text  # those blanks are a part of it
        if not is_local(name):
            return self._checked(name)
        if self._local:
            path = absolute(self._folder, local_path(name))
            return path if path.isascii() and path.isprintable() else _written(path)
        if name.startswith(("/", "file://")):
            raise ValueError("a URL or a relative path: a list from elsewhere names no files of this machine")
        _check(name, local=False)
        return self._inside(name)

    def _inside(self, name: str) -> str:
        """A relative name on a server or in a bucket, of which `..` does not lead out."""
        kind, _, path = f"{self._folder}/{name}".partition("://")
        top, slash, _ = path.partition("/")
        path = posixpath.normpath(path) if "/." in path or "//" in path else path
        if not path.startswith(f"{top}{slash}"):
            raise ValueError(f"a name below {kind}://{top}")
        return f"{kind}://{path}"

    def _checked(self, url: str) -> str:
        """A URL that may be read."""
        kind = url.partition("://")[0]
        if len(kinds_of(url)) > 1:
            raise ValueError("a path or a URL; a list names no chains of them (::)")
        self._check_kind(kind, url)
        if kind in ("file", "local") and not self._local:
            raise ValueError("a URL or a relative path: a list from elsewhere names no files of this machine")
        _check(url, local=False)
        if kind in WEB:
            self._access.check_row(host_of(url), own=self._own)
            if len(self._hosts) > _MOST_HOSTS:
                self._hosts.clear()
            self._hosts.add(url.partition("://")[2].partition("/")[0])
        return url

    def _check_kind(self, kind: str, url: str) -> None:
        """Imports nothing: workers read the files, and the driver of a large build may have no use for the library."""
        if kind in self._kinds:
            return
        if kind not in available_protocols():
            raise ValueError(f"a path or a URL of a known kind, not {kind}://")
        self._access.check_kind(url)
        listed = known_implementations.get(kind)
        library = listed["class"].partition(".")[0] if listed else ""
        if library and find_spec(library) is None:
            extra = extra_of(library)
            advice = install(extra) if extra else listed.get("err", kind)
            raise ValueError(f"a URL of a kind that is installed ({advice})")
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

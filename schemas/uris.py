"""Files' names as text: what every row, ledger and message holds.

A local file is named by its absolute path where that is plain text. Names on a disk are bytes, though: those that are
no UTF-8, or hold what does not print (control characters, terminal escapes, line breaks), are `file://` uris,
percent-encoded as RFC 8089 says. `local_uri` encodes and `local_path` decodes, and nobody else does either.

Anything else with `://` in it is an fsspec URL, taken as it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_FILE = "file://"


def local_uri(path: str) -> str:
    """The uri of an absolute local path, which is as Python gives it (`surrogateescape`)."""
    return path if path.isprintable() and "://" not in path else _FILE + quote_from_bytes(os.fsencode(path))


def is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith(_FILE)


def local_path(uri: str) -> str:
    """The path of a local uri, with or without `file://`; any bytes, as Python gives them.

    People also put `file://` before a path without encoding it: where only that file exists, it is meant.
    """
    if not uri.startswith(_FILE):
        return uri
    path = uri.removeprefix(_FILE)
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    if "%" not in path:
        return path
    decoded = os.fsdecode(unquote_to_bytes(path.encode("utf-8", "surrogateescape")))
    return path if not os.path.lexists(decoded) and os.path.lexists(path) else decoded


def located(url: str, **options: Any) -> tuple[AbstractFileSystem, str]:
    """File system and path of a URL. `::` chains URLs for fsspec; in a name it is two colons.

    Raises:
        ValueError, ImportError: a kind of URL that is not known or not installed.
    """
    import fsspec  # the command line has no use for it at first

    if "://" not in url:
        return fsspec.filesystem("file", **options), os.path.abspath(os.path.expanduser(url))  # noqa: PTH100, PTH111
    first, chained, last = url.rpartition("::")
    if chained and "://" in first and "://" not in last and not last.startswith("/"):
        filesystem = fsspec.filesystem(url.partition("://")[0], **options)
        return filesystem, str(filesystem._strip_protocol(url))
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(path)


def file_name(uri: str) -> str:
    """The last part of a file's name, for people."""
    return printable((local_path(uri) if is_local(uri) else uri).rpartition("/")[2])


def printable(text: str) -> str:
    """Text that may be printed anywhere: what is not printable comes as an escape, bytes of no UTF-8 as `\\xe9`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\u3000" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte, as `surrogateescape` has it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()

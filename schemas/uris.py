"""Files' names as text: what every row, ledger and message holds.

A local file is named by its absolute path where that is plain text. Names on a disk are bytes, though: those that are
no UTF-8, or hold what does not print (control characters, terminal escapes, line breaks), are `file://` uris,
percent-encoded as RFC 8089 says. `local_uri` encodes and `local_path` decodes, and nobody else does either.

Anything else with `://` in it is an fsspec URL, taken as it is. It may carry a password or a signature, so it is shown
and stored as `shown` has it, and only ever used as it is.
"""

from __future__ import annotations

import os
import re
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


_SCHEME = r"[a-zA-Z][\w+.-]*://"
_CHAINED = re.compile(rf"(?<=::)(?={_SCHEME})")  # `zip://a.mp4::https://…`, as fsspec chains them
_IN_TEXT = re.compile(rf"(?<![\w+.-]){_SCHEME}[^\s'\"<>\\^`{{|}}]+")
_HIDDEN = "…"


def shown(uri: str) -> str:
    """A name as it may be printed and stored: a URL without user part, values of the query, and fragment.

    `https://me:pass@host/v.mp4?sig=abc&x` → `https://…@host/v.mp4?sig=…&x`
    """
    if is_local(uri):
        return uri
    return "".join(map(_without_keys, _CHAINED.split(uri)))


def shown_in(text: str) -> str:
    """A message with every URL in it as `shown` has it."""
    return _IN_TEXT.sub(lambda found: shown(found[0]), text) if "://" in text else text


def _without_keys(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    place, sharp, _ = rest.partition("#")
    place, question, query = place.partition("?")
    host, slash, path = place.partition("/")
    if ":" in host and "@" in path and not host.endswith("]") and not host.rpartition(":")[2].isdecimal():
        host, slash, path = place, "", ""  # a slash in the password
    _, at, host = host.rpartition("@")
    fields = (name + (equals and equals + _HIDDEN) for name, equals, _ in (f.partition("=") for f in query.split("&")))
    return (
        f"{scheme}{mark}{at and _HIDDEN}{at}{host}{slash}{path}{question}{'&'.join(fields)}{sharp}{sharp and _HIDDEN}"
    )


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

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
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

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
HIDDEN = "…"
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
_PLACES = frozenset(["abfs", "abfss", "wasb", "wasbs", "github", "git"])
"""Schemes that name a place before the `@`: a container, a repository."""

SIGNING = frozenset(
    [
        *("token", "access_token", "auth_token", "sig", "signature", "expires", "expiry", "jwt", "hmac"),
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "security-token", "key-pair-id", "hdnts", "hdnea"),
    ]
)
"""Fields of a query that let somebody in and say nothing of what is there; in lower case."""
_SIGNING_BEGINS = ("x-amz-", "x-goog-", "x-oss-", "x-cos-")
_AZURE = ("sv", "ss", "srt", "sp", "se", "st", "spr", "sr", "sip", "saoid", "suoid", "scid", "ses", "sdd")
_AZURE_USER = ("skoid", "sktid", "skt", "ske", "sks", "skv")
_WITH = {"sig": frozenset(_AZURE + _AZURE_USER), "key-pair-id": frozenset(["policy", "hash-algorithm"])}
"""Fields that sign only beside another one: Azure's shared access signatures, CloudFront's policies."""


def shown(uri: str) -> str:
    """A name as it may be printed and stored: a URL without user part, values of the query, and fragment.

    `https://me:pass@host/v.mp4?sig=abc&x` → `https://…@host/v.mp4?sig=…&x`
    """
    if is_local(uri):
        return uri
    return "".join(map(_without_keys, _CHAINED.split(uri)))


def shown_in(text: str) -> str:
    """A message with every URL in it as `shown` has it."""
    return _IN_TEXT.sub(_shown_word, text) if "://" in text else text


def _shown_word(found: re.Match[str]) -> str:
    url = found[0].rstrip(".,:;!)]")  # the sentence's
    return shown(url) + found[0][len(url) :]


def unsigned(uri: str) -> str:
    """What a URL names, whoever asks for it: without user part and `SIGNING`. Other values stay; it is for hashing."""
    if is_local(uri) or ("@" not in uri and "?" not in uri):
        return uri
    return "".join(map(_without_signature, _CHAINED.split(uri)))


def is_shortened(uri: str) -> bool:
    """Whether something is left out of a name, so that nothing can be opened by it."""
    return not is_local(uri) and any(f"{before}{HIDDEN}" in uri for before in ("//", "=", "#"))


def is_ambiguous(uri: str) -> bool:
    """Whether other addresses may have the same `shown` name."""
    return not is_local(uri) and not is_shortened(uri) and unsigned(shown(uri)) != unsigned(uri)


def secret_words(uri: str) -> set[str]:
    """What `shown` leaves out of a URL, as far as it is long enough to be found in a text."""
    words: set[str] = set()
    for url in _CHAINED.split(uri) if not is_local(uri) else ():
        _, user, _, _, query, fragment = _split(url)
        name, _, password = user.partition(":")
        values = [field.partition("=")[2] for field in query.split("&")]
        long = {word for word in (name, *values, fragment) if len(word) >= _FOUND}
        words |= long | ({password} if len(password) >= _FOUND_PASSWORD else set())
    return words | {unquote(word) for word in words}


_FOUND, _FOUND_PASSWORD = 8, 4  # characters


def _split(url: str) -> tuple[str, str, str, str, str, str]:
    """Scheme, user part, host, path with its slash, query, fragment; no user part where it names a place."""
    scheme, _, rest = url.partition("://")
    place, _, fragment = rest.partition("#")
    place, _, query = place.partition("?")
    host, slash, path = place.partition("/")
    if "@" in rest and "@" not in host and not _HOST.fullmatch(host):
        user, _, there = rest.rpartition("@")  # a slash, question mark or sharp in the password
        if user and scheme.lower() not in _PLACES:
            return scheme, user, *_split(f"{scheme}://{there}")[2:]
    user, _, there = host.rpartition("@")
    if scheme.lower() in _PLACES:
        user, there = "", host
    return scheme, user, there, slash + path, query, fragment


def _without_keys(url: str) -> str:
    scheme, user, host, path, query, fragment = _split(url)
    fields = (name + (equals and equals + HIDDEN) for name, equals, _ in (f.partition("=") for f in query.split("&")))
    asked = "?" + "&".join(fields) if query or url.endswith("?") else ""
    return f"{scheme}://{user and HIDDEN + '@'}{host}{path}{asked}{'#' + HIDDEN if fragment else ''}"


def _without_signature(url: str) -> str:
    scheme, user, host, path, query, fragment = _split(url)
    fields = query.split("&")
    names = {field.partition("=")[0].lower() for field in fields}
    signing = SIGNING.union(*(more for name, more in _WITH.items() if name in names))
    left = [field for field in fields if not _signs(field.partition("=")[0].lower(), signing)]
    if not user and left == fields:
        return url
    return f"{scheme}://{host}{path}{'?' if query and left else ''}{'&'.join(left)}{fragment and '#'}{fragment}"


def _signs(name: str, signing: frozenset[str]) -> bool:
    return name in signing or name.startswith(_SIGNING_BEGINS)


def file_name(uri: str) -> str:
    """The last part of a file's name, for people."""
    if is_local(uri):
        return printable(local_path(uri).rpartition("/")[2])
    path, question, query = shown(uri).partition("?")
    return printable(f"{path.rpartition('/')[2]}{question}{query}")


def printable(text: str) -> str:
    """Text that may be printed anywhere: what is not printable comes as an escape, bytes of no UTF-8 as `\\xe9`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\u3000" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte, as `surrogateescape` has it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()

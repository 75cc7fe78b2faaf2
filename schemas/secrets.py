"""What never leaves this process as text: keys in addresses, and credentials of its environment.

Addresses are shown as `schemas.uris.shown` has them. That alone is not enough, because libraries put what they were
given into their errors, whole or in parts, and tracebacks carry it on. So all text that goes to a terminal, a log or a
file of a run passes here once: `guard_output` is the seam of everything printed, `safe` of what is stored.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from pydantic_core import to_json

from visavis.schemas.uris import (
    HIDDEN,
    is_ambiguous,
    is_local,
    is_shortened,
    printable,
    secret_words,
    shown,
    shown_in,
    unsigned,
)

_SHORTEST = 8  # characters of a credential that is looked for
_CREDENTIAL = re.compile(
    r"(^|_)(TOKEN|SECRET|SECRETS|PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|KEY|KEY_ID|APIKEY|PAT|SAS|SIGNATURE|CREDENTIALS?"
    r"|CONNECTION_STRING|AUTH|COOKIE|JWT)(_|$)|(TOKEN|SECRET|PASSWORD|APIKEY|CREDENTIALS)$"
    r"|^AZURE_(?!.*(NAME|ACCOUNT|REGION|ENDPOINT|CLOUD|LOCATION)$)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[a-zA-Z][\w+.-]*://.*", re.DOTALL)
# What is left of an address where a client took its scheme off: `GET /v.mp4?sig=…`, `login of me:pass@host`.
_LOOSE_FIELD = re.compile(rf"([?&][\w.~%+-]{{1,80}}=)(?!{HIDDEN})[^\s&'\"<>]+")
_LOOSE_USER = re.compile(r"(?<![\w/.:@])[^\s/@:'\"]+:[^\s/@'\"]+@(?=\w)")
_NONE_FOR_ALL = frozenset(["PWD", "OLDPWD"])


def hidden(text: str, addresses: Iterable[str] = ()) -> str:
    """A text without keys: those of URLs in it, of the environment, and of these addresses wherever they turn up."""
    text = shown_in(text)
    if "=" in text:
        text = _LOOSE_FIELD.sub(rf"\1{HIDDEN}", text)
    if "@" in text:
        text = _LOOSE_USER.sub(f"{HIDDEN}@", text)
    words = _environment().union(*map(secret_words, addresses))
    for word in sorted((word for word in words if word in text), key=len, reverse=True):
        text = text.replace(word, HIDDEN)
    return text


def safe(text: str, addresses: Iterable[str] = ()) -> str:
    """A text that may be stored and printed anywhere: `hidden`, and each of its lines `printable`."""
    return "\n".join(map(printable, hidden(text, addresses).expandtabs(4).split("\n")))


def hidden_all(data: Any) -> Any:
    """Plain data with every text in it `hidden`."""
    return _each(data, hidden)


def safe_all(data: Any) -> Any:
    """Plain data with every text in it `safe`."""
    return _each(data, safe)


def written(data: Any) -> Any:
    """Settings as a run's folder keeps them: what tells two addresses apart stays, as a few digits of a hash.

    The same for an address that was signed anew, and for what is written already.
    """
    return _each(data, _written)


def texts_in(data: Any) -> Iterator[str]:
    """Every text in plain data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        yield from chain.from_iterable(map(texts_in, data.values()))
    elif isinstance(data, list | tuple):
        yield from chain.from_iterable(map(texts_in, data))


def without_signatures(data: Any) -> Any:
    """Plain data with every address `unsigned`, for hashing."""
    return _each(data, unsigned)


def hashable(data: Any) -> bytes:
    """Plain data as JSON, for hashing: `without_signatures`, which is looked for only where there may be some."""
    plain = to_json(data)
    return to_json(without_signatures(data)) if b"?" in plain or b"@" in plain else plain


def _written(text: str) -> str:
    if is_local(text) or is_shortened(text):
        return text
    mark = f" ({sha256(unsigned(text).encode()).hexdigest()[:8]})" if is_ambiguous(text) else ""
    return shown(text) + mark


def _each(data: Any, change: Callable[[str], str]) -> Any:
    if isinstance(data, str):
        return change(data)
    if isinstance(data, dict):
        return {name: _each(value, change) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_each(value, change) for value in data]
    return data


def _environment() -> set[str]:
    """Values of variables that are credentials by their names, and keys of the addresses in others (proxies)."""
    return set().union(*(_words_of(name, value) for name, value in os.environ.items()))


@lru_cache(maxsize=1024)
def _words_of(name: str, value: str) -> frozenset[str]:
    if "://" in value:
        return frozenset(secret_words(value))
    if len(value) < _SHORTEST or name in _NONE_FOR_ALL or not _CREDENTIAL.search(name) or _is_file(value):
        return frozenset()
    return frozenset([value, quote(value, safe="")])


def _is_file(value: str) -> bool:
    """A variable that says where a credential lies is none."""
    return value.startswith(("/", "~")) and Path(value).expanduser().exists()


# ---- all that is printed ----


class _Guarded(io.TextIOWrapper):
    """A stream that writes what is `hidden`. Colours of a terminal pass."""

    addresses: tuple[str, ...] = ()

    def write(self, text: str) -> int:
        super().write(hidden(text, self.addresses))
        return len(text)

    def close(self) -> None:
        """The stream below is not this one's to close."""
        self.flush()


def guard_output(arguments: Iterable[str] = ()) -> None:
    """From here on nothing that this process prints, logs or raises shows a key.

    Args:
        arguments: of the command line, whose addresses are found in other words, too.
    """
    known = tuple(found[0] for argument in arguments if (found := _ADDRESS.search(argument)))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, _Guarded):
            stream.flush()
            guarded = _Guarded(
                stream.buffer,
                encoding=stream.encoding,
                errors="backslashreplace",  # a terminal of another alphabet is no reason to fail
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, guarded)
            stream = guarded
        if isinstance(stream, _Guarded):
            stream.addresses = known
    _guard_logs()
    sys.excepthook = _report


def _guard_logs() -> None:
    make = logging.getLogRecordFactory()
    if getattr(make, "guarded", False):
        return

    def safe_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            record.msg, record.args = safe(record.getMessage()), ()
        except (TypeError, ValueError):  # a message that its arguments do not fit: logging reports it
            return record
        if record.exc_info and record.exc_info[0]:
            record.exc_text = safe("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return record

    safe_record.guarded = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(safe_record)


def _report(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """What Python prints of a bug."""
    sys.stderr.write(safe("".join(traceback.format_exception(kind, error, where))))

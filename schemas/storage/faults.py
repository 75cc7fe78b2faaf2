"""Whose fault it is when a store, a file or a network fails: the data's, the machine's, or the user's.

One place decides it, from the cause and not from the class of the exception: fsspec's HTTP client says
FileNotFoundError whether a file is absent, the server away or the name unknown; s3fs puts the server's answer into
`__cause__`. The rest of the program sees an `OSError` with the number, a reason in a few words and the file's name.

    data      the file is not there (404, 410, ENOENT), or is none           the item is rejected
    machine   away, slow, forbidden, full, broken off                        the item failed, and is tried again
    user      no such bucket, no credentials, package not installed          wrong use

The trade-off: what nobody told us about is the machine's, so an unknown error costs a try too many, never an item.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from visavis.schemas.access import Refused

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

WAITS = (2.0, 10.0, 30.0)
"""Seconds before each further try, where a whole command needs the file: a run's folder, a dataset, a model."""
ITEM_WAITS = (0.5, 2.0, 5.0)
"""The same for one file of many: others wait for the worker, and a run tries a failed item again anyway."""
ITEM_SECONDS = 30.0
"""After so long one file of many is not tried again."""
_LONGEST_WAIT = 30.0  # seconds that a server may ask for by Retry-After
_AWAY_S = 60.0  # for so long nobody waits again for a server that was away all the time


class Blame(StrEnum):
    DATA = "data"
    MACHINE = "machine"
    USER = "user"


@dataclass(frozen=True)
class Fault:
    """number: the errno that says the same. again: a further try may help. away: that of any file there would fail."""

    blame: Blame
    number: int
    why: str
    again: bool = False
    away: bool = False


def fault_of(error: BaseException) -> Fault | None:
    """What went wrong, by the most telling of the error and its causes. None: not an error of files or networks."""
    if not (isinstance(error, OSError | MemoryError) or _told_by_network(error)):
        return None
    chain = list(_causes(error))
    for told in (_told_by_us, _told_by_network, _numbered, _by_class):
        for cause in chain:
            if (fault := told(cause)) is not None:
                return fault
    return None


def blame_of(error: BaseException) -> Blame:
    """Whose fault it is; the machine's where nobody says."""
    fault = fault_of(error)
    return fault.blame if fault else Blame.MACHINE


def as_os_error(error: BaseException, name: str) -> OSError | None:
    """The same as an OSError that names the file; None where it is not an error of files or networks."""
    if isinstance(error, OSError) and error.filename is not None and (error.errno or 0) > 0:
        return error
    fault = fault_of(error)
    return OSError(fault.number, fault.why, name) if fault else None


@contextmanager
def about(name: object) -> Iterator[None]:
    """Whatever a disk or a client library raises inside comes out as an OSError with this name and a reason."""
    try:
        yield
    except Exception as error:
        known = as_os_error(error, str(name))
        if known is None or known is error:
            raise
        raise known from error


def retried(act: Callable[[], T], name: str, *, of_item: bool = False) -> T:
    """What `act` returns, tried again as long as that may help.

    Args:
        name: path or URL, for messages.
        of_item: after ITEM_WAITS and within ITEM_SECONDS, without a word; else after WAITS, with a line each.

    Raises:
        OSError: with `errno`, `strerror` and `filename`; its cause is what the client library raised.
    """
    host, began = urlsplit(name).netloc if "://" in name else "", time.monotonic()
    for wait in (*(ITEM_WAITS if of_item else WAITS), None):
        try:
            return act()
        except Exception as error:
            fault, known = fault_of(error), as_os_error(error, name)
            if fault is None or known is None:
                raise
            late = of_item and time.monotonic() - began > ITEM_SECONDS
            if wait is None or late or not fault.again or time.monotonic() < _AWAY.get(host, 0.0):
                if fault.away and host:
                    _AWAY[host] = time.monotonic() + _AWAY_S
                if known is error:
                    raise
                raise known from error
            pause = max(wait, _retry_after(error))
        level = logging.DEBUG if of_item else logging.WARNING
        _LOG.log(level, "%s cannot be read (%s); trying again in %g s", name, fault.why, pause)
        time.sleep(pause)
    raise AssertionError("the last try returns or raises")


_AWAY: dict[str, float] = {}  # host → until when (monotonic)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from; what it was merely raised beside, where it says nothing itself."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        silent = isinstance(cause, OSError) and not cause.errno and not cause.__suppress_context__
        cause = cause.__cause__ or (cause.__context__ if silent else None)


def _told_by_us(error: BaseException) -> Fault | None:
    broken_off = _is(error, "aiohttp.http_exceptions", "PayloadEncodingError")
    if _is(error, "aiohttp.http_exceptions", "HttpProcessingError") and not broken_off:
        return Fault(Blame.DATA, errno.EINVAL, "what answers there is no web server", again=True)
    return Fault(Blame.DATA, errno.EPERM, str(error.strerror)) if isinstance(error, Refused) else None


def _told_by_network(error: BaseException) -> Fault | None:
    return _from_client(error) or _answered(error)


# ---- what a server answered ----

_BUSY_CODES = (
    "SlowDown",
    "Throttling",
    "RequestLimitExceeded",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
)
_PASSING = (408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524)


def _answered(error: BaseException) -> Fault | None:
    code, status, message = _botocore_answer(error)
    if code == "NoSuchBucket":
        return Fault(Blame.USER, errno.ENOENT, message)
    if any(code.startswith(busy) for busy in _BUSY_CODES):
        return Fault(Blame.MACHINE, errno.EBUSY, message, again=True)
    status = status or _http_status(error)
    if status == 404 and message:  # S3 says it in several ways
        message = os.strerror(errno.ENOENT)
    return _of_status(status, message or _phrase(status)) if status else None


def _of_status(status: int, why: str) -> Fault | None:
    if status in (404, 410):
        return Fault(Blame.DATA, errno.ENOENT, why)
    if status in (401, 403, 407):
        return Fault(Blame.MACHINE, errno.EACCES, why)
    if status in (409, 412):  # somebody else was faster
        return Fault(Blame.MACHINE, errno.EEXIST, why)
    if status == 501:
        return Fault(Blame.MACHINE, errno.ENOTSUP, why)
    if status in _PASSING:
        return Fault(Blame.MACHINE, errno.EBUSY if status in (429, 503) else errno.EREMOTEIO, why, again=True)
    return Fault(Blame.MACHINE, errno.EREMOTEIO, why) if status >= 300 else None


def _botocore_answer(error: BaseException) -> tuple[str, int, str]:
    """Code, HTTP status and message of an S3 server's answer."""
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return "", 0, ""
    told = answer.get("Error", {})
    code = str(told.get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or (int(code) if code.isdecimal() else 0)
    return code, status, str(told.get("Message") or code)


def _http_status(error: BaseException) -> int:
    """As aiohttp, gcsfs, Azure's, Google's and urllib's clients have it."""
    answer = getattr(error, "response", None)
    places = ((error, "status"), (error, "code"), (error, "status_code"), (answer, "status_code"), (answer, "status"))
    for where, name in places:
        value = getattr(where, name, None)
        value = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
        if 100 <= value < 600:
            return value
    return 0


def _phrase(status: int) -> str:
    name = f" {HTTPStatus(status).phrase}" if status in HTTPStatus._value2member_map_ else ""
    return f"the server answers {status}{name}"


def _retry_after(error: BaseException) -> float:
    """Seconds that the server asks to wait; 0 where it does not."""
    for cause in _causes(error):
        headers: Any = getattr(cause, "headers", None) or getattr(getattr(cause, "response", None), "headers", None)
        said = headers.get("Retry-After", "") if hasattr(headers, "get") else ""
        if said:
            return min(_LONGEST_WAIT, _seconds(str(said)))
    return 0.0


def _seconds(said: str) -> float:
    try:
        if said.isdecimal():
            return float(said)
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # not a date
        return 0.0


# ---- no answer: what the client says ----


def _is(error: BaseException, module: str, *names: str) -> bool:
    """Whether it is one of these classes of a package. If the package raised it, it is imported."""
    package: Any = sys.modules.get(module)
    classes = tuple(found for name in names if (found := getattr(package, name, None)) is not None)
    return isinstance(error, classes)


def _from_client(error: BaseException) -> Fault | None:
    why = _first_line(error)
    if _is(error, "aiohttp", "NonHttpUrlRedirectClientError", "InvalidUrlRedirectClientError"):
        return Fault(Blame.DATA, errno.EINVAL, "redirected to what is no address of the web, which is not followed")
    if _is(error, "aiohttp", "TooManyRedirects"):
        return Fault(Blame.DATA, errno.ELOOP, "redirected too often")
    if _is(error, "aiohttp", "InvalidURL"):
        return Fault(Blame.DATA, errno.EINVAL, f"not a URL ({why})")
    if _is(error, "aiohttp", "ClientConnectorCertificateError", "ClientSSLError") or _is(error, "ssl", "SSLError"):
        return Fault(Blame.MACHINE, errno.EPROTO, f"no secure connection ({why})")
    inner = getattr(error, "os_error", None) or error
    if isinstance(inner, socket.gaierror):
        return _unknown_host(inner)
    # fsspec's says nothing itself, and is raised from the one that happened; asyncio's from what it cancelled
    if isinstance(error, TimeoutError) and (str(error) or not isinstance(error.__cause__, Exception)):
        away = _is(error, "aiohttp", "ConnectionTimeoutError")
        return Fault(Blame.MACHINE, errno.ETIMEDOUT, f"no answer in time ({why})", again=True, away=away)
    if _is(error, "aiohttp", "ClientPayloadError"):
        return Fault(Blame.MACHINE, errno.EREMOTEIO, "the connection broke before the end", again=True)
    if _is(error, "aiohttp", "ClientConnectionError"):
        number = (isinstance(error, OSError) and error.errno) or errno.ECONNRESET
        return _of_errno(number, os.strerror(number))
    if _is(error, "aiohttp", "ClientError") and not _is(error, "aiohttp", "ClientResponseError"):
        return Fault(Blame.MACHINE, errno.EREMOTEIO, why, again=True)
    return _from_botocore(error, why) or _from_ftp(error, why) or _from_http_file(error)


def _unknown_host(error: socket.gaierror) -> Fault:
    passing = error.errno == socket.EAI_AGAIN
    return Fault(Blame.MACHINE, errno.EHOSTUNREACH, f"host not found ({error.strerror})", again=passing, away=True)


def _from_botocore(error: BaseException, why: str) -> Fault | None:
    names = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "NoRegionError")
    if _is(error, "botocore.exceptions", *names, "ParamValidationError"):
        return Fault(Blame.USER, errno.EACCES, why)
    if _is(error, "botocore.exceptions", "EndpointConnectionError", "ConnectTimeoutError"):
        return Fault(Blame.MACHINE, errno.EHOSTUNREACH, why, again=True, away=True)
    if _is(error, "botocore.exceptions", "BotoCoreError"):
        return Fault(Blame.MACHINE, errno.EREMOTEIO, why, again=True)
    return None


def _from_ftp(error: BaseException, why: str) -> Fault | None:
    if _is(error, "ftplib", "error_perm"):
        absent = why.startswith("550")
        return Fault(Blame.DATA if absent else Blame.MACHINE, errno.ENOENT if absent else errno.EACCES, why)
    if _is(error, "ftplib", "Error"):
        return Fault(Blame.MACHINE, errno.EREMOTEIO, why, again=True)
    return None


def _from_http_file(error: BaseException) -> Fault | None:
    """fsspec's ValueError for a server that gave parts of a file and then the whole one."""
    if isinstance(error, ValueError) and "support range requests" in str(error):
        return Fault(Blame.MACHINE, errno.EREMOTEIO, "the server stopped giving parts of the file", again=True)
    return None


# ---- the operating system ----

_ABSENT = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}
_UNREACHED = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_PASSING_NUMBERS = {
    *_UNREACHED,
    errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ECONNRESET,
    errno.ECONNABORTED, errno.EPIPE, errno.ENETRESET, errno.EREMOTEIO, errno.ENOTCONN,
}  # fmt: skip


def _numbered(error: BaseException) -> Fault | None:
    if isinstance(error, MemoryError):
        return Fault(Blame.MACHINE, errno.ENOMEM, os.strerror(errno.ENOMEM))
    number = error.errno if isinstance(error, OSError) else None
    if not number or number < 0:
        return None
    return _of_errno(number, (isinstance(error, OSError) and error.strerror) or os.strerror(number))


def _of_errno(number: int, why: str) -> Fault:
    if number in _ABSENT:
        return Fault(Blame.DATA, number, why)
    return Fault(Blame.MACHINE, number, why, again=number in _PASSING_NUMBERS, away=number in _UNREACHED)


def _by_class(error: BaseException) -> Fault | None:
    """fsspec's errors often have no number, and the path as their text."""
    if not isinstance(error, OSError):
        return None
    classes = {
        FileNotFoundError: errno.ENOENT,
        IsADirectoryError: errno.EISDIR,
        NotADirectoryError: errno.ENOTDIR,
        PermissionError: errno.EACCES,
        FileExistsError: errno.EEXIST,
        ConnectionError: errno.ECONNRESET,
    }
    number = next((number for kind, number in classes.items() if isinstance(error, kind)), 0)
    if number:
        return _of_errno(number, os.strerror(number))
    return Fault(Blame.MACHINE, errno.EIO, _first_line(error), again=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

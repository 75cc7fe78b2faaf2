"""Whose fault it is, by what many client libraries raise. With real servers: tests/stages/test_stores.py."""

from __future__ import annotations

import asyncio
import errno
import ftplib
import io
import urllib.error
from email.message import Message
from types import SimpleNamespace
from typing import Any

import botocore.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.schemas.storage import faults
from visavis.schemas.storage.faults import Blame, about, as_os_error, blame_of, fault_of, retried


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.__cause__ = cause
    return error


def s3(code: str, status: int) -> botocore.exceptions.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "GetObject")


def azure(status: int) -> Exception:
    error = OSError("from Azure")
    error.status_code = status  # type: ignore[attr-defined]
    return error


def gcs(code: int) -> Exception:
    error = OSError("from Google")
    error.code = code  # type: ignore[attr-defined]
    return error


def requests_like(status: int) -> Exception:
    error = OSError("from requests")
    error.response = SimpleNamespace(status_code=status, headers={})  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "blame", "again"),
    [
        (FileNotFoundError("http://x/y"), Blame.DATA, False),
        (raised(FileNotFoundError("k"), s3("NoSuchKey", 404)), Blame.DATA, False),
        (raised(FileNotFoundError("b"), s3("NoSuchBucket", 404)), Blame.USER, False),
        (raised(PermissionError("k"), s3("AccessDenied", 403)), Blame.MACHINE, False),
        (raised(OSError(errno.EBUSY, "slow"), s3("SlowDown", 503)), Blame.MACHINE, True),
        (raised(FileNotFoundError("k"), s3("InternalError", 500)), Blame.MACHINE, True),
        (botocore.exceptions.NoCredentialsError(), Blame.USER, False),
        (botocore.exceptions.ProfileNotFound(profile="p"), Blame.USER, False),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), Blame.MACHINE, True),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"), Blame.MACHINE, True),
        (azure(404), Blame.DATA, False),
        (azure(503), Blame.MACHINE, True),
        (gcs(403), Blame.MACHINE, False),
        (gcs(429), Blame.MACHINE, True),
        (requests_like(410), Blame.DATA, False),
        (requests_like(502), Blame.MACHINE, True),
        (urllib.error.HTTPError("http://x", 500, "no", Message(), io.BytesIO()), Blame.MACHINE, True),
        (ftplib.error_perm("550 no such file"), Blame.DATA, False),
        (ftplib.error_perm("530 log in first"), Blame.MACHINE, False),
        (ftplib.error_temp("421 too many users"), Blame.MACHINE, True),
        (TimeoutError(), Blame.MACHINE, True),
        (ConnectionResetError("by peer"), Blame.MACHINE, True),
        (MemoryError(), Blame.MACHINE, False),
        (OSError("no idea"), Blame.MACHINE, True),
    ],
    ids=repr,
)
def test_the_cause_decides(error: BaseException, blame: Blame, again: bool) -> None:
    fault = fault_of(error)
    assert fault is not None
    assert (fault.blame, fault.again) == (blame, again)
    known = as_os_error(error, "where")
    assert known is not None
    assert (known.filename, known.errno) == ("where", fault.number)
    if blame is not Blame.USER:  # an errno has no word for it; the cause keeps it
        assert blame_of(known) is blame


ABSENT = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}


@given(st.sampled_from(sorted(errno.errorcode)))
def test_of_the_systems_errors_few_are_the_datas(number: int) -> None:
    assert (blame_of(OSError(number, "why")) is Blame.DATA) == (number in ABSENT)


def test_a_timeout_is_one_whatever_it_was_raised_from() -> None:
    """asyncio's are raised from what they cancelled since Python 3.11.3."""
    of_asyncio = raised(TimeoutError(), asyncio.CancelledError())
    for error in (of_asyncio, raised(TimeoutError(), of_asyncio)):
        known = as_os_error(error, "where")
        assert known is not None
        assert known.errno == errno.ETIMEDOUT


def test_a_bug_is_no_fault_of_a_store() -> None:
    assert fault_of(ZeroDivisionError("a bug")) is None
    beside = KeyError("a bug while a missing file was dealt with")
    beside.__context__ = FileNotFoundError(errno.ENOENT, "no", "x")
    assert fault_of(beside) is None
    assert as_os_error(beside, "x") is None
    with pytest.raises(ZeroDivisionError):
        retried(lambda: 1 // 0, "x")


@pytest.mark.parametrize("of_item", [True, False])
def test_what_may_pass_is_tried_as_often_as_promised(monkeypatch: pytest.MonkeyPatch, of_item: bool) -> None:
    waits: list[float] = []
    monkeypatch.setattr(faults.time, "sleep", waits.append)

    def fails() -> None:
        raise OSError(errno.EIO, "bad")

    with pytest.raises(OSError, match="bad") as caught:
        retried(fails, "/x", of_item=of_item)
    assert caught.value.filename == "/x"
    assert tuple(waits) == (faults.ITEM_WAITS if of_item else faults.WAITS)


def test_an_error_gets_the_name_of_its_file() -> None:
    with pytest.raises(OSError, match="No space") as caught, about("/a/b"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == "/a/b"

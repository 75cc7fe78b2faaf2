"""What comes from strangers has one outcome, and addresses are shown without their keys."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.storage.files import open_path
from visavis.schemas.untrusted import TooLarge, bounded, parsing
from visavis.schemas.uris import shown, shown_in


def refuse(why: str) -> Rejected:
    return Rejected(Reason.UNREADABLE, f"clip.mp4: {why}")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MemoryError(), "claims more than fits into memory"),
        (RecursionError("maximum recursion depth exceeded"), "is nested too deeply"),
        (OverflowError("cannot convert\nfloat"), "cannot convert"),
        (RuntimeError("\x1b[2Jgone"), r"\\x1b\[2Jgone"),
        (TooLarge("5 bytes"), "5 bytes"),
        (OSError("no number, so a library's"), "no number"),
        (KeyError(), "KeyError"),
    ],
)
def test_whatever_a_parser_raises_is_the_one_refusal(error: Exception, why: str) -> None:
    with pytest.raises(Rejected, match=why), parsing(refuse):
        raise error


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken disk"), Rejected(Reason.NO_AUDIO), KeyboardInterrupt()])
def test_disks_and_refusals_on_purpose_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, parsing(refuse):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("offset", [-1, -(2**40), 2**80])
def test_a_place_that_no_file_has_is_the_bytes_fault(tmp_path: Path, offset: int) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    why = r"outside of the file|cannot fit"
    with open_path(str(tmp_path / "a")) as file, pytest.raises(Rejected, match=why), parsing(refuse):
        file.seek(offset)


def test_a_size_is_refused_before_it_is_allocated() -> None:
    bounded(10, 10, "bytes")
    with pytest.raises(TooLarge, match="16000000000 bytes of an array, at most 64 are read"):
        bounded(16e9, 64, "bytes of an array")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/a?b=c@d.mp4", "/data/a?b=c@d.mp4"),
        ("https://host/v.mp4", "https://host/v.mp4"),
        ("https://me:pass@host/v.mp4?sig=abc&x#t=1", "https://…@host/v.mp4?sig=…&x#…"),
        ("https://u:p/w@host/v.mp4", "https://…@host/v.mp4"),
        ("https://host:443/@me/v.mp4", "https://host:443/@me/v.mp4"),
        ("http://[::1]:80/v?k=1", "http://[::1]:80/v?k=…"),
        ("zip://a.mp4::https://u:p@h/z.zip?k=1", "zip://a.mp4::https://…@h/z.zip?k=…"),
    ],
)
def test_addresses_are_shown_without_their_keys(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(expected) == expected


def test_the_addresses_in_a_message_are_shown_so() -> None:
    said = "no https://u:p@h/v?k=1, nor 's3://k:s@b/x' in a?b=c"
    assert shown_in(said) == "no https://…@h/v?k=…, nor 's3://…@b/x' in a?b=c"


_word = st.text("abcXYZ019_-.~%", min_size=1)


@given(
    user=_word,
    password=_word,
    host=st.from_regex(r"[a-z]{1,9}(\.[a-z]{2,3})?", fullmatch=True),
    name=_word,
    value=_word,
)
def test_no_key_of_any_url_is_shown(user: str, password: str, host: str, name: str, value: str) -> None:
    url = f"https://{user}KEY:{password}KEY@{host}/v.mp4?{name}={value}KEY&{name}={value}KEY#KEY"
    assert "KEY" not in shown(url)
    assert "KEY" not in shown_in(f"cannot read {url}, it says: <{url}>")

"""Whatever bytes come over the socket: a message, or one kind of refusal."""

from __future__ import annotations

import math
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.sitter import jpeg
from visavis.pipeline.live.messages import HEADER, MOST_BYTES, Malformed, pack_block, parse_message

PICTURE, SOUND, PING, SPEAK = 1, 2, 3, 4


def message(kind: int, time: float = 40.0, payload: bytes = b"", number: int = 7) -> bytes:
    return HEADER.pack(kind, 0, 0, number, time) + payload


def test_what_the_page_sends_comes_out_as_it_went_in() -> None:
    picture = parse_message(message(PICTURE, 1234.5, jpeg(90)))
    assert (picture.kind, picture.number, picture.time, picture.payload) == ("picture", 7, 1234.5, jpeg(90))
    sound = parse_message(message(SOUND, 0.0, struct.pack("<3h", 0, 32767, -32768)))
    np.testing.assert_allclose(sound.samples(), [0, 1, -1], atol=1e-4)
    assert parse_message(message(PING)).kind == "ping"
    assert parse_message(message(SPEAK)).kind == "speak"


@given(st.binary(max_size=200) | st.builds(message, st.integers(0, 255), st.floats(), st.binary(max_size=200)))
def test_any_bytes_are_a_message_within_bounds_or_malformed(data: bytes) -> None:
    try:
        found = parse_message(data)
    except Malformed:
        return
    assert math.isfinite(found.time)
    assert found.time >= 0
    if found.kind == "sound":
        assert np.abs(found.samples()).max() <= 1


@given(st.data())
def test_a_jpeg_that_was_changed_anywhere_is_decodable_or_refused(data: st.DataObject) -> None:
    whole = bytearray(message(PICTURE, 5.0, jpeg(128)))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for one in (bytes(whole), cut):
        try:
            parse_message(one)
        except Malformed:
            continue


def test_a_progressive_jpeg_is_refused() -> None:
    """Of 8 kB with two hundred scans a decoder makes a quarter of a second, of half a megabyte half a minute."""
    done, data = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    with pytest.raises(Malformed, match="baseline"):
        parse_message(message(PICTURE, 5.0, data.tobytes()))


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf, -1.0, 1e300])
def test_a_time_that_is_none_is_refused(time: float) -> None:
    with pytest.raises(Malformed, match="time"):
        parse_message(message(PING, time))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "header"),
        (message(9), "protocol"),
        (b"\1\1" + message(PICTURE, 1, jpeg(3))[2:], "protocol"),
        (message(PICTURE, 1, jpeg(90)[:-9]), "whole JPEG"),
        (message(PICTURE, 1, b"GIF89a"), "whole JPEG"),
        (message(PICTURE, 1, jpeg(90, (4000, 8))), "4000"),
        (message(SOUND, 1, b"abc"), "sound"),
        (message(SOUND, 1, b""), "sound"),
        (message(SOUND, 1, bytes(40_000)), "sound"),
        (message(PING, 1, b"x"), "ping"),
        (message(PICTURE, 1, bytes(MOST_BYTES)), "long"),
    ],
)
def test_what_no_page_of_ours_sends_is_refused_and_named(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        parse_message(data)


def test_a_second_size_in_a_picture_is_refused() -> None:
    """The decoder might believe that one."""
    data = jpeg(90)
    at = data.index(b"\xff\xc0")
    length = 2 + struct.unpack_from(">H", data, at + 2)[0]
    huge = bytearray(data[at : at + length])
    struct.pack_into(">HH", huge, 5, 60_000, 60_000)
    with pytest.raises(Malformed, match="one size"):
        parse_message(message(PICTURE, 1, data[:at] + bytes(huge) + data[at:]))


def test_a_block_is_laid_out_so_that_a_page_reads_its_numbers_in_place() -> None:
    packed = pack_block(20, 812.5, [1, 2, 3, 4, 5], -1280, 10, np.ones((10, 7), np.float32))
    assert HEADER.unpack_from(packed) == (1, 0, 10, 20, 812.5)
    assert struct.unpack_from("<5dii", packed, 16) == (1, 2, 3, 4, 5, -1280, 10)
    assert len(packed) == 64 + 4 * 70  # the motion begins at a multiple of four

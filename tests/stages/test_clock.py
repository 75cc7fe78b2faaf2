"""One clock: a flash and a beep of the same moment lie within a frame of each other, wherever and however stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.scale import NIGHTLY, some
from tests.stages.clapper import ffmpeg, seen_and_heard, write_clapper
from tests.stages.test_ingest import ingest, reason_of
from visavis.schemas.errors import Reason, Rejected
from visavis.stages.media.audio import read_audio
from visavis.stages.media.video import display_size, frames_on_grid

EVENTS = (0.4, 6.0, 11.5)  # start, middle and end
FRAMES = 300
PRIMING = 1024 / 48_000  # seconds that an AAC encoder puts before the sound; MPEG-TS and FLV begin with them

FORMS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mkv": {"audio": "libopus"},
    "webm": {"video": "libvpx", "audio": "libopus", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mov": {"audio": "pcm_s16le", "rate": 44_100},
    "ts": {"audio": "mp2"},
}


def regular(fps: Fraction | float, start: float = 0.0, seconds: float = 12.0) -> list[float]:
    return [start + float(i / fps) for i in range(int(seconds * fps))]


def assert_one_clock(path: Path, events: Iterable[float], frames: int = FRAMES) -> None:
    """Flashes and beeps are all there, within ±1 grid frame of each other and of the truth."""
    seen, heard = seen_and_heard(path, frames)
    truth = [int(event * 25 + 1e-6) for event in events]
    assert len(seen) == len(heard) == len(truth), (seen, heard, truth)
    for flash, beep, true in zip(seen, heard, truth, strict=True):
        assert max(abs(flash - beep), abs(flash - true), abs(beep - true)) <= 1, (seen, heard, truth)


def assert_pieces_agree(path: Path, firsts: Sequence[int], length: int = 12) -> None:
    """A piece that begins anywhere shows what the whole shows."""
    whole = [rgb.mean() for _, rgb in frames_on_grid(str(path), 0, max(firsts) + length)]
    for first in firsts:
        piece = [rgb.mean() for _, rgb in frames_on_grid(str(path), first, first + length)]
        np.testing.assert_allclose(piece, whole[first : first + length], atol=3, err_msg=f"from {first}")


RATES = [
    (form, fps)
    for i, form in enumerate(FORMS)
    for j, fps in enumerate((Fraction(24_000, 1001), 25, Fraction(30_000, 1001), 50, Fraction(60_000, 1001), 120))
    if NIGHTLY or (i + j) % 3 == 0
]
"""Each container with two rates and each rate with one or two containers; nightly, all of them."""


@pytest.mark.slow
@pytest.mark.parametrize(("form", "fps"), RATES, ids=lambda value: f"{value}")
def test_every_frame_rate_in_every_container(tmp_path: Path, form: str, fps: Fraction | float) -> None:
    start = 1.0 if form == "ts" else 0.0
    events = [start + event for event in EVENTS]
    clip = write_clapper(tmp_path / f"clip.{form}", events, regular(fps, start=start), **FORMS[form])
    assert_one_clock(clip, EVENTS)


@pytest.mark.slow
@settings(
    max_examples=500 if NIGHTLY else 10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(steps=[0.005, 0.07, 1 / 60], form="mp4", start=7.3, late=-0.6)
@given(
    steps=st.lists(st.sampled_from([0.005, 1 / 60, 1 / 30, 0.04, 0.07, 0.1]), min_size=1, max_size=40),
    form=st.sampled_from(["mp4", "mkv", "webm"]),
    start=st.sampled_from([0.0, 7.3]),
    late=st.sampled_from([-0.6, 0.0, 0.3]),
)
def test_variable_rates_and_offsets(tmp_path: Path, steps: list[float], form: str, start: float, late: float) -> None:
    lasts = np.cumsum(np.tile(steps, math.ceil(4 / sum(steps))))
    times = [start, *(start + lasts).tolist()]
    begin = max(0.0, start + late)
    # In mp4 an edit list cuts the priming off at time 0, and nowhere else: there the file begins with it.
    origin = min(start, begin - PRIMING if form == "mp4" and begin else begin)
    events = [min(t for t in times if t >= start + place) for place in (0.5, 2.0, 3.5)]
    clip = write_clapper(tmp_path / f"clip.{form}", events, times, sound=(begin, times[-1]), **FORMS[form])
    assert_one_clock(clip, [event - origin for event in events], frames=int((times[-1] - origin) * 25))
    assert_pieces_agree(clip, [1, 47, 80])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("late", [0.7, -0.7])
def test_sound_that_begins_late_or_early(tmp_path: Path, form: str, late: float) -> None:
    events = [6.4, 11.0, 15.5]
    sound = (5 + late, 17 + late)
    clip = write_clapper(tmp_path / f"clip.{form}", events, regular(25, start=5), sound=sound, **FORMS[form])
    assert_one_clock(clip, [event - min(5, 5 + late) for event in events], frames=320)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clapper(tmp_path_factory.mktemp("clock") / "plain.mp4", EVENTS, regular(25))


@pytest.mark.parametrize("start", [1.3, 3.0, 5.02])
@pytest.mark.parametrize("form", ["mp4", "mov"])
def test_an_edit_list_hides_what_was_cut_away(plain: Path, tmp_path: Path, form: str, start: float) -> None:
    ffmpeg("-ss", f"{start}", "-i", plain, "-c", "copy", clip := tmp_path / f"cut.{form}")
    assert_one_clock(clip, [event - start for event in EVENTS if event > start], frames=round((12 - start) * 25))
    assert_pieces_agree(clip, [2, 90, 130])


@pytest.mark.parametrize("shift", [0.5, -0.5])
@pytest.mark.parametrize("form", ["mp4", "mov", "mkv", "ts"])
def test_sound_moved_against_the_picture_is_heard_where_it_was_moved(
    plain: Path, tmp_path: Path, form: str, shift: float
) -> None:
    clip = tmp_path / f"moved.{form}"
    ffmpeg("-i", plain, "-itsoffset", f"{shift}", "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", clip)
    seen, heard = seen_and_heard(clip, 320)
    moved = np.array(heard[-2:]) - seen[-2:]  # an edit list may hide the first beep
    assert np.abs(moved - shift * 25).max() <= 1.5


@pytest.mark.parametrize("form", ["mkv", "mp4", "ts", "flv"])
def test_a_recording_may_begin_at_any_time_stamp(plain: Path, tmp_path: Path, form: str) -> None:
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", "3600", clip := tmp_path / f"clip.{form}")
    assert_one_clock(clip, [event + (0 if form == "mkv" else PRIMING) for event in EVENTS])
    assert_pieces_agree(clip, [3, 145, 280])


@pytest.mark.parametrize("before", [6.5, 1.4])
def test_the_clock_of_a_broadcast_wraps(plain: Path, tmp_path: Path, before: float) -> None:
    wrap = 2**33 / 90_000
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", f"{wrap - before}", clip := tmp_path / "wrap.ts")
    assert_one_clock(clip, [event + PRIMING for event in EVENTS])
    assert_pieces_agree(clip, [3, 145, 280])
    assert ingest(clip).frames == FRAMES


def test_time_stamps_that_jump_back_are_rejected_and_a_jump_ahead_is_a_gap(plain: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "first.ts", tmp_path / "later.ts"]
    for part, offset in zip(parts, (10, 50), strict=True):
        ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", f"{offset}", part)
    first, later = (part.read_bytes() for part in parts)
    (tmp_path / "twice.ts").write_bytes(first + first)
    assert reason_of(tmp_path / "twice.ts") is Reason.UNREADABLE
    (gap := tmp_path / "gap.ts").write_bytes(first + later)
    assert ingest(gap).frames == pytest.approx(52 * 25, abs=2)
    assert_one_clock(gap, [offset + event + PRIMING for offset in (0, 40) for event in EVENTS], frames=52 * 25)


@pytest.mark.slow
@pytest.mark.parametrize(("drift", "form"), some(product([1.001, 0.999], ["mp4", "mkv", "ts"]), of=2))
def test_sound_that_drifts_is_put_where_its_time_stamps_say(tmp_path: Path, form: str, drift: float) -> None:
    """44,100 Hz as if 44,056 were meant: after two and a half minutes it would be four frames off."""
    events = [0.6, 75.0, 149.0]
    audio = {"mp4": "aac", "mkv": "flac", "ts": "mp2"}[form]
    times = regular(5, start=1.0 if form == "ts" else 0.0, seconds=150)
    clip = write_clapper(
        tmp_path / f"drift.{form}", [times[0] + e for e in events], times, audio=audio, rate=44_100, drift=drift
    )
    assert_one_clock(clip, events, frames=3750)


@pytest.mark.parametrize(("form", "codec"), [("avi", "mpeg4"), ("mpg", "mpeg2video")])
def test_containers_that_count_pictures(plain: Path, tmp_path: Path, form: str, codec: str) -> None:
    """AVI stores a dropped picture as an empty packet, and neither says what time it is after a seek."""
    drop = ("-vf", "select='lt(mod(n,7),5)'", "-fps_mode", "vfr") if form == "avi" else ()
    ffmpeg("-i", plain, *drop, "-c:v", codec, "-g", "30", "-c:a", "mp2", clip := tmp_path / f"clip.{form}")
    assert_one_clock(clip, EVENTS)
    assert_pieces_agree(clip, range(3, 288, 15))
    assert ingest(clip).frames == pytest.approx(FRAMES, abs=2)


def test_a_picture_stored_as_the_same_once_more(plain: Path, tmp_path: Path) -> None:
    ffmpeg("-i", plain, "-c:v", "libtheora", "-c:a", "libvorbis", clip := tmp_path / "clip.ogv")
    with av.open(str(clip)) as file:
        assert sum(packet.size == 0 and packet.pts is not None for packet in file.demux(video=0)) > 100
    assert_one_clock(clip, EVENTS)
    assert ingest(clip).frames == FRAMES


@pytest.mark.parametrize("form", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    "coding",
    [
        {"x264-params": "open-gop=1:bframes=4:b-pyramid=normal"},
        {"x264-params": "intra-refresh=1"},
        {"x264-params": "keyint=infinite"},
    ],
    ids=["open", "refresh", "one-key"],
)
def test_pieces_agree_however_pictures_hang_together(tmp_path: Path, form: str, coding: dict[str, str]) -> None:
    start = 1.0 if form == "ts" else 0.0
    times = regular(30, start=start)
    clip = write_clapper(tmp_path / f"clip.{form}", [start + e for e in EVENTS], times, audio="mp2", options=coding)
    assert_one_clock(clip, EVENTS)
    assert_pieces_agree(clip, [1, 37, 149, 151, 287])


@pytest.mark.parametrize("form", ["mp4", "mkv"])
def test_the_largest_moving_picture_is_the_video(tmp_path: Path, form: str) -> None:
    streams = write_clapper(tmp_path / f"streams.{form}", EVENTS, regular(25), decoys=True)
    assert_one_clock(streams, EVENTS)
    cover, clip = tmp_path / "cover.jpg", tmp_path / f"cover.{form}"
    ffmpeg("-f", "lavfi", "-i", "color=white:s=640x480", "-frames:v", "1", cover)
    if form == "mp4":
        art = ("-i", cover, "-map", "1", "-map", "0", "-c", "copy", "-disposition:v:0", "attached_pic")
    else:
        art = ("-map", "0", "-c", "copy", "-attach", cover, "-metadata:s:t", "mimetype=image/jpeg")
    ffmpeg("-i", streams, *art, clip)
    assert display_size(str(clip)) == (96, 64)
    assert_one_clock(clip, EVENTS)


@pytest.mark.parametrize("form", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize(
    ("matrix", "size", "corner"),
    [
        (("-display_rotation", "0"), (96, 64), (0, 0)),
        (("-display_rotation", "90"), (64, 96), (1, 0)),  # counter-clockwise: the left is then below
        (("-display_rotation", "180"), (96, 64), (1, 1)),
        (("-display_rotation", "270"), (64, 96), (0, 1)),
        (("-display_hflip",), (96, 64), (0, 1)),
        (("-display_vflip",), (96, 64), (1, 0)),
        (("-display_hflip", "-display_rotation", "90"), (64, 96), (1, 1)),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) and isinstance(value[0], str) else None,
)
def test_pictures_are_turned_and_mirrored_as_displayed(
    tmp_path: Path, form: str, matrix: tuple[str, ...], size: tuple[int, int], corner: tuple[int, int]
) -> None:
    """A clip whose upper left is bright, as ffmpeg itself displays it, too."""
    mark = "color=black:s=96x64:r=25:d=0.4,drawbox=x=0:y=0:w=48:h=32:c=white:t=fill"
    ffmpeg("-f", "lavfi", "-i", mark, "-pix_fmt", "yuv420p", stored := tmp_path / "stored.mp4")
    ffmpeg(*matrix, "-i", stored, "-c", "copy", clip := tmp_path / f"clip.{form}")
    ffmpeg("-i", clip, "-frames:v", "1", displayed := tmp_path / "displayed.png")
    (_, rgb), *_ = frames_on_grid(str(clip), 0, 3)
    with av.open(str(displayed)) as file:
        reference = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert display_size(str(clip)) == size == rgb.shape[1::-1]
    np.testing.assert_allclose(rgb, reference, atol=12)
    quarters = rgb.mean(axis=2).reshape(2, size[1] // 2, 2, size[0] // 2).mean(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == corner


def test_pixels_need_not_be_square(tmp_path: Path) -> None:
    for form in ("mp4", "mkv"):
        clip = write_clapper(tmp_path / f"wide.{form}", EVENTS, regular(25), aspect=Fraction(4, 3))
        assert display_size(str(clip)) == (128, 64)
        assert_one_clock(clip, EVENTS)


def test_a_call_changes_its_resolution(tmp_path: Path) -> None:
    """As WebRTC does when the network is slow: one stream, pictures of several sizes."""
    clip = tmp_path / "call.webm"
    with av.open(str(clip), "w") as file:
        stream = file.add_stream("libvpx", rate=25, options={"deadline": "realtime", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for part, size in enumerate([(96, 64), (48, 32), (96, 64)]):
            encoder = av.CodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
            encoder.time_base, encoder.options = Fraction(1, 1000), {"deadline": "realtime", "cpu-used": "8"}
            packets = []
            for i in range(25):
                picture = np.full((size[1], size[0], 3), 60 + 60 * part, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = 40 * (25 * part + i), Fraction(1, 1000)
                packets += encoder.encode(frame)
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream = stream
                file.mux(packet)
    pictures = [rgb for _, rgb in frames_on_grid(str(clip), 0, 75)]
    assert [round(rgb.mean() / 60) for rgb in pictures] == [1] * 25 + [2] * 25 + [3] * 25
    assert_pieces_agree(clip, [30, 55])


def test_sound_with_a_broken_packet_keeps_its_time(plain: Path, tmp_path: Path) -> None:
    ffmpeg("-i", plain, "-c:v", "copy", "-c:a", "flac", whole := tmp_path / "whole.mkv")
    data = bytearray(whole.read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(data) // 4, len(data) * 3 // 4, 12):
        data[at] ^= 0x5A
    (broken := tmp_path / "broken.mkv").write_bytes(data)
    heard = [np.abs(read_audio(str(clip), FRAMES)).reshape(FRAMES, -1).max(axis=1) > 0.15 for clip in (whole, broken)]
    for begin in (5, 283):  # before and after what was damaged
        np.testing.assert_array_equal(*(on[begin : begin + 12] for on in heard))


def test_playlists_are_no_media(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "near.mp4").write_bytes(plain.read_bytes())
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile near.mp4\n")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nnear.mp4\n#EXT-X-ENDLIST\n")
    for name in ("list.mp4", "list.m3u8"):
        with pytest.raises(Rejected) as error:
            ingest(tmp_path / name)
        assert error.value.reason is Reason.UNREADABLE

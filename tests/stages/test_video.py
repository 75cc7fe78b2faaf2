"""Pictures on the grid: time stamps decide which picture is shown, whatever the file does."""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from tests.stages.clapper import ffmpeg
from visavis.schemas.errors import Reason, Rejected
from visavis.stages.media.video import display_size, frames_on_grid

DECODERS = ["pyav", "decord"]


def write_video(path: Path, times: list[float], *, size: tuple[int, int] = (64, 48), key_every: int = 12) -> list[int]:
    """A lossless file whose i-th picture, shown from times[i] on, has brightness 8 + 3 i; returns those."""
    shades = [8 + 3 * i for i in range(len(times))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"qp": "0", "g": str(key_every), "bf": "2"}
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for shade, time in zip(shades, times, strict=True):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane, value in zip(frame.planes, (shade, 128, 128), strict=True):
                plane.update(np.full(plane.buffer_size, value, np.uint8).tobytes())
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return shades


def shown(path: Path | str, first: int, last: int, decoder: str = "pyav") -> list[int]:
    """Which picture of `write_video` is on each grid frame."""
    frames = list(frames_on_grid(str(path), first, last, decoder=decoder))  # type: ignore[arg-type]
    assert [n for n, _ in frames] == list(range(first, last))
    luma = [float(rgb.mean()) * 219 / 255 + 16 for _, rgb in frames]
    return [round((max(y, 16) - 8) / 3) for y in luma]


def expected(times: list[float], first: int, last: int) -> list[int]:
    return [max([i for i, t in enumerate(times) if t <= (n + 0.5) / 25], default=0) for n in range(first, last)]


@pytest.mark.parametrize("decoder", DECODERS)
def test_variable_frame_rate_follows_the_time_stamps(tmp_path: Path, decoder: str) -> None:
    rng = np.random.default_rng(0)
    times = [0.0, *np.cumsum(rng.choice([0.01, 0.017, 0.04, 0.1, 0.7], 59)).round(3).tolist()]
    write_video(tmp_path / "vfr.mp4", times)
    last = int(times[-1] * 25) + 5  # beyond the end the last picture stays
    # The darkest three cannot be told apart once shown as RGB.
    seen, wanted = shown(tmp_path / "vfr.mp4", 0, last, decoder), expected(times, 0, last)
    assert [max(s, 3) for s in seen] == [max(w, 3) for w in wanted]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("fps", [24, 30, 60])
def test_a_piece_shows_what_the_whole_shows(tmp_path: Path, decoder: str, fps: int) -> None:
    times = [i / fps for i in range(75)]
    write_video(tmp_path / "clip.mp4", times)
    last = 75 * 25 // fps
    whole = shown(tmp_path / "clip.mp4", 0, last, decoder)
    for first in range(1, last, 7):
        assert shown(tmp_path / "clip.mp4", first, last, decoder) == whole[first:]


def test_media_time_starts_where_the_container_starts(tmp_path: Path) -> None:
    times = [3600 + i / 25 for i in range(30)]
    write_video(tmp_path / "late.mkv", times)
    assert shown(tmp_path / "late.mkv", 5, 30) == list(range(5, 30))


def test_a_file_that_was_cut_off_shows_what_is_left(tmp_path: Path) -> None:
    write_video(tmp_path / "whole.mkv", [i / 25 for i in range(75)])
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    seen = shown(tmp_path / "cut.mkv", 0, 75)
    assert seen[10:30] == list(range(10, 30))
    assert len(set(seen[-5:])) == 1
    assert seen[-1] < 74


@pytest.mark.slow
def test_memory_does_not_grow_with_the_span(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [i / 25 for i in range(80)], size=(1280, 720))
    frames = frames_on_grid(str(tmp_path / "clip.mp4"), 0, 80)
    gc.disable()  # a picture that waits for it is 1.4 MB, and it comes late: there are few objects
    try:
        for _ in range(20):
            next(frames)
        before = psutil.Process().memory_info().rss
        for _ in frames:
            pass
        assert psutil.Process().memory_info().rss - before < 20e6
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "name", ["two words.mp4", "-dash.mp4", 'it\'s "quoted".mp4', "größe 日本.mp4", "a%20b?c#d.mp4"]
)
def test_any_file_name_works(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / name, [i / 25 for i in range(5)])
    monkeypatch.chdir(tmp_path)
    for uri in (name, str(tmp_path / name), f"file://{tmp_path / name}"):
        for decoder in DECODERS:
            assert len(shown(uri, 0, 5, decoder)) == 5


def test_a_remote_file_reads_like_a_local_one(tmp_path: Path) -> None:
    import fsspec

    write_video(tmp_path / "clip.mp4", [i / 25 for i in range(30)])
    with fsspec.open("memory://clips/clip.mp4", "wb") as file:
        file.write((tmp_path / "clip.mp4").read_bytes())
    for decoder in DECODERS:
        assert shown("memory://clips/clip.mp4", 3, 30, decoder) == shown(tmp_path / "clip.mp4", 3, 30)


def test_pictures_can_be_scaled_down(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [0.0, 0.04], size=(200, 100))
    for decoder in DECODERS:
        frames = [rgb for _, rgb in frames_on_grid(str(tmp_path / "clip.mp4"), 0, 2, decoder=decoder, max_side=50)]  # type: ignore[arg-type]
        assert [f.shape for f in frames] == [(25, 50, 3)] * 2


@pytest.mark.parametrize("decoder", DECODERS)
def test_what_is_no_video_is_rejected(tmp_path: Path, decoder: str) -> None:
    (tmp_path / "text.mp4").write_text("this is not a video\n")
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "empty.mp4", "missing.mp4"):
        with pytest.raises(Rejected) as error:
            list(frames_on_grid(str(tmp_path / name), 0, 5, decoder=decoder))  # type: ignore[arg-type]
        assert error.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("decord_video_90.mov", (320, 568)),
        ("decord_video_180.mov", (568, 320)),
        ("mediabunny_rotate-buck-bunny.mp4", (1080, 1920)),
        ("autoeditor_SAR-2by3.mp4", (427, 360)),
        ("autoeditor_h264-mjpeg.mp4", (640, 360)),  # with cover art
        ("torchcodec_nasa_13013.mp4", (480, 270)),  # the larger of two
    ],
)
def test_pictures_come_as_displayed(shared_media: Path, decoder: str, name: str, size: tuple[int, int]) -> None:
    uri = str(shared_media / "awkward" / name)
    assert display_size(uri) == size
    frames = [rgb for _, rgb in frames_on_grid(uri, 0, 3, decoder=decoder)]  # type: ignore[arg-type]
    assert {f.shape for f in frames} == {(size[1], size[0], 3)}


def test_both_decoders_show_the_same(shared_media: Path) -> None:
    for name in ("awkward/decord_video_90.mov", "awkward/mediabunny_frag-buck-bunny.mp4"):
        uri = str(shared_media / name)
        last = 3 if name.endswith("mov") else 100
        pairs = zip(frames_on_grid(uri, 0, last), frames_on_grid(uri, 0, last, decoder="decord"), strict=True)
        for (_, one), (_, other) in pairs:
            assert np.abs(one.astype(int) - other).mean() < 3


@pytest.mark.parametrize(
    "name", ["decord_corrupted.mp4", "moviepy_no_duration.webm", "mediabunny_cursed-vfr.mp4", "decord_unordered.mov"]
)
def test_awkward_files_still_show_pictures(shared_media: Path, name: str) -> None:
    assert len(list(frames_on_grid(str(shared_media / "awkward" / name), 0, 25, max_side=320))) == 25


@pytest.mark.slow
def test_pieces_of_a_real_clip_agree(shared_media: Path) -> None:
    uri = str(shared_media / "conversation" / "two_in_frame.mp4")
    whole = {n: rgb.copy() for n, rgb in frames_on_grid(uri, 0, 213, max_side=320)}
    for first in (1, 77, 140, 205):
        for n, rgb in frames_on_grid(uri, first, min(213, first + 6), max_side=320):
            np.testing.assert_array_equal(rgb, whole[n])


@pytest.mark.parametrize("form", ["yuv420p", "yuvj420p", "yuv422p", "yuv420p10le"])
@pytest.mark.parametrize("colours", [1, 6])  # BT.709, BT.601
def test_a_picture_scaled_down_keeps_its_colours(tmp_path: Path, form: str, colours: int) -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 320), np.linspace(0, 1, 240))
    drawn = (np.stack([x, y, 1 - x], axis=2) * 200 + 25).astype(np.uint8)
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("ffv1" if "10" in form else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, form
        stream.codec_context.colorspace = colours
        frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
        container.mux(stream.encode(frame.reformat(format=form, dst_colorspace=colours)))
        container.mux(stream.encode(None))
    [(_, whole)], [(_, small)] = (
        list(frames_on_grid(str(tmp_path / "clip.mkv"), 0, 1, max_side=side)) for side in (None, 160)
    )
    assert small.shape == (120, 160, 3)
    pooled = whole.reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
    # FFmpeg's ways to RGB differ by up to three levels; another matrix or range is off by ten and more.
    assert np.abs(small - pooled).mean(axis=(0, 1)).max() < 4.0


def test_all_pictures_have_the_size_of_the_first_whatever_the_stream_does(tmp_path: Path) -> None:
    """As a call whose resolution follows the network, and whose phone is turned."""
    sizes = [(320, 240), (160, 120), (120, 160)]
    with av.open(str(tmp_path / "call.mkv"), "w") as file:
        stream = file.add_stream("libvpx", rate=25, width=320, height=240, pix_fmt="yuv420p")
        for part, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base = Fraction(1, 25)
            packets = []
            for i in range(25):
                picture = np.full((height, width, 3), 200, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = 25 * part + i, Fraction(1, 25)
                packets += encoder.encode(frame)
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream = stream
                packet.time_base = Fraction(1, 25)
                file.mux(packet)
    uri = str(tmp_path / "call.mkv")
    whole = [rgb.copy() for _, rgb in frames_on_grid(uri, 0, 75)]
    assert {rgb.shape for rgb in whole} == {(240, 320, 3)}
    assert min(whole[30].min(), whole[5].min()) > 150
    assert (whole[70][:, 160].min() > 150, whole[70][:, :60].max()) == (True, 0)  # upright, in a black frame
    for first in (10, 30, 60):
        for n, rgb in frames_on_grid(uri, first, first + 10):
            np.testing.assert_array_equal(rgb, whole[n])


def test_a_piece_knows_what_only_the_first_packet_says(tmp_path: Path) -> None:
    """Parameter sets that come once, at the start of a broadcast."""
    source, clip = tmp_path / "all.ts", tmp_path / "once.ts"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=8", "-c:v", "libx264", "-g", "25", source)
    seen: set[int] = set()
    with av.open(str(source)) as whole_file, av.open(str(clip), "w") as file:
        stream = file.add_stream("libx264", rate=25, width=96, height=64)
        for packet in whole_file.demux(video=0):
            if packet.pts is None:
                continue
            units = [unit.rstrip(b"\0") for unit in bytes(packet).split(b"\0\0\1")]
            kept = [unit for unit in units if unit and (unit[0] & 31 not in (6, 7, 8) or unit[0] & 31 not in seen)]
            seen.update(unit[0] & 31 for unit in kept)
            short = av.Packet(b"".join(b"\0\0\0\1" + unit for unit in kept))
            short.pts, short.dts, short.time_base = packet.pts, packet.dts, packet.time_base
            short.is_keyframe, short.stream = packet.is_keyframe, stream
            file.mux(short)
    assert clip.read_bytes().count(b"\0\0\1\x67") == 1
    whole = [rgb.copy() for _, rgb in frames_on_grid(str(clip), 0, 195)]
    for first in (40, 110, 180):
        for n, rgb in frames_on_grid(str(clip), first, first + 10):
            np.testing.assert_array_equal(rgb, whole[n])

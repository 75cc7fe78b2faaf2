"""Any container, codec and form that ffmpeg makes: taken in with the right length and clock, and in pieces as a whole.

`HYPOTHESIS_PROFILE=nightly` draws many more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import CalledProcessError

import numpy as np
import pytest
from hypothesis import HealthCheck, event, example, given, note, reject, settings
from hypothesis import strategies as st

from tests.scale import NIGHTLY
from tests.stages.clapper import ffmpeg, seen_and_heard
from tests.stages.test_awkward import take_in
from visavis.stages.media.video import frames_on_grid

pytestmark = pytest.mark.slow

SECONDS = 4
EVENTS = (0.8, 2.6)

H264, HEVC = ("libx264", "libx265")
FORMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mp4": ((H264, HEVC, "mpeg4", "libvpx-vp9"), ("aac", "libmp3lame", "ac3", "alac", "libopus", "flac")),
    "mov": ((H264, "prores_ks", "mjpeg", "qtrle"), ("pcm_s16be", "pcm_s24le", "pcm_f32le", "pcm_f64be", "aac")),
    "mkv": (
        (H264, HEVC, "libvpx", "libvpx-vp9", "mpeg2video", "mpeg4", "ffv1", "mjpeg", "libtheora", "huffyuv"),
        ("flac", "libvorbis", "libopus", "pcm_u8", "pcm_s32le", "pcm_s64le", "aac", "eac3", "wavpack", "tta"),
    ),
    "webm": (("libvpx", "libvpx-vp9"), ("libopus", "libvorbis")),
    "ts": ((H264, HEVC, "mpeg2video", "mpeg4"), ("mp2", "aac", "ac3", "libmp3lame", "libopus")),
    "m2ts": ((H264,), ("ac3", "pcm_bluray")),
    "avi": (("mpeg4", "mjpeg", "msmpeg4v2", "huffyuv"), ("pcm_s16le", "libmp3lame", "ac3")),
    "flv": ((H264, "flv"), ("aac", "libmp3lame")),
    "mpg": (("mpeg1video", "mpeg2video"), ("mp2", "ac3")),
    "ogv": (("libtheora",), ("libvorbis", "flac")),
    "wmv": (("wmv2", "msmpeg4v3"), ("wmav2",)),
    "nut": ((H264, "ffv1", "mpeg4"), ("pcm_f32le", "flac", "pcm_u8")),
}
PIXELS = {
    H264: ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray"),
    HEVC: ("yuv420p", "yuv420p10le", "yuv422p12le"),
    "ffv1": ("yuv420p", "gray", "yuva420p", "gbrp10le", "yuv410p"),
    "libvpx-vp9": ("yuv420p", "yuv444p", "yuva420p"),
}
OPTIONS = {
    H264: ("-preset", "veryfast"),
    HEVC: ("-preset", "ultrafast"),
    "libvpx": ("-deadline", "realtime", "-cpu-used", "8", "-auto-alt-ref", "1", "-lag-in-frames", "10"),
    "libvpx-vp9": ("-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "10"),
}
ANY_LAYOUT = {"flac", "wavpack", "alac", "libvorbis", "aac", "libopus"}
ONLY_RATES = {"ac3": 48_000, "eac3": 48_000, "libopus": 48_000, "pcm_bluray": 48_000}


@dataclass(frozen=True)
class Recording:
    """What to make."""

    form: str
    video: str
    audio: str
    fps: str = "25"
    group: int = 12
    between: int = 2
    gops: str = "closed"
    pixels: str = "yuv420p"
    size: tuple[int, int] = (96, 64)
    aspect: str = "1"
    rate: int = 48_000
    layout: str = "stereo"
    inverted: bool = False
    shift: float = 0.0
    dropped: bool = False
    offset: float = 0.0

    def write(self, path: Path) -> Path:
        on = "+".join(f"between(t,{at},{at + 0.12})" for at in EVENTS)
        shown = f"testsrc2=s={self.size[0]}x{self.size[1]}:r={self.fps}:d={SECONDS},lutyuv=y=val/4,setsar={self.aspect}"
        shown += f",drawbox=c=white:t=fill:enable='{on}'"
        if self.dropped:
            shown += ",select='gt(mod(n,7),1)+lt(n,2)'"
        beep = f"0.5*sin(2*PI*1000*t)*({on})+{self.offset}"
        channels = {"mono": 1, "stereo": 2, "2.1": 3, "quad": 4, "5.1": 6, "7.1": 8}[self.layout]
        each = "|".join(f"-({beep})" if self.inverted and i % 2 else beep for i in range(channels))
        heard = f"aevalsrc='{each}':c={self.layout}:s={self.rate}:d={SECONDS}"
        where = ("-output_ts_offset", f"{self.shift}") if self.shift else ()
        ffmpeg(
            *("-f", "lavfi", "-i", shown, "-f", "lavfi", "-i", heard, "-fps_mode", "vfr", "-strict", "-2"),
            *("-c:v", self.video, "-g", self.group, "-bf", self.between, "-pix_fmt", self.pixels),
            *OPTIONS.get(self.video, ()),
            *self._groups(),
            *("-c:a", self.audio, *where, "-threads", "1", path),
        )
        return path

    def _groups(self) -> tuple[str, ...]:
        if self.video == H264:
            extra = {"open": "open-gop=1", "closed": "open-gop=0", "refresh": "intra-refresh=1"}[self.gops]
            return "-x264-params", f"{extra}:keyint={self.group}:min-keyint=1"
        if self.video == HEVC:
            opened = int(self.gops == "open")
            return "-x265-params", f"open-gop={opened}:keyint={self.group}:min-keyint=1:log-level=none:pools=1"
        return ("-flags", "+cgop", "-sc_threshold", "1000000000") if self.gops == "closed" and self._mpeg() else ()

    def _mpeg(self) -> bool:
        return self.video in ("mpeg1video", "mpeg2video", "mpeg4")

    def possible(self) -> Recording:
        """The nearest one that the encoder and the container allow."""
        changes: dict[str, object] = {"rate": ONLY_RATES.get(self.audio, self.rate)}
        if not (self._mpeg() or self.video in (H264, HEVC)) or (self.form == "avi" and self.video == H264):
            changes["between"] = 0
        if self.gops == "refresh":
            changes["between"] = 0
        if self.audio not in ANY_LAYOUT and not self.audio.startswith("pcm"):
            changes["layout"] = "stereo" if self.layout not in ("mono", "stereo") else self.layout
        if self.audio == "pcm_bluray":
            changes["layout"] = "stereo"
        if self.audio == "alac" and self.layout in ("2.1", "quad", "7.1"):
            changes["layout"] = "5.1"
        if self.audio == "libopus" and self.layout == "2.1":
            changes["layout"] = "stereo"
        if self.audio == "aac" and self.layout in ("2.1", "quad"):
            changes["layout"] = "stereo"
        if self._mpeg() or self.video in ("flv", "wmv2", "msmpeg4v2", "msmpeg4v3"):
            changes["fps"] = self.fps if self.fps in ("25", "30", "30000/1001", "50") else "25"
        if self.form in ("avi", "mpg", "ogv", "wmv"):
            changes["shift"] = 0.0
        if self.form in ("avi", "mpg", "wmv", "flv", "m2ts") or self._mpeg():
            changes["dropped"] = False
        if self.form in ("mpg", "flv", "wmv", "ts") or self.audio in ("libmp3lame", "mp2", "wmav2", "aac"):
            changes["rate"] = 44_100 if self.rate not in (44_100, 48_000) else self.rate
        changes["rate"] = ONLY_RATES.get(self.audio, changes["rate"])
        pixels = PIXELS.get(self.video, ())
        own = {"prores_ks": "yuv422p10le", "mjpeg": "yuvj420p", "qtrle": "rgb24", "huffyuv": "yuv422p"}
        changes["pixels"] = self.pixels if self.pixels in pixels else own.get(self.video, "yuv420p")
        return replace(self, **changes)  # type: ignore[arg-type]


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    form = draw(st.sampled_from(sorted(FORMS)))
    video, audio = (draw(st.sampled_from(codecs)) for codecs in FORMS[form])
    return Recording(
        form=form,
        video=video,
        audio=audio,
        fps=draw(st.sampled_from(["25", "30000/1001", "24", "15", "50", "60", "30"])),
        group=draw(st.sampled_from([1, 2, 5, 12, 30, 250])),
        between=draw(st.integers(0, 3)),
        gops=draw(st.sampled_from(["closed", "open", "refresh"])),
        pixels=draw(st.sampled_from(sorted({p for many in PIXELS.values() for p in many}))),
        size=draw(st.sampled_from([(96, 64), (64, 96), (128, 48), (176, 144)])),
        aspect=draw(st.sampled_from(["1", "1", "4/3", "16/11"])),
        rate=draw(st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000, 96_000])),
        layout=draw(st.sampled_from(["mono", "stereo", "2.1", "quad", "5.1", "7.1"])),
        inverted=draw(st.booleans()),
        shift=draw(st.sampled_from([0.0, 0.0, 1.5, 1000.0])),
        dropped=draw(st.booleans()),
        offset=draw(st.sampled_from([0.0, 0.0, 0.05])),
    ).possible()


def assert_pieces_are_parts_of_the_whole(path: Path, frames: int) -> None:
    whole = [rgb.copy() for _, rgb in frames_on_grid(str(path), 0, frames)]
    for first in sorted({1, frames // 3, frames // 2 + 1, 3 * frames // 4, frames - 3}):
        piece = frames_on_grid(str(path), first, min(frames, first + 15))
        wrong = [n for n, rgb in piece if not np.array_equal(rgb, whole[n])]
        assert not wrong, f"a piece from {first} on shows something else at {wrong}"


@settings(
    max_examples=1500 if NIGHTLY else 12,
    deadline=None,
    derandomize=not NIGHTLY,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(recording=recordings())
@example(recording=Recording("ts", H264, "mp2", gops="open", between=3, group=30))
@example(recording=Recording("mp4", H264, "aac", gops="refresh", between=0, group=12, layout="5.1"))
@example(recording=Recording("mkv", HEVC, "flac", gops="open", between=3, group=12, inverted=True))
@example(recording=Recording("flv", "flv", "aac", rate=44_100, layout="5.1"))  # an empty packet comes first
def test_whatever_ffmpeg_makes_is_seen_and_heard_on_one_clock_whole_and_in_pieces(
    recording: Recording, tmp_path: Path
) -> None:
    note(f"{recording}")
    event(recording.form)
    try:
        path = recording.write(tmp_path / f"clip.{recording.form}")
    except CalledProcessError:  # an encoder that does not go with these options
        reject()
    found = take_in(path)
    assert not isinstance(found, str), found
    assert abs(found.frames - SECONDS * 25) <= 4
    seen, heard = seen_and_heard(path, found.frames)
    assert len(seen) == len(heard) == len(EVENTS), (seen, heard)
    late = 3 if recording.dropped else 0  # the first two pictures of a flash may be those that were dropped
    for flash, beep, true in zip(seen, heard, EVENTS, strict=True):
        assert -2 <= flash - beep <= 2 + late, (seen, heard)
        assert -4 <= flash - int(true * 25 + 1e-6) <= 4 + late, (seen, heard)
    assert_pieces_are_parts_of_the_whole(path, found.frames)

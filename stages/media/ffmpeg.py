"""FFmpeg among strangers' files: what it may read, what it may not do, and which FFmpeg it must be.

It is given bytes, never names: it opens nothing itself, neither files nor addresses that a file names. Only formats and
decoders listed here are begun. Lists (m3u8, ffconcat, DASH, SDP), devices, numbered pictures, text and game formats are
not: what a list leads to is not what was listed by the user, and the rest is code that nobody here needs.

The trade-off: a rare format has to be added here, or converted, before it is read.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import av
from av.stream import Stream

from visavis.schemas.config import MOST_PIXELS, FacesConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import install

FORMATS = (
    # cameras, phones, browsers, meeting software, and what downloaders write
    "mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "flv", "live_flv", "ogg", "asf", "mpegts",
    "mpeg", "mxf", "gxf", "dv", "nut", "wtv", "rm",
    # video without a container, as surveillance cameras and laboratories keep it
    "h264", "hevc", "m4v", "mpegvideo", "ivf", "obu", "yuv4mpegpipe",
    # sound alone, for sidecars; the corpora of telephone speech come as NIST SPHERE
    "wav", "w64", "aiff", "caf", "au", "nistsphere", "flac", "mp3", "aac", "ac3", "eac3", "amr", "wv", "tta",
)  # fmt: skip
"""Demuxers, by FFmpeg's names. `wav` reads RF64 and BW64, too."""

DECODERS = (
    # what is recorded, shared and streamed
    "h264", "hevc", "vvc", "av1", "libdav1d", "vp8", "vp9", "libvpx", "libvpx-vp9", "mpeg4", "mpeg2video",
    "mpeg1video", "h263", "h263p", "h263i", "h261", "flv", "vp6", "vp6a", "vp6f", "theora", "vp3", "mjpeg",
    "mjpegb", "wmv1", "wmv2", "wmv3", "vc1", "mss2", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "rv10", "rv20", "rv30",
    "rv40",
    # cameras, editors, archives
    "prores", "dnxhd", "cfhd", "dvvideo", "jpeg2000", "rawvideo", "v210", "v308", "v408", "v410", "r210",
    "wrapped_avframe", "ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "lagarith", "hap", "snow", "dirac",
    # old QuickTime and AVI; screen recorders; covers
    "svq1", "svq3", "cinepak", "qtrle", "indeo3", "indeo4", "indeo5", "flashsv", "flashsv2", "zmbv", "camtasia",
    "tscc2", "png", "bmp",
    # sound
    "aac", "aac_latm", "mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float", "opus", "libopus", "vorbis", "flac",
    "alac", "ac3", "eac3", "dca", "truehd", "mlp", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb",
    "speex", "nellymoser", "wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice", "wavpack", "tta", "cook", "sipr",
    "qdm2", "qcelp", "evrc", "ilbc", "gsm", "gsm_ms", "g722", "g723_1", "g726", "g726le", "g729", "s302m",
    "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "adpcm_yamaha", "pcm_s8", "pcm_s8_planar", "pcm_u8",
    "pcm_s16le", "pcm_s16be", "pcm_s16le_planar", "pcm_s16be_planar", "pcm_u16le", "pcm_u16be", "pcm_s24le",
    "pcm_s24be", "pcm_s24le_planar", "pcm_u24le", "pcm_u24be", "pcm_s32le", "pcm_s32be", "pcm_s32le_planar",
    "pcm_u32le", "pcm_u32be", "pcm_s64le", "pcm_s64be", "pcm_f16le", "pcm_f24le", "pcm_f32le", "pcm_f32be",
    "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw", "pcm_bluray", "pcm_dvd", "pcm_lxf",
)  # fmt: skip
"""Decoders, by FFmpeg's names. Subtitles and data are never decoded."""

_NOTHING = "none"  # no protocol, format or codec has this name
_MOST_SAMPLES = 1 << 24  # of all channels in one frame of sound
_PYAV = 18  # the latest whose ways are known here
_FIXED = (8, 1, 2)  # the first FFmpeg without CVE-2026-8461


def decoding_options() -> dict[str, str]:
    """What every decoder is opened with, also while FFmpeg looks for the streams' properties."""
    return {
        "codec_whitelist": ",".join(DECODERS),
        "max_pixels": str(MOST_PIXELS),  # held before a picture's memory is allocated, whenever its size changes
        "max_samples": str(_MOST_SAMPLES),
    }


def claims_options() -> dict[str, str]:
    """The same for a look at what headers claim: as much is read, but no decoder is begun."""
    return {"codec_whitelist": _NOTHING}


def opening_options() -> dict[str, str]:
    """What every container is opened with. External references of MOV are off by default; here for all to see."""
    return {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": _NOTHING,
        "enable_drefs": "0",
        "use_absolute_path": "0",
    }


def is_read(stream: Stream) -> bool:
    """Whether there is a decoder for a stream, and it is one of those listed."""
    return stream.codec_context is not None and stream.codec_context.codec.name in DECODERS


def unread(streams: Iterable[Stream]) -> str:
    """The codecs of streams that are not read, for a message; nothing where there are none."""
    names = {s.codec_context.codec.name for s in streams if s.codec_context is not None and not is_read(s)}
    return ", ".join(sorted(names))


def check_decoders(config: FacesConfig) -> None:
    """Whether strangers' files can be left to the FFmpeg that is installed, before any work.

    Raises:
        UsageError: it has a fault that is known, or nobody can tell.
    """
    if int(av.__version__.partition(".")[0]) > _PYAV:
        raise UsageError(f"PyAV {av.__version__} opens files otherwise than {_PYAV} did: pip install 'av<{_PYAV + 1}'")
    if not _is_fixed(av.ffmpeg_version_info):
        raise UsageError(_too_old("PyAV", av.ffmpeg_version_info, "pip install --upgrade av"))
    if config.decoder == "decord":
        check_decord()


@cache
def check_decord() -> None:
    """The same for decord's own FFmpeg, which is not loaded for it.

    Raises:
        UsageError: decord is not installed, or its FFmpeg is too old.
    """
    spec = importlib.util.find_spec("decord")
    if spec is None or spec.origin is None:
        raise UsageError(f"faces.decoder=decord: decord is not installed; {install('decord')}, or use pyav")
    version = _bundled_version(Path(spec.origin).parent)
    if not _is_fixed(version):
        raise UsageError(
            _too_old("faces.decoder=decord: decord", version, "use faces.decoder=pyav until decord2 has it")
        )


def _bundled_version(package: Path) -> str:
    """The version of the FFmpeg in a wheel: every one of its libraries names it."""
    folders = (package, *package.parent.glob(f"{package.name}*.libs"))
    for library in sorted(found for folder in folders for found in folder.rglob("*avutil*")):
        said = re.search(rb"FFmpeg version (n?\d[\w.+~-]*)", library.read_bytes()) if library.is_file() else None
        if said:
            return said[1].decode()
    return ""


def _is_fixed(version: str) -> bool:
    numbers = re.match(r"n?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return numbers is not None and tuple(int(n or 0) for n in numbers.groups()) >= _FIXED


def _too_old(whose: str, version: str, advice: str) -> str:
    has = f"FFmpeg {version}" if version else "an FFmpeg of unknown version"
    return (
        f"{whose} decodes with {has}, which a hostile file may break; {'.'.join(map(str, _FIXED))} is needed: {advice}"
    )

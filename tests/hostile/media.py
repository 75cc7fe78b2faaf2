"""Hostile media: lists that lead elsewhere, claims that are no files, and real ones with their numbers changed."""

from __future__ import annotations

import gzip
import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.stages.test_containers import Recording

KINDS = [
    Recording("mp4", "libx264", "aac"),
    Recording("mkv", "libx264", "flac"),
    Recording("webm", "libvpx-vp9", "libopus"),
    Recording("avi", "mpeg4", "pcm_s16le"),
    Recording("ts", "libx264", "mp2"),
    Recording("mov", "mjpeg", "pcm_f32le"),
    Recording("flv", "flv", "libmp3lame"),
    Recording("ogv", "libtheora", "libvorbis"),
    Recording("wmv", "wmv2", "wmav2"),
]
HUGE = (0x7FFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFF0, 0, 1, 30_000, 65_535, 1 << 24)


@dataclass(frozen=True)
class Elsewhere:
    """What hostile inputs point at, and nobody may touch: a file outside, and a port on loopback."""

    file: Path
    address: str  # http://127.0.0.1:PORT

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")


def write_all(folder: Path, elsewhere: Elsewhere, seed: int, mutants: int) -> list[Path]:
    """Every hostile medium, in one folder. mutants: of the real recordings."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    found: list[Path] = []
    for name, data in [*lists(elsewhere), *foreign(rng), *claims(rng)]:
        found.append(folder / name)
        found[-1].write_bytes(data)
    whole = {kind.form: kind.possible().write(folder / f"whole.{kind.form}").read_bytes() for kind in KINDS}
    for form in whole:
        (folder / f"whole.{form}").unlink()
    for name, data in [*patched(whole, rng), *mutated(whole, rng, mutants)]:
        found.append(folder / name)
        found[-1].write_bytes(data)
    return found


def lists(elsewhere: Elsewhere) -> Iterator[tuple[str, bytes]]:
    """Lists and descriptions that lead FFmpeg to other files and servers."""
    file, url = elsewhere.file, f"{elsewhere.address}/stolen.ts"
    up = os.path.relpath(file, "/")
    places = {"file": f"file://{file}", "path": str(file), "http": url, "up": "../" * 20 + up}
    places |= {
        "concat": f"concat:{file}|{file}",
        "sub": f"subfile,,start,0,end,64,,:{file}",
        "tcp": f"tcp://{elsewhere.host}",
    }
    for name, place in places.items():
        hls = f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-MAP:URI="{place}"\n#EXTINF:9,\n{place}\n#EXT-X-ENDLIST\n'
        yield f"hls_{name}.mp4", hls.encode()
        yield f"concat_{name}.mkv", f"ffconcat version 1.0\nfile '{place}'\n".encode()
    yield "hls_key.ts", f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:9,\n{file}\n'.encode()
    yield "hls_master.m2ts", f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n".encode()
    mpd = (
        f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><BaseURL>{elsewhere.address}/'
        '</BaseURL><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>x.mp4'
        "</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    yield "dash.mp4", mpd.encode()
    port = elsewhere.host.rpartition(":")[2]
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    sdp += f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    yield "sdp.mp4", sdp.encode()
    yield "sdp.sdp.mov", sdp.encode()
    yield "asx.wmv", f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'.encode()
    yield (
        "imf.mxf",
        f'<?xml version="1.0"?><AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><Id>{url}</Id></AssetMap>'.encode(),
    )
    yield "smil.mp4", f'<smil><body><video src="{url}"/></body></smil>'.encode()
    yield "rtsptext.mov", f"RTSPtextrtsp://{elsewhere.host}/x\r\n".encode()
    yield "mms.asf", f"[Reference]\r\nRef1={url}\r\n".encode()
    yield "avisynth.avi", f'AviSource("{file}")'.encode()
    yield "ffmetadata.mp4", b";FFMETADATA1\ntitle=" + b"x" * 100_000
    yield "mov_reference.mov", _reference_movie(str(file))
    yield "mov_url.mov", _reference_movie(url)


def _reference_movie(place: str) -> bytes:
    """A QuickTime file whose sample data lie in another file (dref alias and url)."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I4s", 8 + len(body), kind) + body

    name = place.encode()
    alias = (
        bytes(150)[:10] + struct.pack(">H", 2) + bytes(138) + struct.pack(">hH", 2, len(name)) + name + b"\xff\xff\0\0"
    )
    dref = box(b"dref", struct.pack(">II", 0, 2), box(b"alis", bytes(4), alias), box(b"url ", bytes(4), name + b"\0"))
    entry = box(
        b"jpeg",
        bytes(6),
        struct.pack(">H", 1),
        bytes(16),
        struct.pack(">HHII", 64, 64, 72 << 16, 72 << 16),
        bytes(4),
        struct.pack(">H", 1),
        bytes(32),
        struct.pack(">Hh", 24, -1),
    )
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        box(b"stts", struct.pack(">IIII", 0, 1, 100, 40)),
        box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 100, 1)),
        box(b"stsz", struct.pack(">III", 0, 10, 100)),
        box(b"stco", struct.pack(">III", 0, 1, 0)),
    )
    media = box(
        b"mdia",
        box(b"mdhd", bytes(12), struct.pack(">II", 1000, 4000), bytes(4)),
        box(b"hdlr", bytes(8), b"vide", bytes(13)),
        box(b"minf", box(b"vmhd", bytes(12)), box(b"dinf", dref), table),
    )
    track = box(b"trak", box(b"tkhd", bytes(84)), media)
    head = box(b"mvhd", bytes(12), struct.pack(">II", 1000, 4000), bytes(80))
    return box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + box(b"moov", head, track)


def foreign(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """What is no film at all, under a film's name."""
    yield "empty.mp4", b""
    yield "one_byte.mkv", b"\x1a"
    yield "zeros.avi", bytes(1 << 20)
    yield "ones.ts", b"\xff" * (1 << 20)
    yield "sync.ts", b"\x47" * 200_000
    yield "random.webm", rng.bytes(300_000)
    yield "text.mp4", b"hello, is it me you are looking for\n" * 200
    yield "ansi.mp4", b"\x1b[2J\x1b]0;owned\x07" * 500
    yield "page.mp4", b"<html><script>alert(1)</script></html>" * 50
    yield "elf.mp4", b"\x7fELF\x02\x01\x01" + rng.bytes(4000)
    yield "pdf.mkv", b"%PDF-1.7\n" + rng.bytes(4000)
    yield "subtitles.mkv", b"1\n00:00:00,000 --> 99:59:59,999\n<i>x</i>\n\n" * 50
    yield "ass.mkv", b"[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,9:59:59.99,D,,0,0,0,,x\n"
    yield "gz.mp4", gzip.compress(bytes(1 << 22))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.mp4", bytes(1 << 22))
    yield "zip.mp4", buffer.getvalue()
    for width, height in ((30_000, 30_000), (65_535, 65_535), (2_000_000, 2_000)):
        head = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
        idat = zlib.compress(bytes(1 << 20))
        png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", idat) + _chunk(b"IEND", b"")
        yield f"png_{width}.mp4", png
        yield f"y4m_{width}.mp4", f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\nFRAME\n".encode() + bytes(4096)
    yield (
        "gif.mp4",
        b"GIF89a\xff\xff\xff\xff\xf7\x00\x00" + rng.bytes(768) + b"\x2c" + bytes(4) + b"\xff\xff\xff\xff\x00\x02\x00;",
    )
    yield (
        "bmp.mp4",
        b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 1 << 20, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(9999),
    )
    yield (
        "jpeg.mp4",
        b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01" + rng.bytes(4000),
    )
    yield "webp.mp4", b"RIFF\xff\xff\xff\xffWEBPVP8X" + rng.bytes(2000)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claims(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Headers that claim what is not there."""
    for i, size in enumerate((0, 1, 7, 0x7FFF_FFFF, 0xFFFF_FFFF)):
        yield (
            f"box_{i}.mp4",
            struct.pack(">I4s", 24, b"ftyp")
            + b"isom"
            + bytes(12)
            + struct.pack(">I4s", size, b"moov")
            + rng.bytes(500),
        )
    yield (
        "box64.mp4",
        struct.pack(">I4s", 24, b"ftyp")
        + b"isom"
        + bytes(12)
        + struct.pack(">I4sQ", 1, b"moov", 2**63 - 1)
        + rng.bytes(500),
    )
    nested = b""
    for _ in range(3000):
        nested = struct.pack(">I4s", 8 + len(nested), b"moov") + nested
    yield "nested.mp4", struct.pack(">I4s", 24, b"ftyp") + b"isom" + bytes(12) + nested
    body = zlib.compress(bytes(200 << 20), 9)
    cmvd = struct.pack(">I4sI", 12 + len(body), b"cmvd", 0xFFFF_FFF0) + body
    cmov = struct.pack(">I4s", 20 + len(cmvd), b"cmov") + struct.pack(">I4s4s", 12, b"dcom", b"zlib") + cmvd
    yield "cmov.mov", struct.pack(">I4s", 8 + len(cmov), b"moov") + cmov
    ebml = b"\x1a\x45\xdf\xa3\x01\x00\x00\x00\x00\x00\x00\x00"
    yield "ebml.mkv", ebml + b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + rng.bytes(900)
    yield (
        "ebml_deep.mkv",
        b"\x1a\x45\xdf\xa3\x80"
        + b"\x18\x53\x80\x67\x01"
        + b"\xff" * 7
        + b"\x16\x54\xae\x6b\x01\xff\xff\xff\xff\xff\xff\xff" * 5000,
    )
    for name, channels, rate, bits in (
        ("many", 65_535, 48_000, 16),
        ("fast", 2, 4_000_000_000, 16),
        ("none", 0, 0, 0),
        ("wide", 1, 1, 65_535),
    ):
        wav = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF",
            0xFFFF_FFFF,
            b"WAVE",
            b"fmt ",
            16,
            1,
            channels,
            rate,
            0xFFFF_FFFF,
            4,
            bits,
            b"data",
            0xFFFF_FFFF,
        )
        yield f"wav_{name}.mp4", wav + rng.bytes(9000)
    yield (
        "flac.mkv",
        b"fLaC\x80\x00\x00\x22"
        + struct.pack(">HH", 65_535, 65_535)
        + bytes(6)
        + b"\xff" * 8
        + bytes(16)
        + rng.bytes(900),
    )
    yield "ogg.ogv", b"OggS\x00\x02" + b"\xff" * 8 + rng.bytes(5000)
    yield "flv.flv", b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00" + b"\x12\xff\xff\xff" + rng.bytes(900)
    depth = b"\x03\x00\x01a" * 20_000
    yield (
        "flv_deep.flv",
        b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00\x12"
        + struct.pack(">I", len(depth) + 13)[1:]
        + bytes(7)
        + b"\x02\x00\x0aonMetaData"
        + depth,
    )
    yield (
        "asf.wmv",
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
        + struct.pack("<QIBB", 2**62, 0xFFFF_FFFF, 1, 2)
        + rng.bytes(2000),
    )
    yield "riff_deep.avi", b"RIFF\xff\xff\xff\xffAVI " + b"LIST\xff\xff\xff\x7fhdrl" * 9000
    yield (
        "mxf.mxf",
        bytes.fromhex("060e2b34020501010d01020101020400") + b"\x88" + b"\x7f" + b"\xff" * 7 + rng.bytes(3000),
    )
    yield "nut.nut", b"nut/multimedia container\0" + rng.bytes(2000)


_FIELDS: dict[str, bytes] = {
    "mp4": b"mvhd tkhd mdhd stsz stts stsc stco ctts elst stsd avc1 mp4a esds avcC dref stss udta ilst hdlr mdat",
    "mov": b"mvhd tkhd mdhd stsz stts stsc stco jpeg stsd elst",
    "avi": b"avih strh strf idx1 movi 00dc",
    "flv": b"duration width height framerate filesize",
    "ogv": b"theora vorbis OggS",
    # Info, Duration, timecode scale, width, height, default duration, sampling rate, channels, tracks, cues
    "mkv": b"\x15\x49\xa9\x66 \x44\x89 \x2a\xd7\xb1 \xb0 \xba \x23\xe3\x83 \xb5 \x9f \x16\x54\xae\x6b \x1c\x53\xbb\x6b",
    "webm": b"\x44\x89 \x2a\xd7\xb1 \xb0 \xba OpusHead \x1f\x43\xb6\x75 \x56\xaa \x56\xbb",
}


def patched(whole: dict[str, bytes], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Recordings in which one number of the header is a huge one, or none."""
    for form, marks in _FIELDS.items():
        for i, mark in enumerate(marks.split()):
            at = whole[form].find(mark)
            if at < 0:
                continue
            data = bytearray(whole[form])
            at += len(mark) + 4 * int(rng.integers(0, 6))
            data[at : at + 4] = int(rng.choice(HUGE)).to_bytes(4, str(rng.choice(["big", "little"])))  # type: ignore[arg-type]
            yield f"patched_{i}.{form}", bytes(data)


def mutated(whole: dict[str, bytes], rng: np.random.Generator, count: int) -> Iterator[tuple[str, bytes]]:
    """Recordings that were damaged somewhere, most often in the header."""
    from tests.stages.test_damage import harm

    forms = list(whole)
    for i in range(count):
        form = forms[i % len(forms)]
        yield f"mutant_{i}.{form}", harm(whole[form], rng)


def special(folder: Path, elsewhere: Elsewhere) -> list[Path]:
    """What is no regular file, or leads to one that is not a video."""
    folder.mkdir()
    os.mkfifo(folder / "fifo.mp4")
    (folder / "folder.mp4").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "s.mp4"))
    listening.close()
    links = {"null": "/dev/null", "zero": "/dev/zero", "environment": "/proc/self/environ", "memory": "/proc/self/mem"}
    links |= {"stdin": "/dev/stdin", "tty": "/dev/tty", "loop": str(folder / "loop.mp4"), "nowhere": "/nowhere/x.mp4"}
    links |= {"random": "/dev/urandom", "full": "/dev/full", "maps": "/proc/self/maps", "root": "/"}
    for name, place in links.items():
        (folder / f"{name}.mp4").symlink_to(place)
    return sorted(folder.iterdir())

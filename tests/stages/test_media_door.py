"""What a stranger's media may do: be read, or be rejected in one line; it opens nothing and takes little.

The files are made here. What FFmpeg opens is seen from outside: in the process's open files, and by a server
that nobody may ask.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.stages.clapper import ffmpeg
from tests.stages.test_containers import Recording
from visavis.schemas.config import FacesConfig, IngestConfig
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.face_rows import Piece
from visavis.schemas.rows import Conversation, Source
from visavis.schemas.storage import files
from visavis.stages.ingest import IngestStage, probe
from visavis.stages.media import ffmpeg as decoders
from visavis.stages.media import opening as media
from visavis.stages.media.audio import read_audio, sound_of
from visavis.stages.media.opening import open_container
from visavis.stages.media.video import display_size, frames_on_grid

TONE = ("-f", "lavfi", "-i", "sine=d=2")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("door") / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=2", *TONE, "-c:v", "libx264", "-c:a", "aac", path)
    return path


def ingested(path: Path, **limits: float) -> Conversation:
    [row] = IngestStage(IngestConfig(min_duration=0.2, **limits)).process(Source(uris=(str(path),)))  # type: ignore[arg-type]
    return row


def reason_of(path: Path, **limits: float) -> tuple[Reason, str]:
    with pytest.raises(Rejected) as caught:
        ingested(path, **limits)
    assert "\n" not in caught.value.detail
    return caught.value.reason, caught.value.detail


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def lists(clip: Path, listener: socket.socket) -> dict[str, str]:
    """What names other files, by what it is."""
    port = listener.getsockname()[1]
    web = f"http://127.0.0.1:{port}/x.ts"
    return {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{clip}\n#EXTINF:5,\n{web}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {clip}\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>{web}</BaseURL>'
        "</Period></MPD>",
        "imf": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">',
        "srt": "1\n00:00:00,000 --> 00:00:01,000\nhi\n\n",
    }


@pytest.mark.parametrize("kind", ["hls", "concat", "sdp", "dash", "imf", "srt"])
@pytest.mark.parametrize("ending", ["mp4", "txt"])
def test_a_list_is_rejected_and_nothing_in_it_is_opened(
    kind: str, ending: str, lists: dict[str, str], listener: socket.socket, tmp_path: Path
) -> None:
    path = tmp_path / f"list.{ending}"
    path.write_text(lists[kind])
    assert reason_of(path)[0] is Reason.UNREADABLE
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_refused_format_is_named(lists: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "call.mp4"
    path.write_text(lists["concat"])
    assert reason_of(path)[1].endswith("concat is not among the formats that are read")


def test_ffmpeg_opens_no_file(clip: Path) -> None:
    with open_container(str(clip)) as container:
        list(container.demux())
        held = {os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if _is_open(n)}  # noqa: PTH115, PTH208
        assert [name for name in held if name.endswith(".mp4")] == [str(clip)]


def _is_open(number: str) -> bool:
    return Path(f"/proc/self/fd/{number}").is_symlink()


@pytest.mark.parametrize("codec", ["asv1", "jpegls"])
def test_a_refused_codec_is_named(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "call.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=1", *TONE, "-c:v", codec, path)
    assert reason_of(path) == (Reason.UNREADABLE, f"{path}: {codec} is not among the codecs that are read")


def test_every_name_in_the_lists_is_one_of_ffmpegs() -> None:
    known = {name for form in av.formats_available for name in form.split(",")}
    assert set(decoders.FORMATS) <= known
    for name in decoders.DECODERS:
        assert av.codec.Codec(name, "r").name == name


# ---- what is no file ----


@pytest.mark.parametrize("ending", [".mp4", ".wav"])
def test_only_regular_files_are_opened(ending: str, tmp_path: Path) -> None:
    pipe, link, folder = tmp_path / f"p{ending}", tmp_path / f"l{ending}", tmp_path / f"f{ending}"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    folder.mkdir()
    device, kernel, away = (tmp_path / f"{name}{ending}" for name in ("d", "k", "a"))
    device.symlink_to("/dev/zero")
    kernel.symlink_to("/proc/self/environ")
    away.symlink_to("/dev/tty")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)
        server.bind(f"s{ending}")
    for path in (pipe, link, folder, device, kernel, away, tmp_path / f"s{ending}"):
        assert reason_of(path)[0] is Reason.UNREADABLE, path


def test_a_link_to_a_good_file_is_followed(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(clip)
    assert ingested(tmp_path / "link.mp4").id == ingested(clip).id


# ---- limits ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("mp4", "libx264"),
        ("mkv", "ffv1"),
        pytest.param("flv", "libx264", marks=pytest.mark.nightly("a third container of a codec of the others")),
        pytest.param("ts", "libx264", marks=pytest.mark.nightly("a fourth container of a codec of the others")),
    ],
)
def test_a_huge_picture_is_never_decoded(form: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / f"huge.{form}"
    ffmpeg("-f", "lavfi", "-i", "color=s=8192x4416:r=2:d=1", *TONE, "-c:v", codec, "-pix_fmt", "yuv420p", path)
    code = (
        "import sys; from visavis.pipeline.engine.memory import peak_mb as peak\n"
        "from visavis.stages.ingest import probe; from visavis.schemas.errors import Rejected\n"
        "before = peak()\n"
        "try: probe(sys.argv[1])\n"
        "except Rejected as error: print(error.reason.value, int(peak() - before))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True)
    reason, grown = done.stdout.split()
    assert reason == "too_large"
    assert int(grown) < 40  # MB; a picture alone has 54


def test_pictures_that_grow_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("small", "96x64"), ("large", "640x480")):
        ffmpeg(
            "-f",
            "lavfi",
            "-i",
            f"color=white:s={size}:r=25:d=1",
            *TONE,
            "-t",
            1,
            "-c:v",
            "libx264",
            tmp_path / f"{name}.ts",
        )
    path = tmp_path / "call.ts"
    path.write_bytes(b"".join((tmp_path / f"{name}.ts").read_bytes() for name in ("small", "large")))
    monkeypatch.setattr(decoders, "MOST_PIXELS", 100 * 100)
    with open_container(str(path)) as container:
        sizes = {
            (f.width, f.height) for f in media.decoded_frames(container.demux(video=0), container.streams.video[0])
        }  # type: ignore[union-attr]
    assert sizes == {(96, 64)}


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_hours": 1 / 3600}, Reason.TOO_LONG),
        ({"max_gb": 1e-6}, Reason.TOO_HEAVY),
        ({"max_pixels": 95 * 64}, Reason.TOO_LARGE),
        ({"max_samples": 8000}, Reason.TOO_BUSY),
        ({"max_packets": 10}, Reason.TOO_BUSY),
    ],
)
def test_each_limit_has_a_reason_that_names_it(clip: Path, limit: dict[str, float], reason: Reason) -> None:
    found, said = reason_of(clip, **limit)
    assert found is reason
    assert next(iter(limit)).removeprefix("max_") in said or reason is Reason.TOO_BUSY


def test_too_many_streams(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "many.mkv"
    ffmpeg("-i", clip, *("-map", "0:v", *("-map", "0:a") * 4), "-c", "copy", path)
    assert ingested(path).frames == 50
    assert reason_of(path, max_streams=4)[0] is Reason.TOO_BUSY


def test_a_sidecars_sound_is_limited_too(clip: Path, tmp_path: Path) -> None:
    sound = tmp_path / "clip.wav"
    ffmpeg(*TONE, "-ar", 48_000, sound)
    for limit, reason in (({"max_samples": 47_000}, Reason.TOO_BUSY), ({"max_hours": 1.5 / 3600}, Reason.TOO_LONG)):
        with pytest.raises(Rejected) as caught:
            probe(str(clip), (str(sound),), IngestConfig(**limit))  # type: ignore[arg-type]
        assert caught.value.reason is reason


# ---- whose fault it is ----


@pytest.mark.parametrize(
    "error", [MemoryError, RecursionError, OverflowError, RuntimeError, ZeroDivisionError, IndexError]
)
def test_whatever_parsing_raises_is_the_files_fault(clip: Path, error: type[Exception]) -> None:
    with pytest.raises(Rejected) as caught, open_container(str(clip)):
        raise error
    assert caught.value.reason is Reason.UNREADABLE
    assert str(clip) in caught.value.detail


def test_ffmpegs_own_out_of_memory_is_a_claim_where_memory_is_left(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lack = av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")
    with pytest.raises(Rejected), open_container(str(clip)):
        raise lack
    monkeypatch.setattr(media, "_short_of_memory", lambda: True)
    with pytest.raises(MemoryError), open_container(str(clip)):
        raise lack


def test_a_disk_that_fails_half_way_is_not_the_files_fault(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EACCES, "no", str(clip))

    monkeypatch.setattr(media, "_AT_ONCE", 4096)
    with pytest.raises(OSError, match="no"), open_container(str(clip)) as container:  # noqa: PT012
        monkeypatch.setattr(files.Reader, "_read_at", broken)
        list(container.demux())


# ---- what is decoded is what was hashed ----


@pytest.mark.parametrize("change", ["longer", "other", "swapped"])
def test_a_file_that_changed_since_is_not_decoded(change: str, clip: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(clip, tmp_path / "call.mp4"))
    [known] = ingested(path).media
    data = bytearray(path.read_bytes())
    if change == "longer":
        data += b"x"
    elif change == "other":
        data[len(data) // 2] ^= 1
    else:
        data = bytearray(len(data))
    path.write_bytes(data)
    for read in (
        lambda: sound_of(known, 50),
        lambda: list(frames_on_grid(str(path), 0, 2, witness=known.witness)),
    ):
        with pytest.raises(Rejected) as caught:
            read()
        assert caught.value.reason is Reason.CHANGED
    path.write_bytes(clip.read_bytes())  # as it was, and touched
    assert len(sound_of(known, 50)) == 50 * 640


def test_a_file_that_changes_while_it_is_ingested_is_rejected(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visavis.stages import ingest

    path = Path(shutil.copy(clip, tmp_path / "call.mp4"))
    through = ingest._read_through

    def and_write(*given: object, **more: object) -> object:
        found = through(*given, **more)  # type: ignore[arg-type]
        path.write_bytes(path.read_bytes() + b"more")
        return found

    monkeypatch.setattr(ingest, "_read_through", and_write)
    assert reason_of(path)[0] is Reason.CHANGED


def test_pieces_carry_the_witness(clip: Path) -> None:
    from visavis.stages.faces import pieces_of
    from visavis.stages.ingest import outline_of

    row = ingested(clip)
    [piece] = pieces_of(outline_of(row), (str(clip),), FacesConfig())
    assert isinstance(piece, Piece)
    assert piece.witness == row.media[0].witness != ""


def test_a_witness_made_while_hashing_is_that_of_an_open_file(tmp_path: Path) -> None:
    from visavis.stages.media.file_identity import Unchanged, Witness

    rng = np.random.default_rng(0)
    for size in (0, 1, 8192, 262_144, 262_145, 3_000_001):
        path = tmp_path / "x"
        data = rng.bytes(size)
        path.write_bytes(data)
        made = Witness(size)
        for at in range(0, size, 100_003):
            made.add(data[at : at + 100_003])
        with media.open_bytes(str(path)) as reader:
            Unchanged(str(path), str(made)).check(reader)


# ---- versions ----


@pytest.mark.parametrize("version", ["8.1.1", "7.1", "n8.0.2", "", "N-12345-gabc"])
def test_an_ffmpeg_with_known_faults_is_named_before_any_work(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "ffmpeg_version_info", version)
    with pytest.raises(UsageError, match=r"8\.1\.2 is needed") as caught:
        decoders.check_decoders(FacesConfig())
    assert "\n" not in str(caught.value)


def test_this_pyav_is_fit(tmp_path: Path) -> None:
    decoders.check_decoders(FacesConfig())
    for version in ("8.1.2", "n8.1.2-1", "9.0", "10"):
        assert decoders._is_fixed(version) is (version != "10")


@pytest.mark.parametrize(
    ("said", "version"), [(b"\0FFmpeg version 8.1.1\0", "8.1.1"), (b"update your FFmpeg version to the newest", "")]
)
def test_the_version_in_a_wheel_is_read_without_loading_it(said: bytes, version: str, tmp_path: Path) -> None:
    (tmp_path / "decord").mkdir()
    (tmp_path / "decord2.libs").mkdir()
    (tmp_path / "decord2.libs" / "libavutil-1.so.60").write_bytes(b"ELF" + said)
    assert decoders._bundled_version(tmp_path / "decord") == version


def test_sound_takes_memory_by_what_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "quiet.wav"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono:d=1", path)
    assert not read_audio(str(path), frames=25 * 3600 * 6).any()


@pytest.mark.parametrize("aspect", ["60000/1", "1/60000"])
def test_pixels_of_a_shape_that_no_camera_makes_are_square(tmp_path: Path, aspect: str) -> None:
    """Else a clip of 96 by 64 pixels is shown as one of 5.8 million by 64."""
    clip = Recording("mp4", "libx264", "aac", aspect=aspect).write(tmp_path / "clip.mp4")
    assert display_size(str(clip)) == (96, 64)
    assert next(iter(frames_on_grid(str(clip), 0, 1)))[1].shape == (64, 96, 3)


def test_a_picture_counts_as_large_as_it_is_shown(tmp_path: Path) -> None:
    clip = Recording("mp4", "libx264", "aac", aspect="4/1").write(tmp_path / "clip.mp4")
    assert display_size(str(clip)) == (384, 64)
    with pytest.raises(Rejected, match=r"too_large: .*pictures of 384x64"):
        probe(str(clip), config=IngestConfig(max_pixels=96 * 64))

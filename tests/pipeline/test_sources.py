"""Inputs as people name them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stages.test_ingest import write_clip
from visavis.pipeline.plan.sources import find_sources, source_key, source_name
from visavis.schemas.errors import Rejected, UsageError
from visavis.schemas.uris import file_name, is_local, local_path, local_uri, located, printable
from visavis.stages.media.opening import open_bytes, open_container
from visavis.stages.media.video import frames_on_grid

CONFIG = str(Path(__file__).parents[2] / "configs" / "default.yaml")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.mov", "notes.txt", "sub/c.mkv", "sub/ünï cödé 'x'.webm", "-dash.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(inputs: list[str]) -> list[str]:
    return [source_name(s) for s in find_sources(inputs)]


def test_files_folders_and_globs(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names([str(videos / "b.mp4")]) == ["b.mp4"]
    assert names([str(videos)]) == ["-dash.mp4", "a.mov", "b.mp4", "c.mkv", "ünï cödé 'x'.webm"]
    assert names([str(videos / "*.mp4")]) == ["-dash.mp4", "b.mp4"]
    monkeypatch.chdir(videos)
    assert next(iter(find_sources(["b.mp4"]))).uris == (str(videos / "b.mp4"),)  # not on where it was started


def test_other_file_systems(videos: Path) -> None:
    (source,) = find_sources([f"file://{videos}/b.mp4"])
    assert source.stamps[0].startswith("5:")


def test_a_pair_is_one_conversation(videos: Path) -> None:
    (source,) = find_sources([], [(str(videos / "b.mp4"), str(videos / "a.mov"))])
    assert source_name(source) == "b.mp4 + a.mov"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_list_groups_participants_of_one_conversation(videos: Path, kind: str) -> None:
    rows = [
        {"uri": "b.mp4", "conversation": "talk", "participant": "Bo"},
        {"uri": "sub/c.mkv", "conversation": None, "participant": None},
        {"uri": "a.mov", "conversation": "talk", "participant": "Al"},
        {"uri": "absent.mp4", "conversation": "alone", "participant": "Cy"},
    ]
    path = videos / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "csv":
        path.write_text(
            "uri,conversation,participant\n" + "\n".join(",".join(v or "" for v in r.values()) for r in rows)
        )
    else:
        path.write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    single, talk, alone = find_sources([str(path)])
    assert source_name(talk) == "a.mov + b.mp4"  # by participant, whatever the order of rows
    assert (talk.participants, talk.conversation) == (("Al", "Bo"), "talk")
    assert (source_name(single), single.participants) == ("c.mkv", (None,))
    assert alone.stamps == ("absent",)  # one broken row is that item's rejection, not the end of the run


def test_a_changed_file_is_a_new_item(videos: Path) -> None:
    before = source_key(next(iter(find_sources([str(videos / "b.mp4")]))))
    assert source_key(next(iter(find_sources([str(videos / "b.mp4")])))) == before
    os.utime(videos / "b.mp4", (1, 1))
    assert source_key(next(iter(find_sources([str(videos / "b.mp4")])))) != before


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no input"),
        (["{}/absent.mp4"], "no such file or folder"),
        (["{}/*.avi"], "no file matches"),
        (["{}/empty"], "no video in this folder"),
        (["{}/bad.jsonl"], "not a readable .jsonl list"),
        (["{}/nouri.jsonl"], "row 1 has no `uri`"),
        (["{}/bad.parquet"], "not a readable .parquet list"),
        (["nosuch://bucket/x.mp4"], "nosuch"),
    ],
)
def test_wrong_inputs_are_one_line(videos: Path, inputs: list[str], message: str) -> None:
    (videos / "empty").mkdir()
    (videos / "bad.jsonl").write_text("{")
    (videos / "nouri.jsonl").write_text('{"url": "x"}\n')
    (videos / "bad.parquet").write_text("not parquet")
    with pytest.raises(UsageError, match=message) as error:
        find_sources([text.format(videos) for text in inputs])
    assert "\n" not in str(error.value)


# What a scan passes over


def test_a_scan_names_what_it_passes_over(tmp_path: Path) -> None:
    for name in (
        "a.MTS",
        "b.m2ts",
        "c.Mp4",
        "empty.3gp",
        "x.txt",
        "y.TXT",
        "z.docx",
        "README",
        "list.csv",
        ".DS_Store",
    ):
        (tmp_path / name).touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "d.mp4").touch()
    (tmp_path / "sub" / "run").mkdir(parents=True)
    (tmp_path / "sub" / "run" / "run.json").touch()
    (tmp_path / "sub" / "run" / "e.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    found = find_sources([str(tmp_path)])
    assert [source_name(source) for source in found] == ["a.MTS", "b.m2ts", "c.Mp4", "empty.3gp"]
    assert dict(found.notes.passed_over) == {
        ".txt": 2,
        ".docx": 1,
        "without a suffix": 1,
        "hidden": 2,
        "folder of a run": 1,
        "pipe, socket or device": 1,
    }
    lines = list(found.notes.lines())
    assert lines[0].startswith("passed over: 2 .txt, 2 hidden, 1 .docx, 1 folder of a run")
    assert lines[1] == f"lists inside a folder are not read, name them as inputs: {tmp_path}/list.csv"


def test_a_folder_without_videos_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.docx").touch()
    with pytest.raises(UsageError, match=r"no video in this folder \(passed over: 1 \.docx\)"):
        find_sources([str(tmp_path)])


def test_a_folder_that_may_not_be_read_is_named(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def forbidding(path: str) -> object:  # the tests may run as root, whom nothing is forbidden
        if path.endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("os.scandir", forbidding)
    found = find_sources([str(videos)])
    assert len(found) == 3
    assert f"not looked into: {videos}/sub (Permission denied)" in found.notes.lines()
    with pytest.raises(UsageError, match="cannot read this folder"):
        find_sources([str(videos / "sub")])


def test_links(tmp_path: Path) -> None:
    (tmp_path / "media" / "sub").mkdir(parents=True)
    (tmp_path / "media" / "a.mp4").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mp4").write_bytes(b"y")
    for name, target in {
        "again.mp4": "a.mp4",
        "dangling.mp4": "nowhere.mp4",
        "self.mp4": "self.mp4",
        "sub/parent": "..",
        "linked": "../elsewhere",
        "linked too": "../elsewhere",
    }.items():
        (tmp_path / "media" / name).symlink_to(target)
    found = find_sources([str(tmp_path / "media")])
    stamps = {source_name(source): source.stamps[0] for source in found}
    assert list(stamps) == ["a.mp4", "again.mp4", "dangling.mp4", "b.mp4", "self.mp4"]
    assert stamps["again.mp4"] == stamps["a.mp4"]  # a changed target is a new item
    assert (stamps["dangling.mp4"], stamps["self.mp4"]) == ("absent", "absent")
    assert found.notes.passed_over == {"link to a folder that is scanned already": 2}
    for source in found:
        with pytest.raises(Rejected), open_container(source.uris[0]):
            pass


def test_a_glob_means_what_a_shell_makes_of_it(videos: Path) -> None:
    (videos / "list.csv").write_text("uri\nb.mp4\n")
    assert names([str(videos / "*")]) == [
        "-dash.mp4",
        "a.mov",
        "b.mp4",
        "b.mp4",
        "notes.txt",
        "c.mkv",
        "ünï cödé 'x'.webm",
    ]
    assert names([str(videos / "**/*.mkv")]) == ["c.mkv"]
    said = list(find_sources([str(videos / "notes.txt")]).notes.lines())
    assert "notes.txt: taken as a video for all its name" in said[0]


# Names

ODD = [
    "a#b.mp4",
    "a?b.mp4",
    "a%20b.mp4",
    "a[1].mp4",
    "*.mp4",
    "a:b.mp4",
    "a::b.mp4",
    "~.mp4",
    "~x.mp4",
    "-x.mp4",
    " a .mp4",
]
ODD += [
    "new\nline.mp4",
    "tab\t.mp4",
    "😀.mp4",
    "\u202egpj.mp4",
    "\x1b[31mred.mp4",
    "caf\udce9.mp4",
    "C:\\x.mp4",
    "é" * 120 + ".mp4",
]
ODD += [
    "file:/x.mp4",
    "http:/x.mp4",
    "~/x.mp4",
    "s3:/b::zip:/x.mp4",
    "\u3000.mp4",
    "concat:x.mp4",
    "data:x.mp4",
    "100%.mp4",
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=1.0).read_bytes()


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_any_name_is_found_and_opened_however_it_is_named(
    tmp_path: Path, clip: bytes, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(clip)
    (tmp_path / "good.mp4").write_bytes(clip)
    monkeypatch.chdir(tmp_path)
    listed = tmp_path / "list.jsonl"
    listed.write_text(json.dumps({"uri": name}) + "\n" + json.dumps({"uri": local_uri(str(path))}))
    (by_folder,) = (source for source in find_sources([str(tmp_path)]) if source_name(source) != "good.mp4")
    assert source_name(by_folder) == printable(path.name)
    assert local_path(by_folder.uris[0]) == str(path)
    for named in (str(path), name, f"file://localhost{str(path).replace('%', '%25')}", str(listed)):
        assert {source.uris for source in find_sources([named])} == {by_folder.uris}
    with open_container(by_folder.uris[0]) as container, open_bytes(by_folder.uris[0]) as file:
        assert container.streams.video
        assert file.read() == clip
    for decoder in ("pyav", "decord"):
        assert len(list(frames_on_grid(by_folder.uris[0], 0, 3, decoder=decoder))) == 3


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "l.csv").write_text("uri\n~/a.mp4\n../a.mp4\n./../lists//../a.mp4\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {source.uris for source in find_sources(["~/a.mp4", "~/lists/l.csv"])} == {(f"{tmp_path}/a.mp4",)}


def test_dots_behind_a_link_are_those_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "far" / "inside").mkdir(parents=True)
    (tmp_path / "far" / "a.mp4").touch()
    (tmp_path / "link").symlink_to("far/inside")
    (source,) = find_sources([f"{tmp_path}/link/../a.mp4"])
    assert source.uris == (f"{tmp_path}/far/a.mp4",)


def test_two_colons_in_the_name_of_an_object_are_no_chain() -> None:
    assert located("memory://b/a::b.mp4")[1].strip("/") == "b/a::b.mp4"
    assert located("simplecache::memory://b/a.mp4")[1] == "/b/a.mp4"


@pytest.mark.slow
def test_outcomes_of_odd_names_are_told_on_any_terminal(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for name in ODD:
        (tmp_path / "media" / name.replace("/", "_")).write_bytes(name.encode("utf-8", "surrogateescape"))
    run = ["--out", str(tmp_path / "run"), "--engine", "local"]
    env = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for words, code in (
        (["build", CONFIG, str(tmp_path / "media"), *run, "--dry-run"], 0),
        (["build", CONFIG, str(tmp_path / "media"), *run, "--dry-run", "--json"], 0),
        (["build", CONFIG, str(tmp_path / "media"), *run], 1),
        (["status", str(tmp_path / "run"), "--json"], 0),
        (["status", str(tmp_path / "run")], 0),
        (["draw", str(tmp_path / "run"), "caf\udce9"], 2),
    ):
        done = subprocess.run([sys.executable, "-m", "visavis", *words], capture_output=True, env=env, timeout=100)
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        assert (done.stdout + done.stderr).decode().replace("\n", "").isprintable()  # no escape reaches a terminal raw
        if words[0] == "status" and "--json" in words:
            assert json.loads(done.stdout)["stages"]["ingest"]["rejected"] == {"unreadable": len(ODD)}


_BYTES = st.binary(min_size=1, max_size=200).map(lambda name: name.translate(None, b"/\0") or b"x")


@given(name=_BYTES)
def test_the_bytes_of_a_name_survive(name: bytes) -> None:
    path = "/" + os.fsdecode(name)
    uri = local_uri(path)
    assert os.fsencode(local_path(uri)) == b"/" + name
    assert uri.isprintable()
    assert is_local(uri)
    uri.encode()
    assert file_name(uri).isprintable()


@given(name=_BYTES.filter(lambda name: not name.startswith(b".")))
def test_any_bytes_on_a_disk_are_found_and_opened(name: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = os.fsencode(folder) + b"/" + name + b".mkv"
        with open(path, "wb") as file:  # noqa: PTH123 - a name in bytes
            file.write(name)
        sources = find_sources([folder])
        (source,) = sources
        assert [source] == list(find_sources([os.fsdecode(path)]))
        with open_bytes(source.uris[0]) as file:
            assert file.read() == name
        assert source_name(source).isprintable()
        assert source.model_validate_json(source.model_dump_json()) == source
        assert len(source_key(source)) == 16
        Path(folder, "l.jsonl").write_text(json.dumps({"uri": os.fsdecode(name + b".mkv")}))
        (listed,) = find_sources([f"{folder}/l.jsonl"])
        assert listed.uris == source.uris

"""Inputs as people name them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources import find_sources, source_key, source_name
from schemas.errors import UsageError


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

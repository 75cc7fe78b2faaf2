"""Turns and boxes of anybody's diarizer or tracker: what is taken of them, and what is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.stages.test_ingest import write_clip
from tests.stages.test_sidecar_door import HOSTILE, TRUE, archive, npy
from visavis.pipeline.plan.sources import find_sources, source_key
from visavis.schemas.artifact import dump_rows, load_row
from visavis.schemas.config import DiarizeConfig, IngestConfig
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.rows import Conversation, Given, Media, Source, Turn
from visavis.schemas.secrets import hashable
from visavis.stages.diarize import DiarizeStage
from visavis.stages.face.boxes import by_boxes
from visavis.stages.ingest import IngestStage, outline_of
from visavis.stages.media.given import with_given

RTTM = """;; a comment
SPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA> <NA>
SPEAKER talk 1 0.50 1.50 <NA> <NA> ann <NA> <NA>
SPEAKER talk 1 1.80 0.70 <NA> <NA> ben 0.97 <NA>
SPEAKER talk 1 3.00 0.00 <NA> <NA> ann <NA> <NA>
NON-SPEECH talk 1 2.00 1.00 <NA> other <NA> <NA> <NA>
SPEAKER talk 1 2.40 0.60 <NA> <NA> ann <NA>
"""


def media(seconds: float = 4.0) -> Media:
    return Media(
        uri="talk.mp4", sha256="0" * 64, bytes=1, width=640, height=360, fps=25.0, video_start=0.0,
        video_duration=seconds, audio_start=0.0, audio_duration=seconds, audio_rate=48_000, audio_channels=1,
    )  # fmt: skip


def written(path: Path, content: Any) -> Path:
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def taken(
    folder: Path, ending: str, content: Any, who: str | None = None, offset: float = 0.0, *, alone: bool = False
) -> Media:
    path = str(written(folder / f"any{ending}", content))
    kind = "turns" if ending in (".rttm", ".turns.json") else "boxes"
    return with_given(media(), "/videos/talk.mp4", Given(**{kind: path}, offset=offset), who, alone=alone)


def refused(folder: Path, ending: str, content: Any, who: str | None = None, *, alone: bool = False) -> str:
    with pytest.raises(Rejected) as caught:
        taken(folder, ending, content, who, alone=alone)
    assert caught.value.reason is Reason.UNREADABLE
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 500
    assert caught.value.detail.startswith(f"{folder}/any{ending}: ")
    return caught.value.detail.removeprefix(f"{folder}/any{ending}: ")


# Turns


def test_rttm_and_json_say_the_same(tmp_path: Path) -> None:
    turns = [("ben", 1.8, 2.5), ("ann", 0.5, 2.0), ("ann", 2.4, 3.0), ("ann", 3.0, 3.0)]
    plain = [{"speaker": who, "start": start, "end": end, "confidence": 0.5} for who, start, end in turns]
    by_rttm, by_json = taken(tmp_path, ".rttm", RTTM).turns, taken(tmp_path, ".turns.json", plain).turns
    assert by_rttm == by_json
    assert [(t.speaker, round(t.start, 3), round(t.end, 3)) for t in by_rttm] == [
        (0, 0.5, 2.0), (1, 1.8, 2.5), (0, 2.4, 3.0),
    ]  # fmt: skip


@pytest.mark.parametrize("content", [RTTM.replace("\n", "\r\n"), "\ufeff" + RTTM, RTTM.replace(" ", "\t")])
def test_rttm_as_other_systems_write_it(tmp_path: Path, content: str) -> None:
    assert len(taken(tmp_path, ".rttm", content).turns) == 3


def test_a_list_moves_the_clock(tmp_path: Path) -> None:
    assert taken(tmp_path, ".rttm", RTTM, offset=0.25).turns[0].start == 0.75
    assert len(taken(tmp_path, ".rttm", RTTM.replace("talk 1 ", "talk 1 360"), offset=-3600.0).turns) == 3


def test_a_participant_is_named_or_the_only_speaker(tmp_path: Path) -> None:
    def spans(content: str, who: str | None) -> Any:
        return taken(tmp_path, ".rttm", content, who, alone=True).vad

    assert spans(RTTM, "ben") == ((1.8, 2.5),)
    assert spans(RTTM.replace("ann", "talk"), None)[0] == (0.5, 2.0)  # called as the file is
    only = "".join(line + "\n" for line in RTTM.splitlines() if " ben " in line)
    assert spans(only, "somebody") == ((1.8, 2.5),)
    assert spans("", "ann") == ()  # said, and not unknown: never speaks
    assert "2 speakers (ann, ben), none of whom is called cleo or talk" in refused(
        tmp_path, ".rttm", RTTM, "cleo", alone=True
    )


def test_of_several_recordings_the_one_of_this_name(tmp_path: Path) -> None:
    other = RTTM.replace(" talk ", " walk ").replace(" 0.50 ", " 0.90 ")
    assert taken(tmp_path, ".rttm", other + RTTM).turns == taken(tmp_path, ".rttm", RTTM).turns
    assert taken(tmp_path, ".rttm", other).turns[0].start == 0.9  # the only one
    assert "2 recordings, none of which is called talk" in refused(
        tmp_path, ".rttm", other + other.replace("walk", "run")
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("SPEAKER talk 1 0.5", "line 8 has 4 fields, not SPEAKER file"),
        ("SPEAKER talk 1 <NA> 1.0 <NA> <NA> ann <NA> <NA>", "line 8 has '<NA>' where seconds are expected"),
        ("SPEAKER talk 1 nan 1.0 <NA> <NA> ann <NA> <NA>", "line 8 has 'nan'"),
        ("SPEAKER talk 1 1e999 1.0 <NA> <NA> ann <NA> <NA>", "line 8 has '1e999'"),
        ("SPEAKER talk 1 1.0 1e11 <NA> <NA> ann <NA> <NA>", "the file ends at 4.0 s: another recording, or another"),
        ("SPEAKER talk 1 7200 1.0 <NA> <NA> ann <NA> <NA>", "turns from 0.5 to 7201.0 s"),
        ("SPEAKER talk 1 1.0 1.0 <NA> <NA> \x1b]0;x\x07 <NA> <NA>", "a speaker's name is not one line of text"),
        ("WEBVTT", "line 8 begins with 'WEBVTT', which is no type of RTTM"),
        ("\x00\x1b[2J", "line 8 begins with"),
    ],
)
def test_what_is_no_rttm_is_said_with_its_line(tmp_path: Path, line: str, why: str) -> None:
    assert why in refused(tmp_path, ".rttm", RTTM + line)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00SPEAKER", b"SPEAKER " * 5_000_000,
        "".join(f"SPEAKER t 1 1 1 <NA> <NA> s{n} <NA> <NA>\n" for n in range(65)).encode(),
        b"SPEAKER t 1 1 1 <NA> <NA> s <NA> <NA>\n" * 100_001,
    ],
    ids=["bytes", "40 MB", "65 speakers", "100,001 turns"],
)  # fmt: skip
def test_hostile_turns_are_refused(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, ".rttm", content)


HOSTILE_JSON = {
    "no list": "{}",
    "numbers": "[1, 2]",
    "no speaker": '[{"start": 0, "end": 1}]',
    "1e999": '[{"speaker": "a", "start": 0, "end": 1e999, "time": 1e999, "box": [0, 0, 1, 1]}]',
    "NaN": '[{"speaker": "a", "start": NaN, "end": 1, "time": NaN, "box": [0, 0, 1, 1]}]',
    "three corners": '[{"time": 1, "box": [0, 0, 1]}]',
    "deep": "[" * 100_000,
    "many": "[" + "{}," * 500_000 + "{}]",
    "large": '["' + "a" * (33 << 20) + '"]',
    "none": "",
    "control": '[{"speaker": "\\u001b[2J", "start": 0, "end": 1, "time": 1, "box": [0, 0, 1, 1], "person": "\\u001b"}]',
    "crowd": json.dumps(
        [{"speaker": n, "start": 0, "end": 1, "time": 1, "box": [0, 0, 1, 1], "person": n} for n in range(99)]
    ),
}


@pytest.mark.parametrize("ending", [".turns.json", ".boxes.json"])
@pytest.mark.parametrize("what", HOSTILE_JSON)
def test_hostile_json_is_refused(tmp_path: Path, what: str, ending: str) -> None:
    refused(tmp_path, ending, HOSTILE_JSON[what])


@pytest.mark.slow
def test_the_largest_list_of_boxes_takes_little_memory(tmp_path: Path) -> None:
    """Names of people are as long as names may be."""
    box = b'{"time":1,"box":[1,2,3,4],"person":"' + b"x" * 1000 + b'"},'
    path = written(tmp_path / "talk.boxes.json", b"[" + box * 30_000 + box[:-1] + b"]")
    code = (
        "import sys; from visavis.pipeline.engine.memory import peak_mb as peak\n"
        "from tests.stages.test_given import media\n"
        "from visavis.schemas.rows import Given\nfrom visavis.stages.media.given import with_given\n"
        "before = peak(); with_given(media(), 'talk.mp4', Given(boxes=sys.argv[1]), None, alone=False)\n"
        "print(int(peak() - before))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300


# Boxes


def test_boxes_at_any_times_are_looked_up_at_full_seconds(tmp_path: Path) -> None:
    time = [0.9, 1.2, 2.6, 3.9, -8.0, 99.0]
    box = [[n, n, n + 10.5, n + 10] for n in range(6)]
    by_npz = taken(tmp_path, ".boxes.npz", {"time": np.array(time), "box": np.array(box)}).boxes
    by_json = taken(tmp_path, ".boxes.json", [{"time": t, "box": b} for t, b in zip(time, box, strict=True)]).boxes
    assert by_npz is not None
    assert by_npz.shape == (1, 5, 4)
    assert by_npz.dtype == np.float32
    assert np.array_equal(by_npz, by_json, equal_nan=True)
    assert np.isfinite(by_npz[0, :, 0]).tolist() == [False, True, False, True, True]  # within half a second
    assert by_npz[0, [1, 3, 4], 0].tolist() == [0.0, 2.0, 3.0]


def test_each_person_has_a_plane_and_a_participant_the_own_one(tmp_path: Path) -> None:
    rows = [{"time": t, "box": [n, 0, n + 1, 1], "person": who} for t in range(4) for n, who in enumerate(("ann", 7))]
    both = taken(tmp_path, ".boxes.json", rows).boxes
    own = taken(tmp_path, ".boxes.json", rows, "7", alone=True).boxes
    assert both is not None
    assert own is not None
    assert both[:, 1, 0].tolist() == [0.0, 1.0]
    assert own[:, 1, 0].tolist() == [1.0]
    assert "2 people (ann, 7), none of whom is called ben or talk" in refused(
        tmp_path, ".boxes.json", rows, "ben", alone=True
    )
    person = {"time": np.arange(4), "box": np.ones((4, 4)), "person": np.array([3, 3, 5, 5])}
    found = taken(tmp_path, ".boxes.npz", person, "5", alone=True).boxes
    assert found is not None
    assert np.isfinite(found[0, :, 0]).tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    "content",
    [
        {"box": np.ones((4, 4))}, {"time": np.arange(4)}, {"time": np.arange(3), "box": np.ones((4, 4))},
        {"time": np.arange(4), "box": np.ones((4, 5))}, {"time": np.ones((4, 1)), "box": np.ones((4, 4))},
        {"time": np.arange(4), "box": np.ones((4, 4)), "person": np.ones(4)},
        {"time": np.arange(4), "box": np.ones((4, 4)), "person": np.arange(3)},
        {"time": np.arange(40), "box": np.ones((40, 4)), "person": np.arange(40)},
        {"time": np.arange(4), "box": np.ones((4, 4), bool)},
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, content: dict[str, np.ndarray]) -> None:
    refused(tmp_path, ".boxes.npz", content)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_array_is_refused(tmp_path: Path, what: str) -> None:
    good = npy(np.arange(50.0))
    for members in (
        [("time", HOSTILE[what]), ("box", npy(np.ones((50, 4))))],
        [("time", good), ("box", HOSTILE[what])],
        [("time", good), ("box", npy(np.ones((50, 4)))), ("person", HOSTILE[what])],
        [("time", good), ("box", TRUE)],
    ):
        archive(tmp_path / "any.boxes.npz", [(f"{name}.npy", data) for name, data in members])
        refused(tmp_path, ".boxes.npz", (tmp_path / "any.boxes.npz").read_bytes())


def test_boxes_out_of_this_world_are_none(tmp_path: Path) -> None:
    box = np.array([[0, 0, 1e308, 1], [0, np.nan, 1, 1], [0, 0, np.inf, 1]])
    assert taken(tmp_path, ".boxes.npz", {"time": np.arange(3), "box": box}).boxes is None


# From a folder or a list to the row


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "talk.mp4")
    write_clip(folder / "two.mp4", fps=24)
    return folder


def sources(*inputs: Path) -> list[Source]:
    return list(find_sources([str(i) for i in inputs]))


def copies(folder: Path, clips: Path) -> Path:
    for name in ("talk.mp4", "two.mp4"):
        (folder / name).write_bytes((clips / name).read_bytes())
    return folder


def ingested(source: Source) -> Conversation:
    [row] = IngestStage(IngestConfig(min_duration=1.0)).process(source)
    return load_row(dump_rows([row]), Conversation)


def test_what_lies_beside_a_file_is_found_by_folder_name_and_list(tmp_path: Path, clips: Path) -> None:
    copies(tmp_path, clips)
    (before, _) = sources(tmp_path)
    turns = written(tmp_path / "talk.rttm", RTTM)
    written(tmp_path / "talk.turns.json", [])  # the RTTM goes before it
    boxes = written(tmp_path / "talk.boxes.npz", {"time": np.arange(3), "box": np.ones((3, 4))})
    written(tmp_path / "talk.json", "{}")  # may be anything, and is nothing to us
    listed = written(tmp_path / "list.jsonl", '{"uri": "talk.mp4"}\n{"uri": "two.mp4"}\n')
    first, second = sources(tmp_path)
    assert first.given == (Given(turns=str(turns), boxes=str(boxes)),)
    assert second.given == ()
    assert sources(listed)[0] == sources(tmp_path / "talk.mp4")[0] == first
    assert source_key(before) != source_key(first)
    row = ingested(first).media[0]
    assert len(row.turns) == 3
    assert row.boxes is not None
    assert outline_of(ingested(first)).identity != outline_of(ingested(before)).identity
    written(turns, RTTM.replace("ben", "cleo"))
    assert source_key(sources(tmp_path)[0]) != source_key(first)


def test_a_name_may_hold_a_question_mark(tmp_path: Path, clips: Path) -> None:
    (tmp_path / "what?.mp4").write_bytes((clips / "talk.mp4").read_bytes())
    written(tmp_path / "what?.rttm", RTTM.replace(" talk ", " what? "))
    (source,) = sources(tmp_path / "what?.mp4")
    assert len(ingested(source).media[0].turns) == 3


def test_nothing_changes_for_who_gives_nothing(tmp_path: Path, clips: Path) -> None:
    """Keys and digests are those that builds before this had."""
    (source,) = sources(copies(tmp_path, clips) / "talk.mp4")
    plain = (source.uris, source.participants, source.conversation, source.stamps, source.sidecars)
    assert source_key(source) == sha256(hashable(plain)).hexdigest()[:16]
    assert b'"turns"' not in dump_rows([ingested(source)])


def test_columns_name_files_anywhere(tmp_path: Path, clips: Path) -> None:
    copies(tmp_path, clips)
    (tmp_path / "more").mkdir()
    written(tmp_path / "more" / "x.rttm", RTTM)
    written(tmp_path / "talk.rttm", RTTM.replace("0.50", "0.60"))  # beside it, but the list names another
    row = {"uri": "talk.mp4", "turns": "more/x.rttm", "turns_offset": 0.25, "boxes": None}
    other = {"uri": "two.mp4", "turns": "NaN", "turns_offset": "", "boxes": ""}
    for ending, text in (
        ("jsonl", f"{json.dumps(row)}\n{json.dumps(other)}\n"),
        ("csv", "uri,turns,turns_offset,boxes\ntalk.mp4,more/x.rttm,0.25,\ntwo.mp4,NaN,,\n"),
    ):
        first, second = sources(written(tmp_path / f"list.{ending}", text))
        assert first.given == (Given(turns=f"{tmp_path}/more/x.rttm", offset=0.25),)
        assert second.given == ()
        assert ingested(first).media[0].turns[0].start == 0.75


def test_one_file_of_turns_for_both_of_a_pair(tmp_path: Path, clips: Path) -> None:
    copies(tmp_path, clips)
    written(tmp_path / "all.rttm", RTTM)
    names = {"ann": "talk.mp4", "ben": "two.mp4"}
    rows = [{"uri": uri, "conversation": "c", "participant": who, "turns": "all.rttm"} for who, uri in names.items()]
    (source,) = sources(written(tmp_path / "list.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    row = ingested(source)
    assert [len(m.vad or ()) for m in row.media] == [2, 1]
    assert all(m.turns == () for m in row.media)


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ({"turns": "x.srt"}, "row 1 `turns` is 'x.srt', expected a file that ends in .rttm or .json"),
        ({"boxes": "x.rttm"}, "`boxes` is 'x.rttm', expected a file that ends in .npz or .json"),
        ({"turns": 7}, "`turns` is 7, expected a path or URL"),
        ({"turns": "x.rttm", "turns_offset": "soon"}, "`turns_offset` is 'soon', expected seconds"),
        ({"turns": "x.rttm", "turns_offset": 1e300}, "`turns_offset` is 1e+300, expected seconds"),
        ({"turns": "x.rttm", "turns_offset": True}, "`turns_offset` is True, expected seconds"),
        ({"turns": "ftp://u:p@h/x.rttm"}, "`turns` is 'ftp://"),
    ],
)
def test_a_wrong_cell_is_one_line_before_anything_is_built(tmp_path: Path, cells: dict[str, Any], why: str) -> None:
    path = written(tmp_path / "list.jsonl", json.dumps({"uri": "talk.mp4"} | cells) + "\n")
    with pytest.raises(UsageError) as caught:
        find_sources([str(path)])
    assert why in str(caught.value)
    assert str(caught.value).isprintable()
    assert "u:p" not in str(caught.value)


def test_a_named_file_that_is_not_there_rejects_the_conversation(tmp_path: Path, clips: Path) -> None:
    copies(tmp_path, clips)
    (source,) = sources(written(tmp_path / "list.jsonl", '{"uri": "talk.mp4", "turns": "absent.rttm"}\n'))
    with pytest.raises(Rejected, match=r"unreadable: .*absent\.rttm: No such file"):
        ingested(source)


# From the row to turns


def given(**settings: Any) -> DiarizeStage:
    stage = DiarizeStage(DiarizeConfig(backend="given", strangers=0.0, **settings))
    stage.setup()
    return stage


def test_given_turns_are_the_diarization_and_no_model_is_loaded(
    tmp_path: Path, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "visavis.stages.models.networks", None)
    copies(tmp_path, clips)
    written(tmp_path / "talk.rttm", RTTM)
    [row] = given().process(ingested(sources(tmp_path / "talk.mp4")[0]))
    assert (row.method, row.speakers) == ("given", 2)
    assert [t.speaker for t in row.turns] == [0, 1, 0]
    assert row.turns[0] == Turn(speaker=0, start=0.5, end=2.0)


def test_of_a_pair_both_files_need_turns(tmp_path: Path, clips: Path) -> None:
    copies(tmp_path, clips)
    pair = [(str(tmp_path / "talk.mp4"), str(tmp_path / "two.mp4"))]
    written(tmp_path / "talk.rttm", RTTM.replace("ben", "ann"))
    with pytest.raises(Rejected, match=r"no_turns: two\.mp4: .* no two\.rttm or two\.turns\.json beside it") as caught:
        list(given().process(ingested(next(iter(find_sources([], pair))))))
    assert caught.value.reason is Reason.NO_TURNS
    written(tmp_path / "two.turns.json", [{"speaker": 0, "start": 2.0, "end": 2.5}])
    [row] = given(max_pause=0.0).process(ingested(next(iter(find_sources([], pair)))))
    assert row.method == "vad"
    assert {t.speaker for t in row.turns} == {0, 1}


def test_without_turns_and_with_none_that_speak(tmp_path: Path, clips: Path) -> None:
    copies(tmp_path, clips)
    (source,) = sources(tmp_path / "talk.mp4")
    with pytest.raises(Rejected, match=r"no_turns: talk\.mp4: diarize\.backend is given"):
        list(given().process(ingested(source)))
    written(tmp_path / "talk.rttm", "")
    with pytest.raises(Rejected, match=r"no_speech: .*talk\.rttm: no turns"):
        ingested(sources(tmp_path / "talk.mp4")[0])


# Whose faces these are


class Face(NamedTuple):
    """As much of a person as boxes look at: one face, at one place all the time."""

    x: float

    @property
    def tracks(self) -> Any:
        box = np.tile(np.float32([self.x, 10, self.x + 20, 30]), (100, 1))
        data = SimpleNamespace(valid_T=np.ones(100, np.bool_), first=0, box_V4=box)
        return (SimpleNamespace(data=data),)


def chosen(boxes: Any, wanted: int, *places: float) -> list[float]:
    people: Any = [Face(x) for x in places]
    return [person.x for person in by_boxes(people, None if boxes is None else np.array(boxes, np.float32), wanted)]


def test_who_is_in_no_box_is_no_participant_however_large() -> None:
    left, right = [[0, 0, 60, 100]] * 4, [[200, 0, 300, 100]] * 4
    assert chosen([left, right], 2, 500, 220, 10) == [220, 10]
    assert chosen([right, [[np.nan] * 4] * 4], 2, 500, 220, 10) == [500, 220, 10]  # one alone does not say who two are
    assert chosen([left, left], 2, 500, 220, 10) == [500, 220, 10]
    assert chosen([left], 1, 500, 220, 10)[0] == chosen(left, 1, 500, 220, 10)[0] == 10
    assert chosen(None, 2, 500, 220) == [500, 220]
    assert chosen([left, right], 2) == []

"""Lists as people and programs write them: the same conversations in every format, or one line that says why not."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.pipeline.plan.lists import COLUMNS, MISSING
from visavis.pipeline.plan.sources import find_sources, source_name
from visavis.schemas.config import IngestConfig
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.rows import Source
from visavis.stages.ingest import IngestStage

Rows = list[dict[str, Any]]
FORMATS = ["jsonl", "csv", "parquet"]


def write(folder: Path, kind: str, rows: Rows) -> Path:
    path = folder / f"list.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Source]:
    return list(find_sources([str(path)]))


def people(sources: list[Source]) -> list[tuple[str | None, tuple[str | None, ...]]]:
    return [(source.conversation, source.participants) for source in sources]


def told(path: Path) -> str:
    """What is wrong with a list, in its one line."""
    with pytest.raises(UsageError) as error:
        find_sources([str(path)])
    line = str(error.value)
    assert line.isprintable()
    assert line.startswith(str(path))
    return line.removeprefix(str(path))


def text(folder: Path, content: str | bytes, kind: str = "csv") -> Path:
    path = folder / f"list.{kind}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def notes(path: Path) -> str:
    return "\n".join(find_sources([str(path)]).notes.lines())


# Numbers and missing values


@pytest.mark.parametrize("kind", FORMATS)
def test_zero_is_a_name(tmp_path: Path, kind: str) -> None:
    rows = [{"uri": f"{n}.mp4", "conversation": 0, "participant": n} for n in (0, 1)]
    assert people(read(write(tmp_path, kind, rows))) == [("0", ("0", "1"))]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_number_beside_a_missing_one_is_a_float_to_pandas(tmp_path: Path, kind: str) -> None:
    rows = [{"uri": f"{n}.mp4", "conversation": c, "participant": p} for n, c, p in [(0, 7.0, 1.0), (1, 7.0, 2.0)]]
    rows.append({"uri": "2.mp4", "conversation": float("nan"), "participant": None})
    found = people(read(write(tmp_path, kind, rows)))
    assert found == [("7", ("1", "2")), (None, (None,))]


@pytest.mark.parametrize("missing", sorted(MISSING | {" ", "\t"}))
@pytest.mark.parametrize("kind", FORMATS)
def test_what_spells_a_missing_value(tmp_path: Path, kind: str, missing: str) -> None:
    path = write(tmp_path, kind, [{"uri": "a.mp4", "conversation": missing, "participant": missing}])
    assert people(read(path)) == [(None, (None,))]
    assert (f"with {missing} as `conversation`: read as missing" in notes(path)) == bool(missing.strip())
    assert "row 1" in told(write(tmp_path, kind, [{"uri": missing, "conversation": "c"}]))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0, 1], pa.uint8()),
        pa.array([0, 1], pa.float16()),
        pa.array([Decimal("0.00"), Decimal("1.00")]),
        pa.array(["0", "1"], pa.large_string()),
        pa.array(["0", "1"], pa.string_view()),
        pa.array([b"0", b"1"]),
        pa.array(["0", "1"]).dictionary_encode(),
        pa.array([0, 1]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type)[:20],
)
def test_types_of_parquet(tmp_path: Path, column: pa.Array) -> None:
    same = pa.array(["c", "c"])
    pq.write_table(
        pa.table({"uri": ["a.mp4", "b.mp4"], "conversation": same, "participant": column}), tmp_path / "l.parquet"
    )
    assert people(read(tmp_path / "l.parquet")) == [("c", ("0", "1"))]


def test_times_are_names_too(tmp_path: Path) -> None:
    when = pa.array([datetime(2026, 1, 2, 3)] * 2, pa.timestamp("ns"))
    table = pa.table({"uri": ["a.mp4", "b.mp4"], "conversation": when, "participant": ["x", "y"], "modified": when})
    pq.write_table(table, tmp_path / "l.parquet")
    assert people(read(tmp_path / "l.parquet")) == [("2026-01-02T03:00:00", ("x", "y"))]


@pytest.mark.parametrize(
    ("value", "said"),
    [(True, "True"), (1.5, "1.5"), (1e300, "1e+300"), (["a"], "['a']"), ({"a": 1}, "{'a': 1}"), ("a\x1b[31m", r"\x1b")],
)
def test_what_is_no_name(tmp_path: Path, value: Any, said: str) -> None:
    rows = [{"uri": "a.mp4", "participant": "x"}, {"uri": "b.mp4", "participant": value}]
    line = told(write(tmp_path, "jsonl", rows))
    assert line.startswith(
        f": row 2 `participant` is {said}" if not isinstance(value, str) else ": row 2 `participant`"
    )
    assert said in line
    assert "expected" in line


@pytest.mark.parametrize("kind", [pa.bool_(), pa.list_(pa.int8()), pa.struct([("a", pa.int8())])])
def test_columns_of_parquet_that_hold_no_names(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"uri": ["a.mp4"], "participant": pa.array([None], kind)})
    pq.write_table(table, tmp_path / "l.parquet")
    assert "column `participant` is" in told(tmp_path / "l.parquet")


@pytest.mark.parametrize("value", [3, None, True, ["a.mp4"], "", "nosuch://b/a.mp4", "a\x00.mp4", "\ud800.mp4"])
def test_what_is_no_uri(tmp_path: Path, value: Any) -> None:
    line = told(write(tmp_path, "jsonl", [{"uri": "a.mp4"}, {"uri": value}]))
    assert line.startswith(": row 2 ")
    assert "uri" in line


# Who belongs to whom


def rejection(source: Source) -> Reason | None:
    try:
        list(IngestStage(IngestConfig()).process(source))
    except Rejected as rejected:
        return rejected.reason
    return None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("names", [("A", "B", "C"), ("A", "A", "B")])
@pytest.mark.parametrize("kind", FORMATS)
def test_three_of_one_conversation_are_left_out_whatever_their_order(
    tmp_path: Path, kind: str, names: tuple[str, ...], order: tuple[int, ...]
) -> None:
    rows = [{"uri": f"{n}.mp4", "conversation": "c", "participant": names[n]} for n in order]
    rows.insert(1, {"uri": "single.mp4", "conversation": "", "participant": ""})
    found = find_sources([str(write(tmp_path, kind, rows))])
    single, crowd = found
    assert len(found) == 2
    assert (source_name(single), sorted(source_name(crowd).split(" + "))) == ("single.mp4", ["0.mp4", "1.mp4", "2.mp4"])
    assert rejection(crowd) is Reason.INCOMPLETE_DYAD


@pytest.mark.parametrize("order", ["ABAB", "AABB", "ABBA"])
def test_rows_that_come_twice_are_the_same_dyad_twice(tmp_path: Path, order: str) -> None:
    rows = [{"uri": f"{who}.mp4", "conversation": "c", "participant": who} for who in order]
    first, again = read(write(tmp_path, "csv", rows))
    assert first == again
    assert first.participants == ("A", "B")


def test_half_of_a_name(tmp_path: Path) -> None:
    rows = [
        {"uri": "a.mp4", "conversation": "c", "participant": None},
        {"uri": "b.mp4", "conversation": None, "participant": "B"},
    ]
    both, alone = read(write(tmp_path, "jsonl", rows))
    assert both.participants == (None,)
    assert rejection(alone) is Reason.INCOMPLETE_DYAD
    said = notes(tmp_path / "list.jsonl")
    assert "1 row with a conversation and no participant" in said
    assert "1 row with a participant and no conversation" in said


def test_a_column_that_holds_something_else_than_conversations(tmp_path: Path) -> None:
    rows = [{"uri": f"{n}.mp4", "conversation": "corpus", "participant": n} for n in range(100)]
    with pytest.raises(UsageError, match="'corpus' has more than 64 files"):
        read(write(tmp_path, "csv", rows))


# Columns


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_that_are_not_read_are_named(tmp_path: Path, kind: str) -> None:
    rows = [{"uri": "a.mp4", "conversation_id": "c", "Participant": "x", "fps": 25}]
    said = notes(write(tmp_path, kind, rows))
    assert "columns not read: conversation_id, Participant, fps" in said
    assert "is `conversation_id` meant as `conversation`?" in said
    assert "is `Participant` meant as `participant`?" in said


@pytest.mark.parametrize("name", ["URI", "url", "path", "Uri", "urii"])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_list_without_uri(tmp_path: Path, kind: str, name: str) -> None:
    line = told(write(tmp_path, kind, [{name: "a.mp4", "size": 3}]))
    assert "no column `uri`" in line or "row 1 has no `uri`" in line
    assert f"is `{name}` meant as `uri`?" in line


def test_a_column_twice(tmp_path: Path) -> None:
    assert "2 columns are named `uri`" in told(text(tmp_path, "uri,uri \na.mp4,b.mp4\n"))
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["uri", "uri"]), tmp_path / "l.parquet")
    assert "2 columns are named `uri`" in told(tmp_path / "l.parquet")
    assert "'uri' comes twice" in told(text(tmp_path, '{"uri": "a", "uri": "b"}\n', "jsonl"))


def test_sizes_and_times_make_the_stamp_of_a_file_elsewhere(tmp_path: Path) -> None:
    rows = [{"uri": "s3://b/a.mp4", "size": 5_000_000, "modified": "2026-01-02"}]
    stamps = {kind: read(write(tmp_path, kind, rows))[0].stamps for kind in FORMATS}
    assert set(stamps.values()) == {("5000000:2026-01-02",)}
    assert "`size` is '5 MB', expected a whole number of bytes" in told(text(tmp_path, "uri,size\ns3://b/a.mp4,5 MB\n"))


# CSV


@pytest.mark.parametrize("rows", [3, 6000])
def test_a_quote_that_is_never_closed(tmp_path: Path, rows: int) -> None:
    lines = ["uri,conversation,participant", *(f"{n}.mp4,c{n // 2},p{n % 2}" for n in range(rows))]
    lines[2] = '1.mp4,"c0,p1'
    assert told(text(tmp_path, "\n".join(lines))) == ": row 2 (line 3) has a quote that is never closed"


def test_a_quote_that_swallows_rows_up_to_the_next(tmp_path: Path) -> None:
    path = text(tmp_path, 'uri,conversation\na.mp4,"c\nb.mp4,d\nc.mp4,e"\n')
    assert "row 1 (line 2) `conversation` is" in told(path)
    assert "is a quote never closed?" in told(text(tmp_path, 'uri,x\n"a.mp4\nb.mp4\nc.mp4",x\n'))
    assert "row 1 (line 2) has quotes amiss" in told(text(tmp_path, 'uri,x\na.mp4,"c\nb.mp4,"d"\n'))
    assert "1 row on more than one line" in notes(text(tmp_path, 'uri,said\na.mp4,"two\nlines"\n'))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("uri,conversation\na.mp4\n", "row 1 (line 2) has 1 field, the header has 2"),
        ("uri\na.mp4\nb,c.mp4\n", "row 2 (line 3) has 2 fields, the header has 1"),
        ('uri,conversation\na.mp4, "c"\n', "expected the quote right after"),
        ("uri\n" + "x" * (1 << 21), "a line of more than a million characters"),
        ("uri,x\na.mp4,caf\\xe9\n" * 2, "row 2"),
        ("", "no rows"),
        ("uri,conversation\n", "no rows"),
        ("\n\n", "no rows"),
        ("\0\0\0\0", "save it as UTF-8"),
        ("# made by hand\nuri\na.mp4\n", "no column `uri`"),
    ],
)
def test_wrong_csv(tmp_path: Path, content: str, message: str) -> None:
    if message == "row 2":  # a header that was repeated is a row like any other, whose uri is `uri`
        assert len(read(text(tmp_path, content))) == 3
    else:
        assert message in told(text(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(tmp_path: Path, encoding: str, end: str, between: str) -> None:
    lines = [["uri", " conversation ", "participant"], ["é.mp4", "c", " A "], ["", "", ""], ["b,;.mp4", "c", "B"], []]
    content = end.join(between.join(f'"{c}"' if between in c else c for c in line) for line in lines)
    path = text(tmp_path, content.encode(encoding))
    (source,) = read(path)
    assert (source_name(source), source.participants) == ("é.mp4 + b,;.mp4", ("A", "B"))


def test_an_encoding_that_nothing_tells(tmp_path: Path) -> None:
    path = text(tmp_path, "uri\nok.mp4\ncafé.mp4\n".encode("latin-1"))
    assert told(path).startswith(r": row 2 (line 3) `uri` is 'caf\xe9.mp4', expected UTF-8")
    Path(str(tmp_path).encode().decode() + "/caf\udce9.mp4").write_bytes(b"x")  # `ls > list.csv`, of such a name
    assert source_name(read(path)[1]) == r"caf\xe9.mp4"
    path = text(tmp_path, "uri,conversation\na.mp4,café\n".encode("latin-1"))
    assert r"`conversation` is 'caf\xe9', expected a name in UTF-8" in told(path)


# JSON lines and Parquet


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"uri": "a.mp4"}]', "one object a line"),
        ('[\n{"uri": "a.mp4"}\n]', "one object a line"),
        ('{"uri": "a.mp4"}\n{"uri": "b.m', "row 2 is not JSON"),
        ('{"uri": "a.mp4"}\n\n\n{"uri"', "row 2 (line 4) is not JSON"),
        ('{"uri": "a.mp4"} {"uri": "b.mp4"}', "more text after character 16"),
        ("[" * 100_000, "row 1 is not JSON"),
        ('"a.mp4"', "row 1 is no JSON object"),
        ("# a comment", "row 1 is not JSON"),
        ("", "no rows"),
    ],
)
def test_wrong_json_lines(tmp_path: Path, content: str, message: str) -> None:
    assert message in told(text(tmp_path, content, "jsonl"))


def test_nan_is_missing_and_infinity_is_nothing(tmp_path: Path) -> None:
    (source,) = read(text(tmp_path, '{"uri": "a.mp4", "conversation": NaN}', "jsonl"))
    assert source.conversation is None
    assert "`conversation` is inf" in told(text(tmp_path, '{"uri": "a.mp4", "conversation": Infinity}', "jsonl"))


def test_compressed_lists(tmp_path: Path) -> None:
    for kind, content in (("jsonl.gz", b'{"uri": "a.mp4"}\n' * 99), ("csv.gz", b"uri\n" + b"a.mp4\n" * 99)):
        packed = gzip.compress(content)
        assert len(read(text(tmp_path, packed, kind))) == 99
        assert "not a readable" in told(text(tmp_path, packed[:-9], kind))
        assert "not a readable" in told(text(tmp_path, content, kind))


def test_a_parquet_that_is_cut_off_or_empty(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", [{"uri": "a.mp4"}])
    whole = path.read_bytes()
    for end in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert "not a readable .parquet list" in told(path)
    pq.write_table(pa.table({"uri": pa.array([], pa.string())}), path)
    assert "no rows" in told(path)


# Anything at all

_NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(
    lambda name: name not in MISSING and not name.startswith(('"', "~")) and not name.endswith(".0")
)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "uri": _NAMES.map(lambda name: name.replace("/", "_") + ".mp4"),
            "conversation": st.none() | _NAMES | st.integers(0, 3),
            "participant": st.none() | _NAMES | st.integers(-1, 3),
            "more": st.none() | st.text("ab\n\",;'", max_size=5),
        }
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as made:
        yield Path(made)


@given(rows=_ROWS)
def test_every_format_gives_the_same_sources(folder: Path, rows: Rows) -> None:
    texts = [{name: None if v is None else str(v) for name, v in row.items()} for row in rows]
    by_json = read(write(folder, "jsonl", rows))
    assert read(write(folder, "csv", rows)) == by_json
    assert read(write(folder, "parquet", texts)) == by_json
    assert sum(len(set(source.uris)) for source in by_json) <= len(rows)
    assert {uri for source in by_json for uri in source.uris} == {f"{folder}/{row['uri']}" for row in rows}


_PIECES = st.lists(
    st.sampled_from(
        [b"uri", b"conversation", b"participant", b",", b";", b'"', b"\n", b"\r", b"\0", b"\xff\xfe", b"\xef\xbb\xbf"]
        + [b'{"uri": ', b'"a.mp4"', b"}", b"[", b"NaN", b"1e999", b"9" * 5000, b"s3://", b"file://", b"%", b"..", b"~/"]
        + [b"PAR1", b"\x1f\x8b\x08\x00", b" ", b"\xed\xa0\x80", b'"\\ud800"', b'"\\udc80"', b"\\u0000"]
    )
    | st.binary(max_size=6),
    max_size=25,
).map(b"".join)


def read_or_told(path: Path) -> tuple[list[Source], str]:
    try:
        return read(path), ""
    except UsageError as error:
        fault = str(error)
    assert fault.isprintable()
    return [], fault


@given(content=_PIECES | st.binary(max_size=200), kind=st.sampled_from(["jsonl", "csv", "tsv", "parquet", "csv.gz"]))
def test_any_bytes_are_a_list_or_wrong_use(folder: Path, content: bytes, kind: str) -> None:
    path = text(folder, content, kind)
    sources, fault = read_or_told(path)
    assert bool(sources) != bool(fault)
    for source in sources:
        assert source_name(source).isprintable()
        assert Source.model_validate_json(source.model_dump_json()) == source


@given(data=st.data())
def test_a_parquet_with_a_byte_changed_is_a_list_or_wrong_use(folder: Path, data: st.DataObject) -> None:
    rows = [{"uri": f"{n}.mp4", "conversation": "c", "participant": n, "size": n} for n in range(2)]
    content = bytearray(write(folder, "parquet", rows).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    sources, fault = read_or_told(text(folder, bytes(content), "parquet"))
    assert bool(sources) != bool(fault)


@pytest.mark.slow
def test_a_footer_that_contradicts_itself_does_not_end_the_process(folder: Path) -> None:
    """pyarrow ends it, when asked what a group of rows says of a column that another bit made one of fractions."""
    rows = [{"uri": f"{n}.mp4", "conversation": "c", "participant": n, "size": n} for n in range(2)]
    whole = write(folder, "parquet", rows).read_bytes()
    first = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place in range(first, first + 100):
        for bit in (1, 4):
            content = bytearray(whole)
            content[place] ^= bit
            sources, fault = read_or_told(text(folder, bytes(content), "parquet"))
            assert bool(sources) != bool(fault)


def test_the_columns_are_those_of_the_readme() -> None:
    assert COLUMNS == ("uri", "conversation", "participant", "size", "modified", "turns", "boxes", "turns_offset")

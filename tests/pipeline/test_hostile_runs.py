"""A run's folder of somebody else's making: it is read right or refused in one line, and takes no memory for it."""

from __future__ import annotations

import errno
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory import peak_from_now
from visavis.pipeline.cli.status import read_status, status_tables
from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.engine.worker import Worker
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.index import ItemIndex, parse_facts
from visavis.pipeline.state.ledger import FOLDER, Ledger, Outcome
from visavis.schemas.artifact import dump_rows, load_heads, load_row, load_rows, read_note
from visavis.schemas.dyads import Codec, DyadHead, NeutralFaces
from visavis.schemas.errors import DatasetError, RunFailed, UsageError
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.rows import Outline, Turn
from visavis.schemas.storage.store import Store

PART = "000001-000000_000001-000000.parquet"
OUTCOME = Outcome(
    stage="ingest", key="0123456789abcdef", item="a.mp4", status="ok", reason="", detail="", inputs="0" * 16,
    output="1" * 16, facts="{}", media=1.0, seconds=1.0, peak_mb=1.0, host="h", attempt=1, ended=1.0, fingerprint="f",
)  # fmt: skip


def run_folder(folder: Path) -> Store:
    store = Store(str(folder))
    store.write("run.json", json.dumps({"config": {"seed": 1}, "fingerprints": {"ingest": "f"}}).encode())
    store.write("state.json", b'{"state": "stopped", "began": 1.0, "phase": "ingest", "finished": 1, "total": 2}')
    ledger = Ledger(store)
    ledger.append(OUTCOME)
    ledger.flush()
    return store


def test_a_folder_of_ours_is_read(tmp_path: Path) -> None:
    store = run_folder(tmp_path)
    status = read_status(store.root, "dataset")
    assert status["stages"]["ingest"]["ok"] == 1
    assert status["state"]["total"] == 2
    known = ItemIndex(Ledger(store), store).get("ingest", OUTCOME.key)
    assert known is not None
    assert known.output == OUTCOME.output
    assert [row._replace(run=0) for row in Ledger(store).latest().values()] == [OUTCOME]


RUN_FILES = [
    b"", b"null", b"[]", b"[" * 100_000, b'{"config": 1, "fingerprints": {}}', b'{"config": {}, "fingerprints": [1]}',
    b'{"config": {}, "fingerprints": {"ingest": {"a": 1}}}', b'{"config": {}, "config": {}}', b'{"config": NaN}',
    b'{"config": {}, "fingerprints": {"\\u001b[2J": "x"}}', b"\xff\xfe", b'{"config": {"a": ' + b"[" * 400 + b"]" * 400,
    b'{"config": {"a": ' + b"[" * 400 + b"]" * 400 + b"}}", b'{"config": {"a": ' + b"9" * 5000 + b"}}",
]  # fmt: skip


@pytest.mark.parametrize("data", RUN_FILES)
def test_settings_that_are_none_are_wrong_use(tmp_path: Path, data: bytes) -> None:
    store = run_folder(tmp_path)
    store.write("run.json", data)
    with pytest.raises(UsageError, match="not what a run writes") as caught:
        read_settings(store)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["run.json", "state.json", "lock.json", "progress.json", f"ledger/{PART}"])
def test_a_file_of_terabytes_is_not_read(tmp_path: Path, name: str) -> None:
    store = run_folder(tmp_path)
    store.write("state.json", b'{"state": "running"}')  # so that progress.json is looked at
    with (tmp_path / name).open("ab") as file:
        file.truncate(1 << 42)
    if name in ("state.json", "lock.json"):  # as if there were none
        assert read_status(store.root, "dataset")["state"]["state"] in ("stopped", "killed")
        return
    with pytest.raises((UsageError, OSError), match=r"at most|is not what a run writes"):
        read_status(store.root, "dataset")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b'{"state": "\\u001b[2J"}', b'{"state": ["running"]}', b'{"state": "failed", "message": 5}',
        b'{"state": "stopped", "phase": "\\u001b[2J", "finished": 1, "total": 1}', b"[" * 100_000,
        b'{"state": "stopped", "finished": 1e999}', b"\xff",
    ],
)  # fmt: skip
def test_a_state_that_is_none_counts_as_stopped(tmp_path: Path, data: bytes) -> None:
    store = run_folder(tmp_path)
    store.write("state.json", data)
    status = read_status(store.root, "dataset")
    assert status["state"] == {"state": "stopped"}
    assert status_tables(status)


def ledger_of(store: Store, table: pa.Table, name: str = PART, **options: Any) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    store.write(f"{FOLDER}/{name}", sink.getvalue().to_pybytes())


def rows(count: int, **changes: Any) -> pa.Table:
    row = OUTCOME._asdict() | {"uid": 1} | changes
    columns = {}
    for name, value in row.items():
        kind = pa.uint64() if name == "uid" else None
        column = pa.array([value], kind)
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), column)
    return pa.table(columns)


LEDGERS: dict[str, Callable[[Store], object]] = {
    "many rows": lambda store: ledger_of(store, pa.table({"uid": pa.array(np.zeros(3_000_000, np.uint64))})),
    "one long text in many rows": lambda store: ledger_of(store, rows(400_000, facts="x" * 100_000)),
    "no parquet": lambda store: store.write(f"{FOLDER}/{PART}", b"PAR1" + bytes(100) + b"PAR1"),
    "nothing": lambda store: store.write(f"{FOLDER}/{PART}", b""),
    "other types": lambda store: ledger_of(store, pa.table({"uid": ["a"], "stage": [1], "facts": [[1]]})),
    "no digests": lambda store: ledger_of(store, rows(3, inputs="zz", output="../../x")),
    "long digests": lambda store: ledger_of(store, rows(3, inputs="f" * 99)),
}


@pytest.mark.parametrize("name", LEDGERS)
def test_a_ledger_that_is_none_is_wrong_use(tmp_path: Path, name: str) -> None:
    store = run_folder(tmp_path)
    LEDGERS[name](store)
    before = peak_from_now()
    with pytest.raises(UsageError, match="ledger"):
        ItemIndex(Ledger(store), store)
    assert peak_mb() < before + 300


def test_what_is_no_part_of_a_ledger_is_left_alone(tmp_path: Path) -> None:
    store = run_folder(tmp_path)
    for name in ("mine.parquet", "1-2_x.parquet", "000001-000000.parquet"):
        store.write(f"{FOLDER}/{name}", b"mine")
    ledger = Ledger(store)
    ledger.tidy()
    assert len(ledger.latest()) == 1
    assert store.read(f"{FOLDER}/mine.parquet") == b"mine"


@pytest.mark.parametrize("facts", ["", "{}", "[" * 5000, '{"id": "../../x"}', '{"id": "zz", "frames": 1}', "\ud800"])
def test_facts_that_are_none_end_the_run_in_one_line(facts: str) -> None:
    with pytest.raises(RunFailed, match="no Outline"):
        parse_facts(facts, Outline)


# ---- artifacts ----

CODEC = Codec(
    id="c", kind="landmark-pca", given=0, network="", mean=np.zeros(LANDMARKS * 3, np.float32),
    basis=np.zeros((2, LANDMARKS * 3), np.float32), explained=1.0,
)  # fmt: skip
_good = dump_rows([CODEC])


def header(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(8, "little") + data


def wrapped(inner: str) -> bytes:
    return header(json.dumps({"__metadata__": {"visavis": inner}}))


def claiming(**tensor: Any) -> bytes:
    return header(json.dumps({"__metadata__": {"visavis": "{}"}, "a": tensor}))


ARTIFACTS = {
    "nothing": b"",
    "huge header": (2**63).to_bytes(8, "little") + b"{}",
    "deep": header("[" * 100_000),
    "deep inside": wrapped("[" * 100_000),
    "deep row": wrapped('{"kind": "Codec", "note": {}, "rows": [' + '{"a": ' * 500 + "1" + "}" * 500 + "]}"),
    "claims terabytes": claiming(dtype="F32", shape=[1 << 40], data_offsets=[0, 1 << 42]),
    "overflows": claiming(dtype="F32", shape=[1 << 62, 1 << 62], data_offsets=[0, 0]),
    "another type": claiming(dtype="BF16", shape=[1], data_offsets=[0, 2]) + b"\0\0",
    "twice": wrapped('{"rows": [], "rows": []}'),
    "no rows": wrapped('{"kind": "Codec", "rows": 5, "note": {}}'),
    "none at all": dump_rows([]),
    "two": dump_rows([CODEC, CODEC]),
    "array that is not there": wrapped('{"kind": "Codec", "note": {}, "rows": [{"mean": {"$array": "x"}}]}'),
    "path for an id": _good.replace(b'\\"id\\": \\"c\\"', b'\\"id\\": \\"/\\"'),
    "cut": _good[:-5],
    "longer": _good + b"x",
}


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_artifact_that_is_none_is_refused(name: str) -> None:
    assert ARTIFACTS[name] != _good
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="not a readable") as caught:
            load_row(ARTIFACTS[name], Codec)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change", [{"mean": np.zeros(3, np.float32)}, {"basis": np.zeros(5, np.float32)}, {"given": 9}]
)
def test_a_codec_that_does_not_fit_together_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="not a readable Codec"):
        load_row(dump_rows([CODEC.model_copy(update=change)]), Codec)


_changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8)


@given(_changes, st.none() | st.integers(0, 600))
def test_any_damage_to_an_artifact_has_one_outcome(changes: list[tuple[int, int]], end: int | None) -> None:
    spoilt = bytearray(_good)
    for at, value in changes:
        spoilt[at % 600] = value
    data = bytes(spoilt if end is None else spoilt[:end])
    for read in (
        lambda: load_rows(data, Codec),
        lambda: read_note(data),
        lambda: load_heads(lambda size: data[:size], DyadHead),
        lambda: load_rows(data, NeutralFaces),
        lambda: load_rows(data, Turn),
    ):
        said = ""
        try:
            read()
        except DatasetError as error:
            said = str(error)
        assert said.isprintable()


def test_a_folder_whose_name_begins_as_the_runs_does_is_another(tmp_path: Path) -> None:
    worker = Worker({}, str(tmp_path / "out"))
    ours = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out" / "a"))
    other = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "outside" / "a"))
    assert isinstance(worker._output_fault(ours), RunFailed)
    assert worker._output_fault(other) is None

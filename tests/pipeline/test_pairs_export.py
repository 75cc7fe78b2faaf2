"""Windows and pairs as Parquet: everything another trainer needs, read back without our code."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.training.synthetic import DIM, write_dataset
from visavis.pipeline.app import main
from visavis.pipeline.cli.export import ROWS, export_dataset
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError
from visavis.training.dataset import Dataset

FRAMES = 50


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("pairs"), {WindowClass.LISTENING: 10}, pairs=True, shards=3)


def test_read_back_it_is_what_the_shards_hold(pairs: Path, tmp_path: Path) -> None:
    assert export_dataset(Dataset(str(pairs)), f"{tmp_path}/deep/pairs.parquet") == 10
    table = pq.read_table(tmp_path / "deep" / "pairs.parquet")
    data = Dataset(str(pairs))
    for row, sample in zip(table.to_pylist(), data.samples("train"), strict=True):
        assert sample.pair is not None
        assert (row["key"], row["conversation"], row["label"]) == (sample.key, sample.meta.conversation, "listening")
        for name, array in (
            ("chosen", sample.chosen),
            ("rejected", sample.rejected),
            ("user_motion", sample.user_motion),
            ("reference", sample.reference),
            ("state", sample.state),
            ("avatar_valid", sample.valid[:, 0]),
            ("user_valid", sample.valid[:, 1]),
        ):
            np.testing.assert_array_equal(np.array(row[name]), array)
        sound, rate = soundfile.read(io.BytesIO(row["user_audio"]["bytes"]), dtype="int16")
        assert (rate, len(sound)) == (SAMPLE_RATE, FRAMES * SAMPLES_PER_FRAME)
        np.testing.assert_array_equal(sound, np.round(sample.user_audio * 32767))
        assert json.loads(row["pair"])["generator"] == sample.pair.generator
        assert json.loads(row["meta"])["conversation"] == sample.meta.conversation


def test_the_schema_says_how_to_read_it_and_where_it_is_from(pairs: Path, tmp_path: Path) -> None:
    export_dataset(Dataset(str(pairs)), str(tmp_path / "pairs.parquet"))
    schema = pq.read_schema(tmp_path / "pairs.parquet")
    kind = schema.field("chosen").type
    assert (kind.list_size, kind.value_type.list_size, str(kind.value_type.value_type)) == (FRAMES, DIM, "float")
    assert schema.metadata[b"visavis.manifest_sha256"].decode() == Dataset(str(pairs)).hash
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert set(features) == set(schema.names)
    assert features["user_audio"] == {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}
    frame = {"feature": {"dtype": "float32", "_type": "Value"}, "length": DIM, "_type": "Sequence"}
    assert features["chosen"] == {"feature": frame, "length": FRAMES, "_type": "Sequence"}


def test_it_is_whole_or_absent_and_the_same_again(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visavis.pipeline.cli.export.ROWS", 4)
    export_dataset(Dataset(str(pairs)), str(tmp_path / "a.parquet"))
    export_dataset(Dataset(str(pairs)), str(tmp_path / "b.parquet"))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    parts = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [parts.row_group(i).num_rows for i in range(parts.num_row_groups)] == [4, 4, 2]
    assert ROWS > 4
    broken = write_dataset(tmp_path / "broken", {WindowClass.LISTENING: 10}, pairs=True, shards=5)
    last = sorted(broken.glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes()[:-512] + bytes(512)[:-1] + b"x")
    with pytest.raises(DatasetError, match="sha256"):
        export_dataset(Dataset(str(broken)), str(tmp_path / "c.parquet"))
    assert [p.name for p in tmp_path.glob("*c.parquet*")] == []


def test_windows_are_exported_with_both_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = write_dataset(tmp_path / "windows", {WindowClass.LISTENING: 3, WindowClass.SILENCE: 2}, val=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["visavis", "export", str(windows)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out == "7 windows\nruns/windows.parquet\n"
    table = pq.read_table(tmp_path / "runs" / "windows.parquet")
    assert {"chosen", "rejected", "pair"}.isdisjoint(table.column_names)
    assert all(column.null_count == 0 for column in table.columns)
    data, rows = Dataset(str(windows)), table.to_pylist()
    assert [row["split"] for row in rows] == ["train"] * 5 + ["val"] * 2
    for row, sample in zip(rows, [*data.samples("train"), *data.samples("val")], strict=True):
        assert row["key"] == sample.key
        np.testing.assert_array_equal(np.array(row["avatar_motion"]), sample.avatar_motion)

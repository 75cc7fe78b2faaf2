"""What public readers make of shards and of their Parquet: every row, every column, whatever is not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from tests.training.synthetic import as_pair, sample, write_dataset
from visavis.pipeline.cli.export import export_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.face_rows import Figures
from visavis.schemas.plain import dump_record
from visavis.schemas.voice_rows import VoiceFigures
from visavis.training.dataset import Dataset

SEEN = Figures(**dict.fromkeys(Figures.model_fields, 0.5))
COUNT = 12


def vary(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
    """Unknown in the first five samples, from which `datasets` learns the types; known in some of the others."""
    number = int(key[-5:])
    window = sample(number)
    known = number >= 6 and number % 2 == 0
    voice = VoiceFigures(method="mask", residual_db=-20.5 if known else None, overlapped=0.1)
    changes: dict[str, Any] = {"avatar_voice": voice, "user_voice": voice if known else None}
    changes["avatar_figures"] = SEEN if known else None
    members = members | {"meta.json": dump_record(window.meta.model_copy(update=changes))}
    record = as_pair(replace(window)).pair
    if "pair.json" in members and record is not None:
        update = {"event_margin": -0.25 if known else None, "dropped": ("user_audio",) if known else ()}
        members["pair.json"] = dump_record(record.model_copy(update=update))
    return members


@pytest.fixture(scope="module", params=["windows", "pairs"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return write_dataset(folder, {WindowClass.LISTENING: COUNT}, pairs=request.param == "pairs", damage=vary)


def test_plain_webdataset_decodes_every_member_but_the_voices(dataset: Path) -> None:
    files = sorted(map(str, dataset.glob("*.tar")))
    rows = list(webdataset.WebDataset(files, shardshuffle=False).decode())
    assert len(rows) == COUNT
    for row in rows:
        assert {"avatar.motion.npy", "meta.json", "state.npy"} <= set(row)
        assert isinstance(row["avatar.audio.flac"], bytes)  # webdataset needs torchaudio for sound
        assert row["avatar.motion.npy"].shape == (50, 12)
        assert set(row["meta.json"]) == set(rows[0]["meta.json"])


def test_one_schema_fits_all_samples_whichever_come_first(dataset: Path) -> None:
    """`datasets` casts every later sample to what the first five taught."""
    rows = [
        {name: json.loads(data) for name, data in members.items() if str(name).endswith(".json")}
        for entry in Dataset(str(dataset)).manifest.of("train")
        for _, members in Dataset(str(dataset)).shard(entry)
    ]
    for first in (rows[:5], rows[5:], rows[6::2]):
        schema = pa.Table.from_pylist(first).schema
        table = pa.concat_tables([pa.Table.from_pylist([row]).cast(schema) for row in rows])
        assert table.num_rows == COUNT


def test_parquet_has_no_null_and_reads_as_tables_do(dataset: Path, tmp_path: Path) -> None:
    assert export_dataset(Dataset(str(dataset)), str(tmp_path / "x.parquet")) == COUNT
    table = pq.read_table(tmp_path / "x.parquet")
    assert all(column.null_count == 0 for column in table.columns)
    frame = table.to_pandas()
    assert len(frame) == COUNT
    metas = [json.loads(text) for text in frame["meta"]]
    assert len({tuple(sorted(meta)) for meta in metas}) == 1
    assert np.stack(frame["user_motion"].iloc[0]).shape == (50, 12)


@pytest.fixture
def hugging(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_hugging_face_datasets_loads_it(
    dataset: Path, tmp_path: Path, hugging: Any, form: str, streaming: bool
) -> None:
    files: dict[str, Callable[[], list[str]]] = {
        "webdataset": lambda: sorted(map(str, dataset.glob("*.tar"))),
        "parquet": lambda: [str(tmp_path / "x.parquet")],
    }
    export_dataset(Dataset(str(dataset)), str(tmp_path / "x.parquet"))
    found = hugging.load_dataset(
        form, data_files=files[form](), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    voices = [name for name, feature in found.features.items() if isinstance(feature, hugging.Audio)]
    assert len(voices) == 2
    for name in voices:
        found = found.cast_column(name, hugging.Audio(decode=False))
    rows = list(found)
    assert len(rows) == COUNT
    assert all(row[name]["bytes"][:4] == b"fLaC" for row in rows for name in voices)

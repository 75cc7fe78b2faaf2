"""Preference pairs as one Parquet file for trainers other than ours.

    datasets.load_dataset("parquet", data_files="pairs.parquet")

What both sides were asked for (`user_motion`, `reference`, both voices, who speaks when) is the prompt; `chosen` and
`rejected` are TRL's words. Motion is a fixed list of T frames of D numbers, a voice the FLAC file as it lies in the
shard with its sampling rate in the schema; the schema's metadata tells Hugging Face's `datasets` so, and which manifest
the pairs came from. Where a window comes from and how its sides were made are JSON in `meta` and `pair`.

Written row group by row group, so memory holds one shard of pairs, and visible when it is whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import UsageError
from schemas.manifest import Manifest
from schemas.sample import Sample
from stages.store import Store
from training.data import Dataset
from training.epochs import Members

ROWS = 256
"""Of a row group: some 25 MB."""

_VOICE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def export_pairs(dataset: str, out: str) -> int:
    """Write a set of pairs to one Parquet file.

    Args:
        out: path or URL; what is there is replaced.

    Returns: how many pairs there are.

    Raises:
        UsageError: not a set of pairs.
        DatasetError: a shard or sample is unreadable.
    """
    data = Dataset(dataset)
    if data.manifest.kind != "pairs":
        raise UsageError(f"{dataset} holds {data.manifest.kind}, not pairs; make some with `visavis pairs`")
    folder, _, name = out.rpartition("/")
    schema = pairs_schema(data.manifest, data.hash)
    rows, count = _rows(data), 0
    with Store(folder or ".").writer(name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(rows, ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(some, schema))
            count += len(some)
    return count


def pairs_schema(manifest: Manifest, digest: str) -> pa.Schema:
    """Columns of the file, and in its metadata what reads them as what."""
    frames, dim = manifest.window, manifest.motion.dim
    motion = _fixed(_fixed(pa.float32(), dim), frames)
    types = {
        "key": pa.string(),
        "conversation": pa.string(),
        "label": pa.string(),
        "user_motion": motion,
        "reference": _fixed(pa.float32(), dim),
        "avatar_audio": _VOICE,
        "user_audio": _VOICE,
        "state": _fixed(pa.uint8(), frames),
        "avatar_valid": _fixed(pa.bool_(), frames),
        "user_valid": _fixed(pa.bool_(), frames),
        "chosen": motion,
        "rejected": motion,
        "meta": pa.string(),
        "pair": pa.string(),
    }
    features = {name: _feature(kind, manifest.sample_rate) for name, kind in types.items()}
    return pa.schema(
        [pa.field(name, kind) for name, kind in types.items()],
        {
            "huggingface": json.dumps({"info": {"features": features}}),
            "visavis.manifest_sha256": digest,
            "visavis.motion": manifest.motion.model_dump_json(),
            "visavis.pairs": manifest.pairs.model_dump_json() if manifest.pairs else "",
        },
    )


def _rows(data: Dataset) -> Iterator[dict[str, Any]]:
    for entry in data.manifest.of("train"):
        for key, members in data.groups(entry, data.fetch(entry)):
            yield _row(data.decode(key, members), members)


def _row(sample: Sample, members: Members) -> dict[str, Any]:
    assert sample.pair is not None
    return {
        "key": sample.key,
        "conversation": sample.meta.conversation,
        "label": sample.meta.label.value,
        "user_motion": list(sample.user_motion),
        "reference": sample.reference,
        "avatar_audio": {"bytes": members["avatar.audio.flac"], "path": f"{sample.key}.avatar.flac"},
        "user_audio": {"bytes": members["user.audio.flac"], "path": f"{sample.key}.user.flac"},
        "state": sample.state,
        "avatar_valid": np.ascontiguousarray(sample.valid[:, 0]),
        "user_valid": np.ascontiguousarray(sample.valid[:, 1]),
        "chosen": list(sample.chosen) if sample.chosen is not None else None,
        "rejected": list(sample.rejected) if sample.rejected is not None else None,
        "meta": members["meta.json"].decode(),
        "pair": members["pair.json"].decode(),
    }


def _fixed(kind: pa.DataType, length: int) -> pa.DataType:
    return pa.list_(kind, length)


def _feature(kind: pa.DataType, rate: int) -> dict[str, Any]:
    """A column as Hugging Face's `datasets` describes it."""
    if kind == _VOICE:
        return {"sampling_rate": rate, "_type": "Audio"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type, rate), "length": kind.list_size, "_type": "Sequence"}
    return {"dtype": "float32" if kind == pa.float32() else str(kind), "_type": "Value"}  # pyarrow's name is "float"

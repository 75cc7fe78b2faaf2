"""A dataset as one Parquet file, for trainers and readers other than ours.

    datasets.load_dataset("parquet", data_files="pairs.parquet")

Of pairs, what both sides were asked for (`user_motion`, `reference`, both voices, who speaks when) is the prompt;
`chosen` and `rejected` are TRL's words. Of windows, `avatar_motion` is what was recorded, and `split` says whether a
window is for training. Motion is a fixed list of T frames of D numbers, a voice the FLAC file as it lies in the shard
with its sampling rate in the schema; the schema's metadata tells Hugging Face's `datasets` so, and which manifest the
rows came from. Where a window comes from and how its sides were made are JSON in `meta` and `pair`. No column holds
null.

Written row group by row group, so memory holds one shard, and visible when it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visavis.schemas.manifest import Manifest, Split
from visavis.schemas.plain import dump_record, to_json
from visavis.schemas.sample import Sample
from visavis.schemas.storage.store import Store
from visavis.training.dataset import Dataset
from visavis.training.shards import Members

ROWS = 256
"""Of a row group: some 25 MB."""

_VOICE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def export_dataset(data: Dataset, out: str) -> int:
    """Write windows, or pairs, to one Parquet file.

    Args:
        out: path or URL; what is there is replaced.

    Returns: how many there are.

    Raises:
        DatasetError: a shard or sample is unreadable.
    """
    folder, _, name = out.rpartition("/")
    schema = export_schema(data.manifest, data.hash)
    rows, count = _rows(data), 0
    with Store(folder or ".").writer(name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(rows, ROWS)):
            writer.write_batch(pa.RecordBatch.from_pylist(some, schema))
            count += len(some)
    return count


def export_schema(manifest: Manifest, digest: str) -> pa.Schema:
    """Columns of the file, and in its metadata what reads them as what."""
    frames, dim = manifest.window, manifest.motion.dim
    motion = pa.list_(pa.list_(pa.float32(), dim), frames)
    types = {
        "key": pa.string(),
        "conversation": pa.string(),
        "label": pa.string(),
        **({"split": pa.string(), "avatar_motion": motion} if manifest.kind == "windows" else {}),
        "user_motion": motion,
        "reference": pa.list_(pa.float32(), dim),
        "avatar_audio": _VOICE,
        "user_audio": _VOICE,
        "state": pa.list_(pa.uint8(), frames),
        "avatar_valid": pa.list_(pa.bool_(), frames),
        "user_valid": pa.list_(pa.bool_(), frames),
        **({"chosen": motion, "rejected": motion} if manifest.kind == "pairs" else {}),
        "meta": pa.string(),
        **({"pair": pa.string()} if manifest.kind == "pairs" else {}),
    }
    features = {name: _feature(kind, manifest.sample_rate) for name, kind in types.items()}
    return pa.schema(
        [pa.field(name, kind) for name, kind in types.items()],
        {
            "huggingface": to_json({"info": {"features": features}}, sort_keys=False),
            "visavis.manifest_sha256": digest,
            "visavis.motion": manifest.motion.model_dump_json(),
            "visavis.plan": manifest.plan.model_dump_json(),
            "visavis.pairs": manifest.pairs.model_dump_json() if manifest.pairs else "",
        },
    )


def _rows(data: Dataset) -> Iterator[dict[str, Any]]:
    for split in get_args(Split):
        for entry in data.manifest.of(split):
            for key, members in data.groups(entry, data.fetch(entry)):
                yield _row(data.decode(key, members), members, split)


def _row(sample: Sample, members: Members, split: Split) -> dict[str, Any]:
    """All columns that there are; the schema takes those of windows, or those of pairs."""
    row = {
        "key": sample.key,
        "conversation": sample.meta.conversation,
        "label": sample.meta.label.value,
        "split": split,
        "avatar_motion": list(sample.avatar_motion),
        "user_motion": list(sample.user_motion),
        "reference": sample.reference,
        "avatar_audio": {"bytes": members["avatar.audio.flac"], "path": f"{sample.key}.avatar.flac"},
        "user_audio": {"bytes": members["user.audio.flac"], "path": f"{sample.key}.user.flac"},
        "state": sample.state,
        "avatar_valid": np.ascontiguousarray(sample.valid[:, 0]),
        "user_valid": np.ascontiguousarray(sample.valid[:, 1]),
        "meta": dump_record(sample.meta).decode(),
    }
    if sample.pair is not None and sample.chosen is not None and sample.rejected is not None:
        row |= {"chosen": list(sample.chosen), "rejected": list(sample.rejected)}
        row["pair"] = dump_record(sample.pair).decode()
    return row


def _feature(kind: pa.DataType, rate: int) -> dict[str, Any]:
    """A column as Hugging Face's `datasets` describes it."""
    if kind == _VOICE:
        return {"sampling_rate": rate, "_type": "Audio"}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type, rate), "length": kind.list_size, "_type": "Sequence"}
    return {"dtype": "float32" if kind == pa.float32() else str(kind), "_type": "Value"}  # pyarrow's name is "float"

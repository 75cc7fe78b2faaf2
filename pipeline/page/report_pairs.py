"""Preference pairs for a page: how the gate's figures are distributed, and some pairs to be played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.packed import packed, packed_bytes, runs
from visavis.pipeline.page.report_parts import codec_data, peaks, put
from visavis.pipeline.plan.file_names import DATASET
from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import ShardEntry
from visavis.schemas.sample import Sample
from visavis.schemas.storage.store import Store
from visavis.stages.face.decode import avatar_of, conversation_of, read_codec, read_faces
from visavis.training.dataset import Dataset, choose

_LISTED = 500  # pairs whose figures are in the table


def pairs_data(run: str, folder: Path, played: int, reporter: Reporter) -> dict[str, Any]:
    """A set of pairs, of which `played` have a script of their own in the page's folder.

    Of a large set so many are listed as `_LISTED` says, from up to eight shards spread over it; those that are played
    are spread over these.
    """
    data = Dataset(f"{run.rstrip('/')}/{DATASET}")
    store, manifest = Store(data.location), data.manifest
    if manifest.pairs is None:
        raise DatasetError(f"{data.location}: no set of preference pairs")
    codec = read_codec(store, manifest)
    if codec:
        put(folder, f"codec-{codec.id}", codec_data(codec))
    set_ = f"p{data.hash[:8]}"
    total = sum(entry.samples for entry in manifest.shards)
    chosen = choose(manifest.shards, _LISTED)
    count = sum(n for _, n in chosen)
    wanted = set(np.linspace(0, count - 1, min(played, count)).astype(int).tolist())
    listed = []
    with reporter.items("pairs", count) as advance:
        for number, (sample, faces) in enumerate(_samples(data, store, chosen)):
            one = _listed(sample)
            one["shown"] = int(number in wanted and codec is not None)
            if number in wanted and codec is not None:
                name = f"{set_}-{number}"
                one["script"] = name
                put(folder, name, _played(sample, faces))
            listed.append(one)
            advance()
    info = manifest.pairs
    return {
        "run": run,
        "total": total,
        "tried": info.kept + sum(info.gated.values()),
        "windows": info.windows,
        "passed_over": info.passed_over,
        "gated": info.gated,
        "gate": info.gate,
        "figures": {name: figure.model_dump() for name, figure in info.figures.items()},
        "made": {"chosen": info.chosen, "rejected": info.rejected, "dropped": list(info.dropped)},
        "codec": codec.id if codec else "",
        "pairs": listed,
    }


def _samples(
    data: Dataset, store: Store, chosen: list[tuple[ShardEntry, int]]
) -> Iterator[tuple[Sample, dict[str, Any]]]:
    """Samples with the faces of their shard, a shard at a time."""
    for entry, count in chosen:
        faces = read_faces(store, entry)
        for key, members in data.first([(entry, count)]):
            yield data.decode(key, members), faces


def _listed(sample: Sample) -> dict[str, Any]:
    record, meta = sample.pair, sample.meta
    assert record is not None  # `Dataset.decode` has seen to it
    figures = {
        "reactivity_margin": record.reactivity_margin,
        "lagged_margin": record.lagged_margin,
        "event_margin": record.event_margin,
        "energy_margin": record.energy_margin,
        "distance": record.distance,
        "jerk_ratio": max(record.jerk_ratio),
        "off_manifold": max(record.off_manifold),
    }
    return {
        "key": sample.key,
        "conversation": meta.conversation,
        "start": meta.start,
        "avatar": meta.avatar,
        "user": meta.user,
        "label": meta.label.value,
        "figures": {name: None if value is None else float(f"{value:.4g}") for name, value in figures.items()},
    }


def _played(sample: Sample, faces: dict[str, Any]) -> dict[str, Any]:
    """The motions of a pair with what decodes them; sides: user, chosen, rejected, and recorded where that is none."""
    assert sample.chosen is not None
    assert sample.rejected is not None
    avatar = avatar_of(sample.key)
    people = faces.get(conversation_of(sample.key))
    motions = {"user": sample.user_motion, "chosen": sample.chosen, "rejected": sample.rejected}
    if not np.array_equal(sample.chosen, sample.avatar_motion):
        motions["recorded"] = sample.avatar_motion
    neutral = {}
    if people:
        neutral = {"user": packed(people.neutral[1 - avatar], 500), "avatar": packed(people.neutral[avatar], 500)}
    return {
        "number": avatar,
        "frames": len(sample.state),
        "motions": {name: packed(motion, 250) for name, motion in motions.items()},
        "neutral": neutral,
        "valid": {"avatar": runs(sample.valid[:, 0]), "user": runs(sample.valid[:, 1])},
        "state": packed_bytes(sample.state),
        "peaks": [packed_bytes(peaks(audio)) for audio in (sample.avatar_audio, sample.user_audio)],
    }

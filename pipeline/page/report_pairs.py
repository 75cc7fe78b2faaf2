"""Preference pairs for a page: how the gate's figures are distributed, and some pairs to be played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.packed import packed_bytes
from visavis.pipeline.page.report_parts import packed_motion, peaks, put, put_codec, put_faces
from visavis.pipeline.plan.file_names import DATASET
from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import ShardEntry
from visavis.schemas.pairs import REACTIVITY
from visavis.schemas.sample import Sample
from visavis.schemas.storage.store import Store
from visavis.stages.face.decode import avatar_of, conversation_of, read_codec, read_faces
from visavis.training.dataset import Dataset, choose
from visavis.training.runs import runs

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
        put_codec(folder, codec)
    set_ = f"p{data.hash[:8]}"
    total = sum(entry.samples for entry in manifest.shards)
    chosen = choose(manifest.shards, _LISTED)
    count = sum(n for _, n in chosen)
    wanted = set(np.linspace(0, count - 1, min(played, count)).astype(int).tolist())
    listed = []
    with reporter.items("pairs", count) as advance:
        for number, (sample, faces) in enumerate(_samples(data, store, chosen)):
            one = _listed(sample)
            if number in wanted and codec is not None:
                people = faces.get(conversation_of(sample.key))
                if people:
                    put_faces(folder, people.conversation, codec, people.neutral)
                one["script"] = f"{set_}-{number}"
                put(folder, one["script"], _played(sample, drawn=people is not None))
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
        "table": _columns(listed),
    }


def _columns(listed: list[dict[str, Any]]) -> dict[str, Any]:
    """The table by column; repeated texts by their number."""
    columns: dict[str, Any] = {name: [one[name] for one in listed] for name in ("key", "start")}
    words: dict[str, list[str]] = {}
    for name in ("conversation", "avatar", "user", "label"):
        words[name] = list(dict.fromkeys(one[name] for one in listed))
        number = {word: place for place, word in enumerate(words[name])}
        columns[name] = [number[one[name]] for one in listed]
    figures = {name: [one["figures"][name] for one in listed] for name in (listed[0]["figures"] if listed else ())}
    scripts = {str(place): one["script"] for place, one in enumerate(listed) if "script" in one}
    return columns | {"words": words, "figures": figures, "scripts": scripts}


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
    scored = {} if record.scorer in ("", REACTIVITY) or record.scores is None else {"score_margin": record.score_margin}
    figures = scored | {
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
        "figures": {name: None if value is None else float(f"{value:.9g}") for name, value in figures.items()},
    }


def _played(sample: Sample, *, drawn: bool) -> dict[str, Any]:
    """The motions of a pair: user, chosen, rejected, and recorded where that is neither.

    drawn: whether there are faces to draw it with.
    """
    assert sample.chosen is not None
    assert sample.rejected is not None
    motions = {"user": sample.user_motion, "chosen": sample.chosen, "rejected": sample.rejected}
    if not np.array_equal(sample.chosen, sample.avatar_motion):
        motions["recorded"] = sample.avatar_motion
    return {
        "number": avatar_of(sample.key),
        "drawn": drawn,
        "frames": len(sample.state),
        "motions": {name: packed_motion(motion) for name, motion in motions.items()},
        "valid": {"avatar": runs(sample.valid[:, 0]), "user": runs(sample.valid[:, 1])},
        "state": packed_bytes(sample.state),
        "peaks": [packed_bytes(peaks(audio)) for audio in (sample.avatar_audio, sample.user_audio)],
    }

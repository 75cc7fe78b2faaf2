"""Evaluation of a checkpoint against the truth and against what costs nothing.

A figure means little alone, so every table has the same rows: the model, the model without its user, the ground
truth, and four baselines — hold still (the reference motion throughout), copy the user, the corpus mean, and the
truth of another window (which moves like a person, at the wrong time).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.dyads import WindowClass
from schemas.errors import UsageError
from schemas.manifest import Split
from schemas.sample import Sample
from schemas.train import Drop, SamplerConfig
from training.checkpoint import checkpoint_id, load_checkpoint, load_model
from training.data import Dataset, collate
from training.metrics import compare
from training.model import Listener
from training.sampler import rollout
from training.world import pick_device

BATCH = 32


def evaluate(
    checkpoint: Path,
    dataset: str,
    split: Split = "val",
    sampler: SamplerConfig | None = None,
    seeds: Sequence[int] = (0,),
    *,
    limit: int | None = None,
    device: str = "auto",
    encoder: str | None = None,
) -> dict[str, Any]:
    """Metrics of `training.metrics` by row and class.

    Args:
        sampler: the checkpoint's own where not given; its seed is replaced by each of `seeds`.
        seeds: figures of generated rows are means over them.
        limit: windows per class, the first of each; none: all.
        encoder: where the weights of the features' encoder lie, if not where they lay in training.

    Returns: {"checkpoint", "audio", "dataset", "split", "windows": {class: n}, "seeds", "sampler",
        "rows": {row: {class or "all": {metric: value}}}}; plain JSON values.

    Raises:
        UsageError: no samples in the split, or a codec the model was not trained on.
    """
    loaded = load_checkpoint(checkpoint)
    model = load_model(loaded, pick_device(device), weights=encoder)
    data = _open_for(model, dataset)
    sampler = sampler or loaded.config.sampler
    samples = [sample for label in WindowClass for sample in islice(data.samples(split, label), limit)]
    if not samples:
        raise UsageError(f"{dataset} has no {split} samples; build it with a larger balance.val_share")
    windows = _Windows.of(model, samples)
    rows: dict[str, list[np.ndarray]] = {"ground_truth": [windows.truth], **_baselines(windows)}
    drops: dict[str, Drop] = {"model": "full", "model_no_user": "no_user"}
    for name, drop in drops.items():
        rows[name] = [
            np.concatenate(
                [
                    model.normalise(part).cpu().numpy()
                    for part in _generated(model, samples, sampler.model_copy(update={"seed": seed}), drop)
                ]
            )
            for seed in seeds
        ]
    return {
        "checkpoint": checkpoint_id(checkpoint),
        "audio": loaded.audio.model_dump(mode="json"),
        "dataset": data.hash,
        "split": split,
        "windows": {str(label): len(chosen) for label, chosen in windows.classes.items()},
        "seeds": list(seeds),
        "sampler": sampler.model_dump(mode="json"),
        "rows": {name: windows.table(model, motions) for name, motions in rows.items()},
    }


def generate(
    checkpoint: Path,
    dataset: str,
    key: str,
    out: Path,
    sampler: SamplerConfig | None = None,
    *,
    drop: Drop = "full",
    device: str = "auto",
    encoder: str | None = None,
) -> Path:
    """Write one window's generated motion beside its truth, as .npy files [T, D] in codec units, into `out`.

    Returns: the path of the generated motion; `KEY.truth.npy`, `KEY.user.npy` and `KEY.json` lie beside it.

    Raises:
        UsageError: no such key.
    """
    loaded = load_checkpoint(checkpoint)
    model = load_model(loaded, pick_device(device), weights=encoder)
    data = _open_for(model, dataset)
    sampler = sampler or loaded.config.sampler
    sample = _find(data, key)
    if Path(key).name != key:  # it names files, and datasets may come from others
        raise UsageError(f"the key {key!r} cannot name a file")
    (motion,) = _generated(model, [sample], sampler, drop)
    out.mkdir(parents=True, exist_ok=True)
    arrays = {"generated": motion[0].cpu().numpy(), "truth": sample.avatar_motion, "user": sample.user_motion}
    for name, array in arrays.items():
        np.save(out / f"{key}.{name}.npy", array, allow_pickle=False)
    note = {
        "key": key,
        "checkpoint": checkpoint_id(checkpoint),
        "audio": loaded.audio.model_dump(mode="json"),
        "dataset": data.hash,
        "drop": drop,
        "sampler": sampler.model_dump(mode="json"),
    }
    (out / f"{key}.json").write_text(json.dumps(note, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    return out / f"{key}.generated.npy"


@dataclass(frozen=True)
class _Windows:
    """Evaluated windows, normalised, [W, T, D]; `classes` are window numbers by class, and all of them."""

    truth: np.ndarray
    user: np.ndarray
    reference: np.ndarray  # [W, D]
    valid: np.ndarray  # [W, T]: both faces are valid
    classes: dict[str, list[int]]

    @classmethod
    def of(cls, model: Listener, samples: Sequence[Sample]) -> _Windows:
        classes: dict[str, list[int]] = defaultdict(list)

        def normalised(arrays: list[np.ndarray]) -> np.ndarray:
            stacked = torch.from_numpy(np.stack(arrays)).to(model.mean.device)
            return np.asarray(model.normalise(stacked).cpu().numpy())

        for i, sample in enumerate(samples):
            classes["all"].append(i)
            classes[sample.meta.label.value].append(i)
        return cls(
            truth=normalised([s.avatar_motion for s in samples]),
            user=normalised([s.user_motion for s in samples]),
            reference=normalised([s.reference for s in samples]),
            valid=np.stack([s.valid.all(axis=1) for s in samples]),
            classes=dict(classes),
        )

    def table(self, model: Listener, motions: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
        """Metrics by class, averaged over `motions` (one per seed)."""
        table = {}
        for label, chosen in self.classes.items():
            truth, user, valid = self.truth[chosen], self.user[chosen], self.valid[chosen]
            figures = [compare(truth, motion[chosen], user, valid, model.motion) for motion in motions]
            table[label] = {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}
        return table


def _baselines(windows: _Windows) -> dict[str, list[np.ndarray]]:
    return {
        "hold_still": [np.broadcast_to(windows.reference[:, None], windows.truth.shape)],
        "copy_user": [windows.user],
        "mean_motion": [np.zeros_like(windows.truth)],
        "shuffled": [np.roll(windows.truth, len(windows.truth) // 2, axis=0)],
    }


def _generated(
    model: Listener, samples: Sequence[Sample], sampler: SamplerConfig, drop: Drop
) -> Iterator[torch.Tensor]:
    """Rollouts of the samples, batch by batch, [b, T, D] in codec units."""
    for first in range(0, len(samples), BATCH):
        batch = collate(samples[first : first + BATCH]).to(model.mean.device)
        yield rollout(
            model,
            batch.avatar_audio,
            batch.user_audio,
            batch.user_motion,
            batch.reference,
            sampler,
            batch.keys,
            drop,
        )


def _open_for(model: Listener, dataset: str) -> Dataset:
    data = Dataset(dataset)
    if data.manifest.motion.codec != model.motion.codec:
        raise UsageError(
            f"{dataset} has motion of codec {data.manifest.motion.codec}, the model was trained on "
            f"{model.motion.codec}; rebuild the dataset with the model's codec (motion.codec)"
        )
    return data


def _find(data: Dataset, key: str) -> Sample:
    for entry in data.manifest.shards:
        for found, members in data.shard(entry):
            if found == key:
                return data.decode(key, members)
    raise UsageError(f"{data.location} has no sample {key}")

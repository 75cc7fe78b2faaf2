"""Motion that a checkpoint makes of single windows, and of batches of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.plain import to_json
from visavis.schemas.sample import Sample
from visavis.schemas.train import Drop, SamplerConfig
from visavis.schemas.words import candidates
from visavis.training.checkpoint import Checkpoint, checkpoint_id, load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.loader import Batch, collate
from visavis.training.model import Listener
from visavis.training.process_group import pick_device
from visavis.training.sampler import rollout

Sampled = Callable[..., torch.Tensor]
"""`rollout` of a model, or `Rollouts`."""
_REMEMBERED = 10_000  # keys to choose from where the wanted one is not there


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
    """Write one window's generated motion beside its truth, as .npy files, into `out`.

    Returns: the path of the generated motion [T, D] in codec units; `KEY.truth.npy` and `KEY.user.npy` like it, and
        `KEY.state.npy`, `KEY.valid.npy` (as in `schemas.sample`) and `KEY.json` (where it comes from) lie beside it.

    Raises:
        UsageError: no such key.
        DatasetError: a sample that is unreadable or has numbers that are not finite.
        RunFailed: the model generates motion that is not finite.
    """
    loaded, model, data = load_for(checkpoint, dataset, device, encoder)
    sampler = sampler or loaded.config.sampler
    shard, sample = find_sample(data, key)
    if Path(key).name != key:  # it names files, and datasets may come from others
        raise UsageError(f"the key {key!r} cannot name a file")
    motion = generated(partial(rollout, model), collate([sample]).to(model.mean.device), sampler, drop)
    out.mkdir(parents=True, exist_ok=True)
    arrays = {
        "generated": motion[0].cpu().numpy(),
        "truth": sample.avatar_motion,
        "user": sample.user_motion,
        "state": sample.state,
        "valid": sample.valid,
    }
    for name, array in arrays.items():
        np.save(out / f"{key}.{name}.npy", array, allow_pickle=False)
    note = {
        "key": key,
        "checkpoint": checkpoint_id(checkpoint),
        "audio": loaded.audio.model_dump(mode="json"),
        "dataset": data.hash,
        "location": data.location,
        "shard": shard,
        "motion": data.manifest.motion.model_dump(mode="json"),
        "window": {name: getattr(sample.meta, name) for name in ("conversation", "avatar", "user", "start", "label")},
        "drop": drop,
        "sampler": sampler.model_dump(mode="json"),
    }
    (out / f"{key}.json").write_text(to_json(note, indent=1) + "\n", encoding="utf-8")
    return out / f"{key}.generated.npy"


def generator(
    checkpoint: Path,
    dataset: str,
    *,
    seed: int | None = None,
    encoder: str | None = None,
) -> Callable[[Sample], np.ndarray]:
    """What makes a checkpoint's motion [T, D], in codec units, of windows of a dataset. The model is loaded once.

    Args:
        seed: of the noise; the checkpoint's own sampler's where not given. The same window gets the same.

    Raises:
        UsageError: a dataset of another codec. What it gives raises RunFailed where motion is not finite.
    """
    loaded, model, _ = load_for(checkpoint, dataset, encoder=encoder)
    sampler = loaded.config.sampler
    if seed is not None:
        sampler = sampler.model_copy(update={"seed": seed})

    def of_window(sample: Sample) -> np.ndarray:
        motion = generated(partial(rollout, model), collate([sample]).to(model.mean.device), sampler, "full")
        return np.asarray(motion[0].cpu().numpy())

    return of_window


def generated(sampled: Sampled, batch: Batch, sampler: SamplerConfig, drop: Drop) -> torch.Tensor:
    """Rollouts of a batch, [b, T, D] in codec units.

    Raises RunFailed where they are not finite: a figure of what is left would look like one of the model.
    """
    motion = sampled(
        batch.avatar_audio, batch.user_audio, batch.user_motion, batch.reference, sampler, batch.keys, drop
    )
    fine = torch.isfinite(motion).all(dim=(1, 2)).tolist()
    if not all(fine):
        raise RunFailed(
            f"motion generated with conditions `{drop}` is not finite in {fine.count(False)} of the {len(fine)} windows"
            f" tried, first in {batch.keys[fine.index(False)]}; use an earlier checkpoint, or train again with a lower"
            " learning rate"
        )
    return motion


def load_for(
    checkpoint: Path, dataset: str, device: str = "auto", encoder: str | None = None
) -> tuple[Checkpoint, Listener, Dataset]:
    """A checkpoint, its model and the dataset that it is to see.

    Args:
        encoder: where the weights of the features' encoder lie, if they have one.

    Raises:
        UsageError: motion of another codec than the model was trained on.
    """
    loaded = load_checkpoint(checkpoint, whole=False)
    model = load_model(loaded, pick_device(device), weights=encoder)
    data = Dataset(dataset)
    if data.manifest.motion.codec != model.motion.codec:
        raise UsageError(
            f"{dataset} has motion of codec {data.manifest.motion.codec}, the model was trained on "
            f"{model.motion.codec}; rebuild the dataset with the model's codec (motion.codec)"
        )
    return loaded, model, data


def find_sample(data: Dataset, key: str) -> tuple[str, Sample]:
    """The sample of a key, and its shard's path. Held-out samples first: there is no index, and they are fewer.

    Raises:
        UsageError: no such key.
        DatasetError: a sample that is unreadable or has numbers that are not finite.
    """
    seen: list[str] = []
    for entry in (*data.manifest.of("val"), *data.manifest.of("train")):
        for found, members in data.groups(entry, data.fetch(entry)):
            if found == key:
                return entry.path, data.decode(key, members)
            if len(seen) < _REMEMBERED:
                seen.append(found)
    there = sum(entry.samples for entry in data.manifest.shards)
    raise UsageError(f"{data.location} has no sample {key}; {candidates(key, seen, 'sample', there)}")

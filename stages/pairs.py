"""Preference pairs: what a listener should do, and what the same model does when it cannot perceive the user.

Avatar Forcing (§4.2) needs no labels: the losing sample is motion generated without the user's signals. Here both
sides belong to one window and the losing side comes from the same model with the same noise; only the user's
conditions are dropped, so that what differs is the reaction. TRL's words: `chosen` and `rejected`.

A gate leaves out pairs that would teach nothing or the wrong thing, and counts them by reason. The trade-off: in a
window of 2 s a lagged correlation is noisy, so the default gate asks no more than its sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from schemas.manifest import ShardEntry
from schemas.pairs import GateConfig, PairsConfig
from schemas.rows import Row
from schemas.sample import PairRecord, Sample, encode_sample
from schemas.train import Drop
from stages.base import Resources, Stage
from stages.shard import write_shard
from stages.store import Store
from training.checkpoint import checkpoint_id, load_checkpoint, load_model
from training.data import Dataset, collate
from training.metrics import jerk, lagged
from training.model import Listener
from training.sampler import rollout
from training.world import pick_device


class PairsInput(Row):
    """A run of windows [first, last) of one source shard, to become one shard of pairs at `path`."""

    source: ShardEntry
    first: int
    last: int
    path: str


class PairsRow(Row):
    """The written shard, and how many pairs the gate left out, by reason."""

    entry: ShardEntry
    gated: dict[str, int]


class PairsStage(Stage[PairsInput, PairsRow]):
    """Samples both sides of each window's pair, gates them, and writes what is left as a shard."""

    name = "pairs"
    version = 3
    config: PairsConfig

    def __init__(self, config: PairsConfig, dataset: str, checkpoint: str, out: str) -> None:
        super().__init__(config)
        self._dataset = dataset
        self._checkpoint = checkpoint
        self._out = out

    @property
    def resources(self) -> Resources:
        wanted = self.config.resources
        return Resources(wanted.cpus, wanted.gpus, wanted.memory_gb)

    def setup(self) -> None:
        self._data = Dataset(self._dataset)
        device = pick_device(self.config.device)
        self._model = load_model(load_checkpoint(Path(self._checkpoint)), device, weights=self.config.encoder)
        self._generator = checkpoint_id(Path(self._checkpoint))

    def process(self, item: PairsInput) -> Iterator[PairsRow]:
        groups = self._data.shard(item.source)[item.first : item.last]
        samples = [self._data.decode(key, members) for key, members in groups]
        gated: Counter[str] = Counter()
        kept = ((pair.key, encode_sample(pair)) for pair in self._pairs(samples, gated))
        size, digest, count = write_shard(Store(self._out), item.path, kept)
        entry = item.source.model_copy(update={"path": item.path, "samples": count, "bytes": size, "sha256": digest})
        yield PairsRow(entry=entry, gated=dict(sorted(gated.items())))

    def facts(self, rows: Sequence[PairsRow]) -> str:
        """The row itself."""
        return rows[0].model_dump_json()

    def _pairs(self, samples: Sequence[Sample], gated: Counter[str]) -> Iterator[Sample]:
        for first in range(0, len(samples), self.config.batch):
            part = samples[first : first + self.config.batch]
            rejected = self._generate(part, self.config.drop)
            truth = self.config.chosen == "ground_truth"
            chosen = [s.avatar_motion for s in part] if truth else self._generate(part, "full")
            for sample, good, bad in zip(part, chosen, rejected, strict=True):
                pair = replace(sample, chosen=good, rejected=bad)
                record = self._record(pair)
                reason = gate(pair, record, self._model, self.config.gate)
                if reason:
                    gated[reason] += 1
                else:
                    yield replace(pair, pair=record)

    def _generate(self, samples: Sequence[Sample], drop: Drop) -> list[np.ndarray]:
        batch = collate(samples).to(self._model.mean.device)
        motion = rollout(
            self._model,
            batch.avatar_audio,
            batch.user_audio,
            batch.user_motion,
            batch.reference,
            self.config.sampler,
            batch.keys,  # the noise hangs on the key, so both sides and every batching share it
            drop,
        )
        return list(motion.cpu().numpy())

    def _record(self, pair: Sample) -> PairRecord:
        assert pair.chosen is not None
        assert pair.rejected is not None
        sampler, scale = self.config.sampler, self._model.std.cpu().numpy()
        margin = reactivity(pair, pair.chosen, self._model) - reactivity(pair, pair.rejected, self._model)
        energy = [float((side / scale).var(0).sum()) for side in (pair.chosen, pair.rejected)]
        distance = float(np.sqrt((((pair.chosen - pair.rejected) / scale) ** 2).mean()))
        return PairRecord(
            chosen=self.config.chosen,
            rejected="dropped",
            dropped=DROPPED[self.config.drop],
            generator=self._generator,
            dataset=self._data.hash,
            steps=sampler.steps,
            guidance=(sampler.w_a, sampler.w_u),
            seed=sampler.seed,
            reactivity_margin=round(margin, 6),
            energy_margin=round(float(np.log((energy[0] + 1e-9) / (energy[1] + 1e-9))), 6),
            distance=round(distance, 6),
        )


DROPPED: dict[str, tuple[str, ...]] = {
    "no_user": ("user_audio", "user_motion"),
    "none": ("avatar_audio", "user_audio", "user_motion"),
}
"""Names of the conditions that the losing side did not get."""


def reactivity(pair: Sample, side_TD: np.ndarray, model: Listener) -> float:
    """Largest correlation of a side with the user some time before, mean over dimensions, −1…1."""
    mean, std = model.mean.cpu().numpy(), model.std.cpu().numpy()
    avatar, user = ((motion - mean) / std for motion in (side_TD, pair.user_motion))
    seen_WT = np.all(pair.valid, axis=1, keepdims=True).T
    return max(lagged(avatar[None], user[None], seen_WT).correlation)


def gate(pair: Sample, record: PairRecord, model: Listener, config: GateConfig) -> str:
    """Why a pair is left out, or nothing."""
    assert pair.chosen is not None
    assert pair.rejected is not None
    if not (np.isfinite(pair.chosen).all() and np.isfinite(pair.rejected).all()):
        return "not_finite"
    if record.distance < config.min_distance:
        return "too_similar"
    std, seen = model.std.cpu().numpy(), pair.valid[None, :, 0]
    truth, *sides = (jerk((m / std)[None], seen) for m in (pair.avatar_motion, pair.chosen, pair.rejected))
    if max(sides) > config.max_jerk_ratio * max(truth, 1e-9):
        return "broken_motion"
    if record.reactivity_margin <= config.min_reactivity_margin:
        return "not_less_reactive"
    return ""


def plan_pairs(dataset: Dataset, config: PairsConfig, limit: int | None = None) -> list[PairsInput]:
    """Cut the training shards of the wanted classes into tasks of `unit` windows, at most `limit` windows in all."""
    tasks = []
    left = limit if limit is not None else sum(s.samples for s in dataset.manifest.shards)
    for label in config.classes:
        for entry in dataset.manifest.of("train", label):
            for number, first in enumerate(range(0, min(entry.samples, left), config.unit)):
                last = min(first + config.unit, entry.samples, first + left)
                path = entry.path.removesuffix(".tar") + f"-{number:04d}.tar"
                tasks.append(PairsInput(source=entry, first=first, last=last, path=path))
                left -= last - first
    return tasks

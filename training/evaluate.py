"""Evaluation of a checkpoint against the truth and against what costs nothing.

A figure means little alone, so every table has the same rows: the model, the model without its user, the ground
truth, and four baselines — hold still (the reference motion throughout), copy the user, the corpus mean, and the
truth of another window (which moves like a person, at the wrong time).

The trade-off: some of the split is read twice, first to fit SID's clusters on a sample of the truth's frames, then to
generate and score batch by batch. In exchange memory holds a shard, a batch and, of each row, ten numbers a window.
Clusters are those of all classes together, so classes can be compared and added up.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import Manifest, ShardEntry, Split
from visavis.schemas.sample import Sample
from visavis.schemas.sampling import Sampling, SamplingConfig
from visavis.schemas.storage.user_function import UserFunction
from visavis.schemas.train import Drop, SamplerConfig
from visavis.schemas.words import counted
from visavis.training.accumulators import Accumulator, fit_centres
from visavis.training.checkpoint import checkpoint_id
from visavis.training.dataset import Dataset, choose
from visavis.training.generate import generated, load_for
from visavis.training.loader import Batch, collate
from visavis.training.model import Listener
from visavis.training.own_metrics import OwnMetrics
from visavis.training.precision import settle
from visavis.training.rollouts import Rollouts, need_of

BATCH = 32
"""Windows that are scored together, and on a CPU generated together."""
CLUSTERED, CLUSTERED_WINDOWS = 20_000, 1000
"""Frames of the truth that SID's clusters are fitted on, about, and of how many windows of a class, at most."""

_GENERATED: dict[str, Drop] = {"model": "full", "model_no_user": "no_user"}
Table = dict[str, dict[str, dict[str, float | None]]]
"""By row, class or "all", and metric; None where it is not defined."""
Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every batch with (batches done, batches in all, nothing)."""


def evaluate(
    checkpoint: Path,
    dataset: str,
    split: Split = "val",
    sampler: SamplerConfig | None = None,
    seeds: Sequence[int] = (0,),
    *,
    limit: int | None = None,
    device: str = "auto",
    sampling: SamplingConfig | None = None,
    encoder: str | None = None,
    own: Sequence[UserFunction] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Metrics of `training.metrics` by row and class.

    Args:
        sampler: the checkpoint's own where not given; its seed is replaced by each of `seeds`.
        seeds: figures of generated rows are means over them.
        limit: windows per class, from up to eight shards spread over the split; none: all.
        sampling: precision, windows generated together, graphs; by the device where not given.
        encoder: where the weights of the features' encoder lie, if they have one.
        own: metrics of the user's own (`training.own_metrics`), beside the others in "rows", "spread" and
            "standard_errors".

    Returns: {"checkpoint", "audio", "dataset", "split", "windows": {class: n}, "seeds", "sampler", "sampling", and
        three tables {row: {class or "all": {metric: value}}}: "rows", "spread" (deviation over seeds; generated rows,
        two seeds or more) and "standard_errors" (over windows); "noise_floor": {class or "all": {rpcc and rpcc_flat:
        between two halves of the truth}}; "not_compared": {class or "all": windows with fewer than two frames in which
        both faces are valid, which most figures leave out}}; plain JSON values, None for a figure that is not defined.

    Raises:
        UsageError: no samples in the split, a codec the model was not trained on, or a precision that the device lacks.
        DatasetError: a sample that is unreadable or has numbers that are not finite.
        RunFailed: the model generates motion that is not finite.
    """
    loaded, model, data = load_for(checkpoint, dataset, device, encoder)
    sampler = sampler or loaded.config.sampler
    rollouts = _rollouts(model, sampling or SamplingConfig(), data.manifest.window, sampler)
    shards = {label: data.manifest.of(split, label) for label in WindowClass}
    chosen = {label: choose(entries, limit) for label, entries in shards.items()}
    counts = {label: sum(n for _, n in entries) for label, entries in chosen.items() if entries}
    if not counts:
        raise UsageError(f"{dataset} has no {split} samples{_advice(data.manifest, split)}")

    mine = OwnMetrics(own, model.motion)
    some = [choose(entries, min(limit or CLUSTERED_WINDOWS, CLUSTERED_WINDOWS)) for entries in shards.values()]
    centres = fit_centres(_frames_of_truth(model, data, some), model.motion)
    accumulators: dict[str, dict[str, list[Accumulator]]] = {}  # by row, class and seed
    done, batches = 0, sum(-(-n // BATCH) for n in counts.values())
    unseen: Counter[str] = Counter(dict.fromkeys(("all", *(label.value for label in counts)), 0))
    for label, count in counts.items():
        groups_of_label = _groups(data, chosen[label], count)
        while groups := list(islice(groups_of_label, max(1, rollouts.sampling.batch // BATCH))):
            batch = collate([sample for group in groups for sample in group]).to(model.mean.device)
            together, made = _Windows.of(model, batch), _made(rollouts, batch, sampler, seeds)
            for samples, part in zip(groups, _parts(groups), strict=True):
                windows = together.cut(part)
                for of in ("all", label.value):
                    unseen[of] += int((windows.valid.sum(axis=1) < 2).sum())
                for row, motions in _rows(windows, {row: [each[part] for each in of] for row, of in made.items()}):
                    of_class = accumulators.setdefault(row, {}).setdefault(label.value, [])
                    of_class.extend(Accumulator(model.motion, centres) for _ in range(len(motions) - len(of_class)))
                    for accumulator, (motion, valid) in zip(of_class, motions, strict=True):
                        accumulator.add(windows.truth, motion, windows.user, valid)
                    mine.add(row, label.value, samples, [motion for motion, _ in motions])
                done += 1
                if progress is not None:
                    progress(done, batches, {})
    for classes in accumulators.values():
        classes["all"] = [_merged(model, centres, each) for each in zip(*classes.values(), strict=True)]
    result = {
        "checkpoint": checkpoint_id(checkpoint),
        "audio": loaded.audio.model_dump(mode="json"),
        "dataset": data.hash,
        "split": split,
        "windows": {"all": sum(counts.values())} | {label.value: n for label, n in counts.items()},
        "seeds": list(seeds),
        "sampler": sampler.model_dump(mode="json"),
        "sampling": rollouts.sampling.model_dump(),
        "rows": _table(accumulators, Accumulator.figures, np.mean),
        "spread": _table({row: accumulators[row] for row in _GENERATED}, Accumulator.figures, _deviation)
        if len(seeds) > 1
        else {},
        "standard_errors": _table(accumulators, Accumulator.errors, np.mean),
        "noise_floor": {label: _plain(each[0].floor()) for label, each in accumulators["ground_truth"].items()},
        "not_compared": dict(unseen),
    }
    mine.into(result)
    return result


def _advice(manifest: Manifest, split: Split) -> str:
    """What can be done about a split without samples: people who met, directly or through others, share a split."""
    if split == "train":
        return "; give more conversations to `visavis build`, or --split val"
    conversations = counted(manifest.conversations, "conversation")
    return (
        f": all people of its {conversations} have met, or balance.val_share is 0, and nobody is in both splits;"
        " build it again with conversations of other people, or score what was trained on with --split train"
    )


def _samples(data: Dataset, chosen: Sequence[tuple[ShardEntry, int]]) -> Iterator[Sample]:
    return (data.decode(key, members) for key, members in data.first(chosen))


def _rollouts(model: Listener, config: SamplingConfig, frames: int, sampler: SamplerConfig) -> Rollouts:
    def need(trial: Sampling) -> float:
        return need_of([(model, _GENERATED.values())], trial, frames, sampler)

    return Rollouts(model, settle(config, model.mean.device, on_gpu="tf32", usual=BATCH, need=need))


def _groups(data: Dataset, chosen: Sequence[tuple[ShardEntry, int]], count: int) -> Iterator[list[Sample]]:
    """Samples, in groups of much the same size: of two windows or more, where there are two."""
    samples, number = _samples(data, chosen), -(-count // BATCH)
    for i in range(number):
        yield list(islice(samples, (i + 1) * count // number - i * count // number))


def _parts(groups: Sequence[Sequence[Sample]]) -> Iterator[slice]:
    """Where each group lies in all of them together."""
    first = 0
    for group in groups:
        yield slice(first, first := first + len(group))


@dataclass(frozen=True)
class _Windows:
    """A batch of windows, normalised, [W, T, D]."""

    truth: np.ndarray
    user: np.ndarray
    reference: np.ndarray  # [W, D]
    valid: np.ndarray  # [W, T]: both faces are valid

    @classmethod
    def of(cls, model: Listener, batch: Batch) -> _Windows:
        return cls(
            truth=_normalised(model, batch.avatar_motion),
            user=_normalised(model, batch.user_motion),
            reference=_normalised(model, batch.reference),
            valid=batch.valid.all(dim=2).cpu().numpy(),
        )

    def cut(self, part: slice) -> _Windows:
        return _Windows(**{field.name: getattr(self, field.name)[part] for field in fields(self)})


def _normalised(model: Listener, motion: torch.Tensor) -> np.ndarray:
    return np.asarray(model.normalise(motion).cpu().numpy())


def _made(
    rollouts: Rollouts, batch: Batch, sampler: SamplerConfig, seeds: Sequence[int]
) -> dict[str, list[np.ndarray]]:
    """Generated motion, normalised, by row: one for each seed."""
    return {
        row: [
            _normalised(rollouts.model, generated(rollouts, batch, sampler.model_copy(update={"seed": seed}), drop))
            for seed in seeds
        ]
        for row, drop in _GENERATED.items()
    }


def _rows(
    windows: _Windows, made: Mapping[str, Sequence[np.ndarray]]
) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """Rows, with motion and the frames in which it can be compared; of generated rows one for each seed."""
    half = len(windows.truth) // 2  # to roll by: another window of the class, where there is one
    other, seen = (np.roll(array, half, axis=0) for array in (windows.truth, windows.valid))
    for row, motions in made.items():
        yield row, [(motion, windows.valid) for motion in motions]
    yield "ground_truth", [(windows.truth, windows.valid)]
    yield "hold_still", [(np.broadcast_to(windows.reference[:, None], windows.truth.shape), windows.valid)]
    yield "copy_user", [(windows.user, windows.valid)]
    yield "mean_motion", [(np.zeros_like(windows.truth), windows.valid)]
    yield "shuffled", [(other, windows.valid & seen)]


def _frames_of_truth(model: Listener, data: Dataset, chosen: Sequence[Sequence[tuple[ShardEntry, int]]]) -> np.ndarray:
    """Valid frames, normalised, [N, D]: all, or of each window as many, drawn at random, as make about CLUSTERED."""
    random = np.random.default_rng(0)
    each = max(1, CLUSTERED // sum(n for entries in chosen for _, n in entries))
    found: list[np.ndarray] = []
    for entries in chosen:
        for sample in _samples(data, entries):
            frames = sample.avatar_motion[sample.valid.all(axis=1)]
            found.append(random.permutation(frames)[:each] if each < len(frames) else frames)
    return _normalised(model, torch.from_numpy(np.concatenate(found)).to(model.mean.device))


def _merged(model: Listener, centres: Mapping[str, np.ndarray], parts: Sequence[Accumulator]) -> Accumulator:
    whole = Accumulator(model.motion, centres)
    for part in parts:
        whole.merge(part)
    return whole


def _table(
    accumulators: Mapping[str, Mapping[str, Sequence[Accumulator]]],
    ask: Callable[[Accumulator], dict[str, float]],
    over_seeds: Callable[[list[float]], Any],
) -> Table:
    def summed_up(found: list[dict[str, float]]) -> dict[str, float | None]:
        return _plain({metric: float(over_seeds([each[metric] for each in found])) for metric in found[0]})

    return {
        row: {label: summed_up([ask(accumulator) for accumulator in each]) for label, each in classes.items()}
        for row, classes in accumulators.items()
    }


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    """None for what is not defined."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _deviation(values: list[float]) -> float:
    return float(np.std(values, ddof=1))

"""The work behind `benchmarks.preferences`: corpora, bases, pairs, further steps, and what each model then does.

Everything lies in a folder named by what it was made by, so a run that was stopped goes on, and what has changed is
made anew. Phases follow each other; the jobs of a phase run side by side.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.listeners import CORPORA, Rule
from benchmarks.passes import counted
from benchmarks.processes import say
from benchmarks.reactions import Windows, measure
from benchmarks.reactive import Corpus, fingerprint, make_dyad
from benchmarks.reactivity import SAMPLER, Row, held_out, last_losses, learn, model_row, noise_floor, prepare, recipe
from benchmarks.rows import Rows, RowSpec, digest
from visavis.pipeline.cli.commands import engine_of
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.pairs import PairsRequest, build_pairs
from visavis.schemas.config import BalanceConfig, RunConfig
from visavis.schemas.errors import DatasetError, RunFailed, UsageError
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.sample import Sample
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.training.checkpoint import CHECKPOINT_NAME, load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.train import train

WINDOW = 100
JUDGES = {"dull": "lively", "balanced": "lively"}
"""Whose held-out windows a corpus is judged on, where not on its own: the truth is what the lively do."""
WARMUP = 20
DONE = "done.json"


@dataclass(frozen=True)
class Scale:
    """How much is made, trained and sampled. lr: peak of further steps, with pairs and without."""

    conversations: int  # to train on; where most of the time is speaking, 2.5 times as many
    held_out: int
    steps: int  # of a base
    further: int
    lr: float
    seeds: tuple[int, ...]
    one_base: bool  # for all seeds; else one for each


@dataclass(frozen=True)
class Place:
    """A corpus, a base on it, and a seed of further steps."""

    corpus: str
    seed: int
    scale: Scale
    out: Path

    @property
    def data(self) -> Path:
        return self.out / f"{self.corpus}-{fingerprint(corpus_of(self.corpus, self.scale), rule_of(self.corpus))[:10]}"

    @property
    def judge(self) -> Place:
        """Where its held-out windows lie."""
        return replace(self, corpus=JUDGES.get(self.corpus, self.corpus), seed=self.scale.seeds[0])

    @property
    def base_seed(self) -> int:
        return self.scale.seeds[0] if self.scale.one_base else self.seed

    @property
    def base_config(self) -> TrainConfig:
        steps = self.scale.steps
        every = {"checkpoint_every": max(1, steps // 6), "keep_every": max(1, steps // 2)}
        return recipe("block", steps).model_copy(update={"seed": self.base_seed, **every})

    @property
    def base(self) -> Path:
        return self.data / "models" / f"base-{self.base_seed}-{digest(self.base_config.model_dump())}"

    @property
    def half_trained(self) -> Path:
        return self.base / f"checkpoint-{self.scale.steps // 2:07d}.safetensors"

    def pairs(self, settings: dict[str, Any]) -> Path:
        return self.base / f"pairs-{digest(settings, SAMPLER.model_dump())}"

    def further(self, row: RowSpec, rows: Rows) -> Path:
        """Folder of the further steps of a row; rows that differ in sampling alone share it."""
        settings = rows.pairs[row.pairs] if row.pairs else None
        steps = (row.steps, self.scale.further, row.lr or self.scale.lr)
        made_by = digest(settings, row.dpo, row.objective, steps, self.seed)
        return self.base / f"further-{made_by}"


def work(
    scale: Scale, corpora: Iterable[str], rows: Rows, out: Path, jobs: int
) -> tuple[dict[str, Row], dict[str, dict[str, dict[int, Row]]], list[str]]:
    """Do what is not done.

    Returns: the truth by corpus; rows by corpus, name and seed; and a line for everything that failed.
    """
    corpora = list(dict.fromkeys(corpora))
    places = [Place(corpus, seed, scale, out) for seed in scale.seeds for corpus in corpora]
    first = {(place.corpus, place.base_seed): place for place in reversed(places)}.values()
    one_each = {place.corpus: place for place in places}
    judged = {place.judge.corpus: place.judge for place in places}
    prepared = {place.data: place for place in (*places, *judged.values())}
    tasks = [(place, name, row) for place in places for name, row in rows.rows.items() if _fits(row, place.corpus)]
    wanted = [name for name in rows.pairs if any(row.pairs == name for _, _, row in tasks)]
    with _workers(jobs) as pool:

        def phase(name: str, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
            return _phase(pool, name, function, arguments)

        try:
            phase("corpora", make_corpus, [(place,) for place in prepared.values()])
            truths = phase("truth", truth_of, [(place.judge,) for place in one_each.values()])
            phase("bases", make_base, [(place,) for place in first])
            pairs = [
                (place, rows.pairs[name])
                for place in first
                for name in wanted
                if any(row.pairs == name and p.corpus == place.corpus for p, _, row in tasks)
            ]
            phase("pairs", make_pairs, pairs)
            # Rows that share their steps are one job, or two processes would take the same ones.
            shared: dict[Path, list[tuple[Place, str, RowSpec]]] = {}
            for place, name, row in tasks:
                folder = place.base if not row.steps else place.further(row, rows)
                shared.setdefault(folder, []).append((place, name, row))
            made = phase("rows", make_rows, [(group, rows) for group in shared.values()])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    found: dict[str, dict[str, dict[int, Row]]] = {c: {n: {} for n in rows.rows} for c in corpora}
    failed = []
    for group, results in zip(shared.values(), made, strict=True):
        for (place, name, _), result in zip(group, results, strict=True):
            if isinstance(result, str):
                failed.append(f"{place.corpus}, {name}, seed {place.seed}: {result}")
            else:
                found[place.corpus][name][place.seed] = result
    return dict(zip(one_each, truths, strict=True)), found, failed


def _workers(jobs: int) -> Executor:
    """jobs: processes of one core each; 0: this process, for debuggers and tests."""
    if not jobs:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))


def _phase(pool: Executor, name: str, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Results in order; a line for each that is done."""
    begun = time.monotonic()
    futures = {pool.submit(function, *each): i for i, each in enumerate(arguments)}
    results: list[Any] = [None] * len(arguments)
    for done, future in enumerate(as_completed(futures), start=1):
        results[futures[future]] = future.result()
        minutes = (time.monotonic() - begun) / 60
        left = minutes / done * (len(arguments) - done)
        say(f"{name}: {done} of {len(arguments)}, {minutes:.1f} min, about {left:.1f} to go")
    return results


def _fits(row: RowSpec, corpus: str) -> bool:
    return row.corpora is None or corpus in row.corpora


def rule_of(corpus: str) -> Rule:
    return CORPORA[corpus][0]


@lru_cache(maxsize=8)
def corpus_of(name: str, scale: Scale) -> Corpus:
    """Where listeners are dull there is more, shown as it comes: no class or window is drawn more often than it is."""
    rule, shape = CORPORA[name]
    if not shape:
        return Corpus(train=scale.conversations, val=scale.held_out, window=WINDOW)
    made = Corpus(train=scale.conversations * 5 // 2, val=4, window=WINDOW, **shape)
    if name == "balanced":
        return made
    counts = Counter(window.label for n in range(made.train) for window in make_dyad(made, rule, n).windows)
    mixture = {label: n / counts.total() for label, n in counts.items()}
    return replace(made, balance=BalanceConfig(mixture=mixture, dull_keep=1))


def make_corpus(place: Place) -> None:
    prepare(place.data, corpus_of(place.corpus, place.scale), rule_of(place.corpus))


@lru_cache(maxsize=1)
def judgement(place: Place) -> tuple[list[Sample], Windows]:
    """Held-out windows of a corpus."""
    data = Dataset(str(place.data))
    samples = held_out(data, 10**6)
    return samples, Windows.of(samples, data.manifest.motion, rule_of(place.corpus))


def truth_of(place: Place) -> Row:
    _, windows = judgement(place)
    return measure(windows.truth, windows, rule_of(place.corpus)) | noise_floor(windows)


def make_base(place: Place) -> None:
    learn(Dataset(str(place.data)), place.base, place.base_config)


def make_pairs(place: Place, settings: dict[str, Any]) -> None:
    """Or say why there are none."""
    folder = place.pairs(settings)
    if (folder / DONE).exists():
        return
    other = {"rejected_checkpoint": str(place.half_trained)} if settings.get("rejected") == "checkpoint" else {}
    wanted = PairsConfig.model_validate({"sampler": SAMPLER.model_dump(), "batch": 128} | settings | other)
    with counted(steps_only=False) as passes:
        try:
            request = PairsRequest(str(place.data), str(place.base / CHECKPOINT_NAME), wanted)
            build_pairs(request, str(folder), engine_of(RunConfig(engine="local")), Reporter())
        except (UsageError, DatasetError, RunFailed) as error:
            say(f"{folder}: {error}")
            return
    (folder / DONE).write_text(json.dumps({"passes": passes.frozen / WINDOW}), encoding="utf-8")


def make_rows(group: list[tuple[Place, str, RowSpec]], rows: Rows) -> list[Row | str]:
    """Figures of rows that share their steps, or why there are none."""
    place, _, row = group[0]
    try:
        folder, cost = (place.base, {}) if not row.steps else follow(place, row, rows)
        return [_judged(each, row, folder, cost) for each, _, row in group]
    except (UsageError, DatasetError, RunFailed) as error:
        return [str(error)] * len(group)


def follow(place: Place, row: RowSpec, rows: Rows) -> tuple[Path, Row]:
    """Take the further steps; their folder, and what they cost in windows that pass."""
    folder, pairs, cost = place.further(row, rows), None, {}
    if row.pairs is not None:
        made = place.pairs(rows.pairs[row.pairs])
        if not (made / DONE).exists() or not (made / "dataset" / MANIFEST_NAME).exists():
            raise RunFailed(f"there are no pairs {row.pairs}")
        pairs = str(made / "dataset")
        cost["passes_pairs"] = json.loads((made / DONE).read_text(encoding="utf-8"))["passes"]
    if not (folder / DONE).exists():
        steps = round(place.scale.further * row.steps)
        warmup = min(WARMUP, steps // 3)
        peak = {"steps": steps, "lr": row.lr or place.scale.lr, "warmup": warmup}
        dpo = DpoConfig.model_validate({"max_chosen_rise": None} | peak | row.dpo)
        base = place.base_config
        config = base.model_copy(
            update={
                "seed": place.seed,
                "optim": base.optim.model_copy(update=peak | {"schedule": "cosine"}),
                "objective": type(base.objective).model_validate(base.objective.model_dump() | row.objective),
                "dpo": dpo,
                "checkpoint_every": 10**6,
            }
        )
        begun = time.process_time()
        with counted(steps_only=True) as passes:
            train(str(place.data), folder, config, init=place.base / CHECKPOINT_NAME, pairs=pairs)
        spent = {"passes_learning": passes.learning / WINDOW, "passes_frozen": passes.frozen / WINDOW}
        spent["cpu_s"] = time.process_time() - begun
        (folder / DONE).write_text(json.dumps(spent), encoding="utf-8")
    return folder, cost | json.loads((folder / DONE).read_text(encoding="utf-8"))


def _judged(place: Place, row: RowSpec, folder: Path, cost: Row) -> Row:
    """Figures of a model on the held-out windows, kept beside it."""
    sampling = row.sampling.model_copy(update={"seed": place.seed})
    kept = folder / f"row-{digest(place.judge.data.name, sampling.model_dump())}.json"
    if not kept.exists():
        samples, windows = judgement(place.judge)
        model = load_model(load_checkpoint(folder / CHECKPOINT_NAME))
        figures = model_row(model, samples, windows, rule_of(place.corpus), sampling, (place.seed,))
        figures |= last_losses(folder / "metrics.jsonl")
        scratch = kept.with_suffix(".unfinished")
        scratch.write_text(json.dumps(figures), encoding="utf-8")
        scratch.replace(kept)
    none = dict.fromkeys(("passes_learning", "passes_frozen", "passes_pairs", "cpu_s"), 0.0)
    return json.loads(kept.read_text(encoding="utf-8")) | none | cost

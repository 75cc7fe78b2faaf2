"""The work behind `benchmarks.preferences`: corpora, bases, pairs, further steps, and what each model then does.

Phases follow each other; the jobs of a phase run side by side. What is done is kept (`benchmarks.places`).
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.jobs import phase, workers
from benchmarks.passes import counted
from benchmarks.places import WINDOW, Place, Scale, corpus_of, dpo_config, judgement, pairs_config, rule_of
from benchmarks.processes import say
from benchmarks.reactions import measure
from benchmarks.reactivity import Row, last_losses, learn, model_row, noise_floor, prepare
from benchmarks.rows import Rows, RowSpec, digest
from visavis.pipeline.cli.commands import engine_of
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.pairs import NothingLeft, build_pairs
from visavis.pipeline.plan.pairs_order import PairsRequest
from visavis.pipeline.plan.settle import share_of_way
from visavis.schemas.config import RunConfig
from visavis.schemas.errors import DatasetError, RunFailed, UsageError
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.training.checkpoint import CHECKPOINT_NAME, between, load_checkpoint, load_model, save_checkpoint
from visavis.training.dataset import Dataset
from visavis.training.log import METRICS_NAME
from visavis.training.preferences.groups import Shortfall
from visavis.training.train import train

WARMUP = 20
DONE = "done.json"


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
    with workers(jobs) as pool:
        try:
            phase(pool, "corpora", make_corpus, [(place,) for place in prepared.values()])
            truths = phase(pool, "truth", truth_of, [(place.judge,) for place in one_each.values()])
            phase(pool, "bases", make_base, [(place,) for place in first])
            pairs = [
                (place, rows.pairs[name])
                for place in first
                for name in wanted
                if any(row.pairs == name and p.corpus == place.corpus for p, _, row in tasks)
            ]
            once = {place.pairs(settings): (place, settings) for place, settings in pairs}  # names may mean the same
            phase(pool, "pairs", make_pairs, list(once.values()))
            # Rows that share their steps are one job, or two processes would take the same ones.
            shared: dict[Path, list[tuple[Place, str, RowSpec]]] = {}
            for place, name, row in tasks:
                folder = place.base if not row.steps else place.further(row, rows)
                shared.setdefault(folder, []).append((place, name, row))
            made = phase(pool, "rows", make_rows, [(group, rows) for group in shared.values()])
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


def _fits(row: RowSpec, corpus: str) -> bool:
    return row.corpora is None or corpus in row.corpora


def make_corpus(place: Place) -> None:
    prepare(place.data, corpus_of(place.corpus, place.scale), rule_of(place.corpus))


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
    _begin_anew(folder)
    try:
        passes = sample_pairs(place, place.base / CHECKPOINT_NAME, settings, folder)
    except (UsageError, DatasetError, RunFailed) as error:
        say(f"{folder}: {error}")
        return
    (folder / DONE).write_text(json.dumps({"passes": passes}), encoding="utf-8")


def sample_pairs(place: Place, checkpoint: Path, settings: dict[str, Any], folder: Path) -> float:
    """Make pairs of a model's motion; how many windows passed. That the gate leaves none is an outcome, too."""
    with counted(steps_only=False) as passes:
        request = PairsRequest(str(place.data), str(checkpoint), pairs_config(settings))
        try:
            build_pairs(request, str(folder), engine_of(RunConfig(engine="local")), Reporter())
        except NothingLeft as error:
            say(f"{folder}: {error}")
    return passes.frozen / WINDOW


def make_rows(group: list[tuple[Place, str, RowSpec]], rows: Rows) -> list[Row | str]:
    """Figures of rows that share their steps, or why there are none."""
    place, _, row = group[0]
    try:
        folder, cost = (place.base, {}) if not row.steps else follow(place, row, rows)
        return [
            _judged(each, row, *(settle(place, row, rows, folder, cost) if row.settle else (folder, cost)))
            for each, _, row in group
        ]
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
        _begin_anew(folder)
        steps = round(place.scale.further * row.steps)
        warmup = min(WARMUP, steps // 3)
        peak = {"steps": steps, "lr": row.lr or place.scale.lr, "warmup": warmup}
        base = place.base_config
        config = base.model_copy(
            update={
                "seed": place.seed,
                "optim": base.optim.model_copy(update=peak | {"schedule": "cosine"}),
                "objective": type(base.objective).model_validate(base.objective.model_dump() | row.objective),
                "dpo": dpo_config(row).model_copy(update=peak),
                "checkpoint_every": 10**6,
                "val_batches": 4,
            }
        )
        begun = time.process_time()
        with counted(steps_only=True) as passes:
            train(str(place.data), folder, config, init=place.base / CHECKPOINT_NAME, pairs=pairs)
        spent = {"passes_learning": passes.learning / WINDOW, "passes_frozen": passes.frozen / WINDOW}
        spent["cpu_s"] = time.process_time() - begun
        (folder / DONE).write_text(json.dumps(spent), encoding="utf-8")
    return folder, cost | json.loads((folder / DONE).read_text(encoding="utf-8"))


def settle(place: Place, row: RowSpec, rows: Rows, tuned: Path, cost: Row) -> tuple[Path, Row]:
    """Take the model back where its reactions go beyond the recorded ones; its folder, and what it cost in all."""
    folder, settings = tuned / "settled", rows.pairs[row.pairs or ""]
    if not (folder / DONE).exists():
        _begin_anew(folder)
        passes = sample_pairs(place, tuned / CHECKPOINT_NAME, settings, folder / "pairs")
        share = share_of_way(*(_shortfall(made) for made in (place.pairs(settings), folder / "pairs")))
        start, end = (load_checkpoint(of / CHECKPOINT_NAME) for of in (place.base, tuned))
        save_checkpoint(between(start, end, share), folder / CHECKPOINT_NAME)
        shutil.copyfile(tuned / METRICS_NAME, folder / METRICS_NAME)
        (folder / DONE).write_text(json.dumps({"passes": passes, "share": share}), encoding="utf-8")
    done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    return folder, cost | {"passes_pairs": cost["passes_pairs"] + done["passes"], "share": done["share"]}


def _shortfall(made: Path) -> Shortfall:
    info = Dataset(str(made / "dataset")).manifest.pairs
    return info.shortfall if info else {}


def _begin_anew(folder: Path) -> None:
    """What was stopped in the middle would go on, and then what it cost would be counted in part."""
    if folder.exists():
        shutil.rmtree(folder)


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
    return dict(json.loads(kept.read_text(encoding="utf-8"))) | none | cost

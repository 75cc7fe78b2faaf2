"""What the commands do, apart from parsing their arguments.

Those that train import torch when they run: the driver of a large build has no use for it.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import typer
from rich.console import Console
from rich.table import Table

from pipeline.build import Build, BuildSummary
from pipeline.chain import check_chain
from pipeline.crew import Engine, local_engine
from pipeline.dataset import DATASET
from pipeline.figures import doubt_tables, metrics_tables, pairs_table
from pipeline.fleet import ray_engine
from pipeline.machines import start_ray
from pipeline.preview import preview, preview_table
from pipeline.progress import Reporter
from pipeline.replay import outline, replay
from pipeline.sources import Sources, find_sources, source_name
from schemas.config import BuildConfig, RunConfig, load_config, parse_config
from schemas.dyads import WindowClass
from schemas.errors import UsageError
from schemas.manifest import MANIFEST_NAME, Histogram, Split
from schemas.pairs import PairsConfig
from schemas.rows import Source
from schemas.train import Drop, TrainConfig
from stages import diarize, whisper
from stages.landmarker import check_landmarker
from stages.separator import check_separator
from stages.store import Store

_SHOWN = 20  # conversations that --dry-run lists


def run_build(
    config_path: str,
    inputs: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    out: str,
    overrides: Sequence[str],
    *,
    reconfigure: bool,
    dry_run: bool,
    only: str | None,
    item: str | None,
    as_json: bool,
) -> None:
    """`visavis build`."""
    if (only is None) != (item is None):
        raise UsageError("--only STAGE and --item ITEM go together")
    config = load_config(config_path, BuildConfig, overrides)
    sources = find_sources(inputs, pairs)
    diarize.check_models(config.diarize)
    whisper.check_models(config.transcribe)
    check_landmarker(config.faces)
    check_separator(config.separate)
    if only and item:
        _replay(Build(config, out, local_engine, Reporter()), sources, only, item, as_json=as_json)
        return
    if dry_run:
        _show_plan(config, sources, out, as_json=as_json)
        return
    reporter = Reporter()
    for line in sources.notes.lines():
        reporter.line(line)
    summary = Build(config, out, engine_of(config.run), reporter).run(sources, reconfigure=reconfigure)
    if as_json:
        plan = {"plan": summary.plan.model_dump(mode="json"), "notes": asdict(sources.notes)}
        typer.echo(json.dumps(asdict(summary) | plan, sort_keys=True))
    else:
        Console().print(summary_table(summary))
        Console().print(f"dataset: {summary.dataset}", highlight=False, markup=False, soft_wrap=True)


def _replay(build: Build, sources: Collection[Source], stage: str, item: str, *, as_json: bool) -> None:
    done = replay(build, sources, stage, item)
    plain = {
        "stage": stage,
        "key": done.task.key,
        "item": done.task.item,
        "ledger": done.known,
        "rejected": done.reason.value if done.reason else None,
        "detail": done.detail,
        "rows": [outline(row) for row in done.rows],
        "seconds": round(done.seconds, 3),
    }
    typer.echo(json.dumps(plain, indent=None if as_json else 2, ensure_ascii=False))


def run_train(
    config_path: str,
    dataset: str,
    out: Path,
    init: Path | None,
    pairs: str | None,
    overrides: Sequence[str],
    workers: int | None,
    address: str | None,
) -> None:
    """`visavis train`."""
    from training.train import Stopped, train

    if address and workers is None:
        raise UsageError("--address goes with --num-workers")
    config = load_config(config_path, TrainConfig, overrides)
    reporter = Reporter()
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun may have started
    run: Callable[..., Path] = train
    if workers is not None:
        from pipeline.ray_train import train_on_ray

        run = partial(train_on_ray, workers=workers, address=address)
    inputs = {"init": init, "pairs": dataset_folder(pairs) if pairs else None}
    with reporter.training("dpo" if pairs else "train") as progress:
        try:
            path = run(dataset_folder(dataset), out, config, **inputs, progress=progress)
        except Stopped as stopped:
            if first:
                reporter.line(str(stopped))
            raise
    if first:
        typer.echo(str(path))


def run_pairs(
    dataset: str,
    checkpoint: Path,
    out: str,
    config_path: str | None,
    rejected: Path | None,
    limit: int | None,
    engine: str,
    address: str | None,
    overrides: Sequence[str],
    *,
    reconfigure: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`visavis pairs`."""
    from pipeline.pairs import build_pairs, check_pairs
    from training.checkpoint import load_checkpoint

    other = ["rejected=checkpoint", f"rejected_checkpoint={json.dumps(str(rejected))}"] if rejected else []
    if config_path:
        config = load_config(config_path, PairsConfig, [*other, *overrides])
    else:
        sampler = load_checkpoint(checkpoint).config.sampler.model_dump(mode="json")
        config = parse_config(json.dumps({"sampler": sampler}), PairsConfig, [*other, *overrides], where="pairs")
    folder = dataset_folder(dataset)
    if dry_run:
        from pipeline.trial import trial_lines, try_pairs

        found = try_pairs(check_pairs(folder, str(checkpoint), config, limit))
        if as_json:
            typer.echo(json.dumps(found, sort_keys=True))
            return
        figures = {name: Histogram.model_validate(each) for name, each in found["figures"].items()}
        Console().print(pairs_table(figures, config.gate.model_dump()))
        typer.echo("\n".join(trial_lines(found)))
        return
    run = parse_config(json.dumps({"engine": engine, "address": address}), RunConfig, where="pairs")
    summary = build_pairs(
        folder, str(checkpoint), out, config, engine_of(run), Reporter(), limit=limit, reconfigure=reconfigure
    )
    if as_json:
        plain = {name: found.model_dump() for name, found in summary.figures.items()}
        typer.echo(json.dumps(asdict(summary) | {"figures": plain}, sort_keys=True))
        return
    left_out = "".join(f", {n} {reason}" for reason, n in summary.gated.items())
    typer.echo(f"{summary.kept} pairs of {summary.tried} tried{left_out}\n{summary.dataset}")


def run_evaluate(
    checkpoint: Path,
    dataset: str,
    split: str,
    seeds: int,
    limit: int | None,
    encoder: str | None,
    *,
    by_class: bool,
    as_json: bool,
) -> None:
    """`visavis evaluate`."""
    from training.evaluate import evaluate

    if split not in ("train", "val"):
        raise UsageError(f"--split is train or val, not {split}")
    side: Split = "val" if split == "val" else "train"
    with Reporter().training("evaluate") as progress:
        result = evaluate(
            checkpoint, dataset_folder(dataset), side, seeds=range(seeds), limit=limit, encoder=encoder,
            progress=progress,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(result, sort_keys=True))
        return
    counts = ", ".join(f"{n} {label}" for label, n in result["windows"].items() if label != "all")
    typer.echo(f"{result['split']} windows: {counts}")
    for label in result["windows"] if by_class else ("all",):
        title = "" if label == "all" else label
        Console().print(*metrics_tables({name: row[label] for name, row in result["rows"].items()}, title))
        Console().print(*doubt_tables(result, label))


def run_generate(checkpoint: Path, dataset: str, key: str, out: Path, drop: str, encoder: str | None) -> None:
    """`visavis generate`."""
    from training.evaluate import generate

    if drop not in get_args(Drop):
        raise UsageError(f"--drop is one of {', '.join(get_args(Drop))}, not {drop}")
    path = generate(checkpoint, dataset_folder(dataset), key, out, drop=drop, encoder=encoder)  # type: ignore[arg-type]
    typer.echo(str(path))


def engine_of(config: RunConfig) -> Engine:
    """The engine that a config names."""
    return local_engine if config.engine == "local" else ray_engine(config)


def dataset_folder(path: str) -> str:
    """A dataset's folder, also where its run's folder is named."""
    inside = f"{path.rstrip('/')}/{DATASET}"
    return inside if not Store(path).exists(MANIFEST_NAME) and Store(inside).exists(MANIFEST_NAME) else path


def summary_table(summary: BuildSummary) -> Table:
    """What a build kept and left out, and how balancing changes what is drawn."""
    table = Table(title=f"{summary.sources} conversations in, {summary.kept} kept, {summary.samples} samples")
    for column in ("class", "s before balance", "s after"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for label in WindowClass:
        before, after = summary.plan.seconds_before[label], summary.plan.seconds_after[label]
        table.add_row(label.value, f"{before:.0f}", f"{after:.0f}")
    for reason, count in summary.rejected.items():
        table.add_row(f"rejected: {reason}", str(count), "")
    return table


def _show_plan(config: BuildConfig, sources: Sources, out: str, *, as_json: bool) -> None:
    check_chain()
    cluster: dict[str, Any] = {}
    if config.run.engine == "ray" and config.run.address:
        import ray

        start_ray(config.run.address)
        cluster = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
    build = Build(config, out, local_engine, Reporter())
    left, quality = build.remaining(sources), preview(out, build.fingerprints["cast"], config.quality)
    if as_json:
        listed = [s.model_dump(mode="json") for s in sources]
        plan = {"conversations": listed, "out": out, "cluster": cluster, "to_do": dict(sorted(left.items()))}
        plan |= {"quality": quality, "notes": asdict(sources.notes)}
        typer.echo(json.dumps(plan, sort_keys=True))
        return
    for source in itertools.islice(sources, _SHOWN):
        typer.echo(f"{'one file each' if len(source.uris) > 1 else 'one frame':<14} {source_name(source)}")
    if len(sources) > _SHOWN:
        typer.echo(f"… and {len(sources) - _SHOWN} more")
    for line in sources.notes.lines():
        typer.echo(line)
    where = f"Ray cluster {cluster}" if cluster else f"this machine ({config.run.engine})"
    to_do = ", ".join(f"{count} from {stage} on" for stage, count in left.items()) or "none"
    typer.echo(f"{len(sources)} conversations → {out} on {where}; to do: {to_do}")
    if quality["measured"]:
        Console().print(preview_table(quality))
    typer.echo("settings and models are in order, nothing was written")

"""What the commands do, apart from parsing their arguments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from stages.diarize import DiarizeStage

from pipeline.build import DATASET, Build, BuildSummary, check_chain
from pipeline.engine import Engine, local_engine, ray_engine, start_ray
from pipeline.progress import Reporter
from pipeline.sources import find_sources, source_name
from schemas.config import BuildConfig, RunConfig, load_config
from schemas.manifest import MANIFEST_NAME
from schemas.rows import Source, WindowClass
from stages.store import Store


def run_build(
    config_path: str,
    inputs: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    out: str,
    overrides: Sequence[str],
    *,
    reconfigure: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`visavis build`."""
    config = load_config(config_path, BuildConfig, overrides)
    sources = find_sources(inputs, pairs)
    DiarizeStage(config.diarize).check()  # a missing model is told before any work
    if dry_run:
        _show_plan(config, sources, out, as_json=as_json)
        return
    reporter = Reporter()
    summary = Build(config, out, engine_of(config.run), reporter).run(sources, reconfigure=reconfigure)
    if as_json:
        typer.echo(json.dumps(asdict(summary) | {"plan": summary.plan.model_dump(mode="json")}, sort_keys=True))
    else:
        Console().print(summary_table(summary))
        Console().print(f"dataset: {summary.dataset}", highlight=False, markup=False, soft_wrap=True)


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


def _show_plan(config: BuildConfig, sources: Sequence[Source], out: str, *, as_json: bool) -> None:
    check_chain()
    cluster: dict[str, Any] = {}
    if config.run.engine == "ray" and config.run.address:
        import ray

        start_ray(config.run.address)
        cluster = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
    if as_json:
        plan = {"conversations": [s.model_dump(mode="json") for s in sources], "out": out, "cluster": cluster}
        typer.echo(json.dumps(plan, sort_keys=True))
        return
    for source in sources:
        typer.echo(f"{'one file each' if len(source.uris) > 1 else 'one frame':<14} {source_name(source)}")
    where = f"Ray cluster {cluster}" if cluster else f"this machine ({config.run.engine})"
    typer.echo(
        f"{len(sources)} conversations → {out} on {where}; settings and models are in order, nothing was written"
    )

"""A plain summary of a dataset."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline.commands import dataset_folder
from schemas.dyads import WindowClass
from schemas.manifest import Manifest
from training.data import Dataset


def run_report(dataset: str, samples: int, *, as_json: bool) -> None:
    """`visavis report`."""
    data = Dataset(dataset_folder(dataset))
    keys = {
        label.value: [s.key for s in islice(data.samples("train", label), samples)]
        for label in WindowClass
        if data.manifest.of("train", label)
    }
    if as_json:
        typer.echo(json.dumps(summarise(data.manifest) | {"sha256": data.hash, "samples": keys}, sort_keys=True))
        return
    Console().print(_table(data))
    for line in _lines(data.manifest):
        typer.echo(line)
    for label, found in keys.items():
        typer.echo(f"{label}: {', '.join(found)}")


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Counts by split and class, and how the dataset was made; plain JSON values."""
    counts = {
        split: {label.value: sum(s.samples for s in manifest.of(split, label)) for label in WindowClass}
        for split in ("train", "val")
    }
    made = manifest.model_dump(mode="json", exclude={"shards"})
    return {"counts": counts, "bytes": sum(s.bytes for s in manifest.shards), "shards": len(manifest.shards), **made}


def _table(data: Dataset) -> Table:
    manifest = data.manifest
    table = Table(title=f"{data.location} ({manifest.kind})")
    for column in ("class", "train", "val", "share drawn", "mean keep"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for label in WindowClass:
        counts = [sum(s.samples for s in manifest.of(split, label)) for split in ("train", "val")]
        share, keep = manifest.plan.mixture.get(label, 0.0), manifest.plan.keep.get(label, 0.0)
        table.add_row(label.value, *map(str, counts), f"{share:.0%}", f"{keep:.2f}")
    return table


def _lines(manifest: Manifest) -> list[str]:
    megabytes = sum(s.bytes for s in manifest.shards) / 1e6
    lines = [
        f"{manifest.conversations} conversations, {manifest.participants} participants,"
        f" {len(manifest.shards)} shards, {megabytes:.1f} MB",
        f"windows of {manifest.window} frames at {manifest.fps} fps; motion {manifest.motion.codec},"
        f" {manifest.motion.dim} dimensions",
    ]
    if manifest.pairs:
        gated = ", ".join(f"{n} {reason}" for reason, n in manifest.pairs.gated.items()) or "none"
        lines.append(
            f"pairs: chosen {manifest.pairs.chosen}, rejected without {', '.join(manifest.pairs.dropped)}"
            f" by {manifest.pairs.generator[:12]}; left out: {gated}"
        )
        audio = manifest.pairs.audio
        lines.append(f"its audio features: {audio.kind}, which hear at most {audio.horizon_ms} ms ahead")
    return lines

"""A plain summary of a dataset, or a picture of a window that was generated from one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.table import Table

from visavis.pipeline.cli.folders import dataset_folder
from visavis.pipeline.cli.tables import pairs_table
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.terminal import Terminal, say, say_json, table
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import Manifest, Split
from visavis.schemas.uris import is_local
from visavis.schemas.words import counted, in_words, size
from visavis.stages.face.decode import why_not_drawn
from visavis.stages.pairing.shortfall import shortfall_line
from visavis.training.dataset import Dataset

if TYPE_CHECKING:
    from visavis.pipeline.page.report import Wanted


def report_generated(
    generated: str, picture: Path, dataset: str | None, flame: tuple[Path | None, Path | None], *, as_json: bool
) -> None:
    """Draw a generated window. flame: a FLAME model, and the landmarks on it."""
    from visavis.pipeline.cli.draw import save_sheet
    from visavis.pipeline.cli.flame import flame_face
    from visavis.pipeline.cli.generated import draw_generated

    reporter = Reporter()
    sheet, missing = draw_generated(Path(generated), dataset_folder(dataset) if dataset else None, flame_face(*flame))
    save_sheet(sheet, picture)
    if missing:
        reporter.line(f"no faces are drawn, only curves: {missing}")
    if as_json:
        say_json({"picture": str(picture), "no_faces": missing or None})
    else:
        say(str(picture))
        reporter.end("curves drawn" if missing else "faces and curves drawn", advice=f"look at {picture}")


def report_page(
    run: str,
    out: Path | None,
    beside: tuple[Sequence[str], Sequence[Path], Sequence[Path]],
    wanted: Wanted,
    *,
    as_json: bool,
) -> None:
    """Write a page. beside: pairs, trainings and evaluations that do not lie in `run`."""
    from visavis.pipeline.page.report import write_report
    from visavis.pipeline.page.report_find import find

    reporter = Reporter()
    if out is None and not is_local(run):
        raise UsageError(f"{run} is not on this machine: name the page's folder with --out")
    folder = out or Path(f"{run.rstrip('/')}-page")
    found = find(run, *beside)
    made = write_report(found, folder, wanted, reporter)
    if as_json:
        say_json(made)
        return
    say(made["page"])
    opened = f"{made['opened']} of {counted(made['conversations'], 'conversation')} can be opened"
    sizes = f"{size(made['bytes'])} without media, {size(made['media_bytes'])} of media"
    reporter.end(f"{opened}, {sizes}", advice=f"open {made['page']} in a browser")


def report_dataset(dataset: str, samples: int, *, as_json: bool) -> None:
    """Print what a dataset holds. samples: keys that are listed per class and split."""
    reporter, data = Reporter(), Dataset(dataset_folder(dataset))
    keys = {
        split: {label.value: [s.key for s in islice(data.samples(split, label), samples)] for label in WindowClass}
        for split in get_args(Split)
    }
    if as_json:
        say_json(summarise(data.manifest) | {"sha256": data.hash, "samples": keys})
        return
    Terminal().print(_table(data))
    if data.manifest.pairs and data.manifest.pairs.figures:
        Terminal().print(pairs_table(data.manifest.pairs.figures, data.manifest.pairs.gate))
    if data.manifest.labels:
        Terminal().print(_labels_table(data.manifest.labels))
    for line in _lines(data.manifest):
        say(line)
    for split, classes in keys.items():
        for label, found in classes.items():
            if found:
                say(f"{split} {label}: {', '.join(found)}")
    windows = sum(shard.samples for shard in data.manifest.shards)
    count = counted(windows, data.manifest.kind.removesuffix("s"))
    reporter.end(f"{count} in {counted(len(data.manifest.shards), 'shard')}", "verify", dataset)


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
    made = table(f"{data.location} ({manifest.kind})", "class", "train", "val", "drawn", "sampling p")
    for label in WindowClass:
        counts = [sum(s.samples for s in manifest.of(split, label)) for split in ("train", "val")]
        share, keep = manifest.plan.mixture.get(label, 0.0), manifest.plan.keep.get(label, 0.0)
        made.add_row(label.value, *map(str, counts), f"{share:.0%}", f"{keep:.2f}")
    return made


def _labels_table(labels: Mapping[str, Mapping[Split, int]]) -> Table:
    """How many samples of each split have each label."""
    made = table("what happens in them", "label", "train", "val")
    for label, of in labels.items():
        made.add_row(label, *(str(of.get(split, 0)) for split in ("train", "val")))
    return made


def _lines(manifest: Manifest) -> list[str]:
    megabytes = sum(s.bytes for s in manifest.shards) / 1e6
    lines = [
        f"{counted(manifest.conversations, 'conversation')}, {counted(manifest.participants, 'participant')},"
        f" {counted(len(manifest.shards), 'shard')}, {megabytes:.1f} MB",
        f"windows of {counted(manifest.window, 'frame')} at {manifest.fps} fps; motion {manifest.motion.codec},"
        f" {counted(manifest.motion.dim, 'dimension')}",
        *([f"its motion cannot be drawn as faces: {why}"] if (why := why_not_drawn(manifest)) else []),
    ]
    if manifest.pairs:
        made = manifest.pairs
        gated = in_words(made.gated) or "none"
        without = f" without {', '.join(made.dropped)}" if made.dropped else ""
        lines.append(
            f"pairs: chosen {made.chosen}, rejected {made.rejected}{without} by {made.rejected_generator[:12]};"
            f" left out: {gated}"
        )
        if short := shortfall_line(made.shortfall):
            lines.append(short)
        audio = manifest.pairs.audio
        lines.append(f"its audio features: {audio.kind}, which hear at most {audio.horizon_ms} ms ahead")
    return lines

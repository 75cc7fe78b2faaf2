"""`visavis export`: a dataset as a table, its conversations or its faces in the layouts of other trainers."""

from __future__ import annotations

from typing import Annotated

import typer

from visavis.pipeline.cli.options import Json, refuse, typed
from visavis.pipeline.engine.terminal import say, say_json
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.words import counted, in_words

exports = typer.Typer()
_CROPS = "imtalker"
_FEWEST = 21  # videos: its loader keeps 5 % to test on, and holds each against another one
_FOR_CROPS = "limit", "min_side", "media", "as_json"


@exports.command()
def export(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Argument(
            help=f"Dataset or run, of `visavis build`, `import` or `pairs`; for {_CROPS}, the run of a build."
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            help="A .parquet (runs/windows.parquet, runs/pairs.parquet), or a folder (runs/LAYOUT); path or URL.",
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="parquet: windows or pairs as a table. dualtalk or unils: whole conversations. imtalker: crops of"
            " faces, 512 × 512, with 68 landmarks and voices."
        ),
    ] = "parquet",
    limit: Annotated[int | None, typer.Option(min=1, help="imtalker: no more conversations than this.")] = None,
    min_side: Annotated[
        int,
        typer.Option(min=0, max=10_000, metavar="PIXELS", help="imtalker: leave out faces whose crop is smaller."),
    ] = 0,
    media: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="imtalker: whole address of a film that is not on this machine; for each."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write windows or pairs as one Parquet file, or whole conversations or faces in the layouts of other trainers.

    Faces are cut out of the films that a build was made of, which must be where they were. That takes a while:
    stopped and started again it goes on.
    """
    needs("build", "visavis export")
    if layout == _CROPS:
        _crops(dataset, out or f"runs/{layout}", limit, min_side, media or [], as_json=as_json)
        return
    from visavis.pipeline.cli.export import export_dataset
    from visavis.pipeline.cli.export_layouts import LAYOUTS, ONE_SIDED, export_layout
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.training.dataset import Dataset

    if layout not in ("parquet", *LAYOUTS):
        raise UsageError(f"--layout {layout}: parquet, {', '.join(LAYOUTS)} or {_CROPS}")
    refuse(typed(context), f"--layout {layout}", *_FOR_CROPS)
    reporter, data = Reporter(), Dataset(dataset_folder(dataset))
    if layout == "parquet":
        path = out or f"runs/{data.manifest.kind}.parquet"
        count = counted(export_dataset(data, path), data.manifest.kind.removesuffix("s"))
        say(f"{count}\n{path}")
        reporter.end(f"{count} exported", advice=f'next: datasets.load_dataset("parquet", data_files="{path}")')
        return
    path = out or f"runs/{layout}"
    counts = export_layout(data, LAYOUTS[layout], path, reporter)
    said = ", ".join(f"{count} {split}" for split, count in counts.items())
    written = counted(sum(counts.values()) - counts.get(ONE_SIDED, 0), "clip")
    say(f"{written} ({said})\n{path}")
    reporter.end(f"{written} exported", advice=f"next: visavis import {layout} {path}")


def _crops(run: str, out: str, limit: int | None, min_side: int, media: list[str], *, as_json: bool) -> None:
    from visavis.pipeline.cli.crop_folders import SIDE
    from visavis.pipeline.cli.export_crops import export_crops
    from visavis.pipeline.engine.progress import Reporter
    from visavis.schemas import FPS

    reporter = Reporter()
    found = export_crops(run, out, reporter, limit=limit, smallest=min_side, addresses=media)
    videos = counted(found.videos.total(), "video")
    if as_json:
        say_json({"out": out} | vars(found))
    else:
        splits = ", ".join(f"{count} {split}" for split, count in sorted(found.videos.items()))
        say(f"{videos}{splits and f' ({splits})'}, {found.frames / FPS:.0f} s, {found.cached} of them there before")
        if found.left_out:
            say(f"stretches left out: {in_words(found.left_out)}")
        if found.unsplit:
            say(f"{counted(found.unsplit, 'conversation')} left out, which the dataset has not")
        if found.enlarged:
            say(f"{found.enlarged} are enlarged more than twice: --min-side {SIDE // 2} leaves them out")
        say(out)
    if found.failed:
        reporter.end(f"{videos} exported, {counted(len(found.failed), 'conversation')} not to the end; see above")
        raise typer.Exit(1)
    advice = f"next: renderer/train.py --dataset_path {out}/train, of IMTalker"
    if (count := found.videos["train"]) < _FEWEST:
        advice = f"look at {out}/clips.jsonl: IMTalker's loader asks for {_FEWEST} videos in train, here are {count}"
    reporter.end(f"{videos} exported", advice=advice)

"""The commands around a build and its dataset."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from visavis.pipeline.cli.options import Address, Engine, Json, Overrides, Reconfigure
from visavis.pipeline.engine.terminal import Terminal, say, say_json
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.plain import to_json
from visavis.schemas.words import counted

builds = typer.Typer()


@builds.command()
def build(
    config: Annotated[str, typer.Argument(help="Recipe, for example configs/default.yaml.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos, folders, globs, fsspec URLs, or lists (.jsonl, .csv, .tsv, also .gz, and .parquet; with `uri`"
            " and, where known, `conversation` and `participant`)."
        ),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="FILE FILE", help="One conversation as two files, one per participant, on one timeline."),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or URL of the run.")] = "runs/build",
    engine: Engine = None,
    address: Address = None,
    set_: Overrides = None,
    reconfigure: Reconfigure = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print what is to be done; write nothing.")
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="With --item: run one stage on one item in this process; write nothing."),
    ] = None,
    item: Annotated[
        str | None, typer.Option(help="Beginning of an item's key, or part of its file's name, as status prints them.")
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.py:CLASS", help="A stage of your own, or an installed one's name; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build a dataset of training shards from conversation videos.

    Running it again does only what is missing. Roles are never an input: every conversation is used both ways.
    """
    needs("build", "visavis build")
    from visavis.pipeline.cli.commands import check_models, end_build, engine_of, show_plan, summary_table
    from visavis.pipeline.engine.executor import local_engine
    from visavis.pipeline.engine.progress import Reporter
    from visavis.pipeline.plan.build import Build
    from visavis.pipeline.plan.plugins import with_plugins
    from visavis.pipeline.plan.replay import replay
    from visavis.pipeline.plan.sources import access_to, find_sources
    from visavis.schemas.config import BuildConfig
    from visavis.schemas.recipes import load_config

    if (only is None) != (item is None):
        raise UsageError("--only STAGE and --item ITEM go together")
    reporter, chosen = Reporter(), {"engine": engine, "address": address}
    overrides = [*(set_ or []), *(f"run.{name}={to_json(value)}" for name, value in chosen.items() if value)]
    recipe, named, dyads = load_config(config, BuildConfig, overrides), inputs or [], [pair] if pair else []
    recipe = with_plugins(recipe, plugin or [])
    access = access_to(recipe.sources, named, dyads)
    sources = find_sources(named, dyads, access)
    check_models(recipe)
    if only and item:
        found = replay(Build(recipe, out, local_engine, reporter, access), sources, only, item)
        say_json(found, for_people=not as_json)
        if not as_json:
            reporter.end(f"{only} of {item}, nothing was written", "status", out)
        return
    if dry_run:
        show_plan(recipe, sources, out, reporter, reconfigure=reconfigure, as_json=as_json)
        return
    for line in sources.notes.lines():
        reporter.line(line)
    summary = Build(recipe, out, engine_of(recipe.run), reporter, access).run(sources, reconfigure=reconfigure)
    if as_json:
        plain = {"plan": summary.plan.model_dump(mode="json"), "notes": asdict(sources.notes)}
        say_json(asdict(summary) | plain)
        return
    Terminal().print(summary_table(summary))
    end_build(summary, out, reporter)


@builds.command()
def status(
    run: Annotated[str, typer.Argument(help="Folder or URL of a run.")] = "runs/build",
    watch: Annotated[
        float | None, typer.Option(metavar="SECONDS", min=1, help="Show it anew every so often, until the run ends.")
    ] = None,
    left_out: Annotated[
        bool, typer.Option("--left-out", help="List each item that was rejected or failed, and why.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what became of every item of a run, also while it runs: running, finished, stopped, killed or failed."""
    needs("build", "visavis status")
    from visavis.pipeline.cli.status import next_words, read_left_out, read_status, result_line, status_tables
    from visavis.pipeline.engine.progress import Reporter
    from visavis.pipeline.plan.file_names import DATASET

    reporter = Reporter()
    while True:
        found = read_status(run, DATASET)
        each = read_left_out(run) if left_out else []
        if as_json:
            say_json(found | ({"left_out": each} if left_out else {}))
        else:
            for part in status_tables(found):
                Terminal().print(part, highlight=False)
            for row in each:
                say(f"{row['stage']}  {row['item']}  {row['reason']}: {row['detail']}")
        if watch is None or found["running"] is None:
            break
        time.sleep(watch)
    if not as_json:
        reporter.end(result_line(found), *next_words(found), advice="next: the command that began it")


@builds.command()
def draw(
    run: Annotated[str, typer.Argument(help="Folder or URL of a run.")],
    item: Annotated[str, typer.Argument(help="Beginning of a conversation's id, or part of its file's name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .png or .jpg.")] = Path("conversation.png"),
    moments: Annotated[int, typer.Option(min=1, max=60, help="Columns of the sheet.")] = 6,
    media: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Whole address of a file that is not on this machine; for each."),
    ] = None,
) -> None:
    """Draw what was seen in a conversation: its faces in some frames, and the motion made of them."""
    needs("build", "visavis draw")
    from visavis.pipeline.cli import draw as drawing
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    sheet, name = drawing.draw(run, item, moments, media or [])
    drawing.save_sheet(sheet, out)
    say(str(out))
    reporter.end(f"drawn: {name}, {counted(moments, 'frame')}", "status", run)


@builds.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="Folder or URL that holds manifest.json, or a run's folder.")],
    quick: Annotated[bool, typer.Option("--quick", help="Hash the shards only; do not decode samples.")] = False,
    as_json: Json = False,
) -> None:
    """Check a dataset against its manifest: every byte, every sample. Exit 1 if anything is wrong."""
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.cli.verify import verify_dataset
    from visavis.pipeline.engine.progress import Reporter

    try:
        folder = dataset_folder(dataset)
    except UsageError:  # a run without a dataset: that is what is found
        folder = dataset
    reporter = Reporter()
    findings = verify_dataset(folder, decode=not quick)
    if as_json:
        say_json({"dataset": folder, "findings": findings})
    else:
        say("\n".join(findings) or f"{folder}: intact")
        what = "every byte" if quick else "every byte and sample"
        found = f"{counted(len(findings), 'finding')}, {what} was looked at"
        advice = "remove what is named and run the command that made it again"
        reporter.end(found, *(() if findings else ("report", folder)), advice=advice)
    raise typer.Exit(1 if findings else 0)

"""The commands around public corpora: import, and cards for what is made of them."""

from __future__ import annotations

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

corpora = typer.Typer()
_LAYOUTS = "dualtalk, unils, seamless, vico or solo"
_TOLD = 10  # conversations that a dry run names


@corpora.command("import")
def import_(
    layout: Annotated[str, typer.Argument(help=f"How the corpus lies on disk: {_LAYOUTS}.")],
    folder: Annotated[str, typer.Argument(help="Folder or URL of the corpus, or of one of its splits.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or URL of the run.")] = "runs/import",
    split: Annotated[
        list[str] | None, typer.Option(help="Only this split of the corpus, such as train; may be repeated.")
    ] = None,
    engine: Engine = None,
    address: Address = None,
    set_: Overrides = None,
    reconfigure: Reconfigure = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what is there and check the settings; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import a public corpus whose motion and voices are given, into the same shards as a build's.

    Running it again does only what is missing. What is left out has a reason: `visavis status OUT`.
    """
    needs("build", "visavis import")
    from visavis.pipeline.cli.commands import end_build, engine_of, summary_table
    from visavis.pipeline.engine.progress import Reporter
    from visavis.pipeline.plan.corpora import list_corpus
    from visavis.pipeline.plan.importing import Import, splits_of
    from visavis.schemas.imports import ImportConfig
    from visavis.schemas.recipes import parse_config

    chosen = {"engine": engine, "address": address}
    overrides = [*(set_ or []), *(f"run.{name}={to_json(value)}" for name, value in chosen.items() if value)]
    given = {"layout": layout} | ({"splits": split} if split else {})
    config = parse_config(to_json(given), ImportConfig, overrides, where="visavis import")
    reporter = Reporter()
    made = Import(config, out, engine_of(config.run), reporter)
    recorded = made.chosen(list_corpus(config.layout, folder))
    found = ", ".join(f"{count} {name}" for name, count in sorted(splits_of(recorded).items()))
    if dry_run:
        if as_json:
            say_json({"codec": made.codec, "conversations": [each.model_dump(mode="json") for each in recorded]})
        else:
            say(f"{counted(len(recorded), 'conversation')} ({found}); motion {made.codec} → {out}")
            amiss = [each for each in recorded if each.amiss]
            for each in amiss[:_TOLD]:
                say(f"will be left out: {each.name}: {each.amiss}")
            if len(amiss) > _TOLD:
                say(f"… and {len(amiss) - _TOLD} more; --json has all")
        return
    summary = made.run(recorded, reconfigure=reconfigure)
    if as_json:
        say_json(asdict(summary) | {"plan": summary.plan.model_dump(mode="json")})
        return
    Terminal().print(summary_table(summary))
    count, most = summary.differ
    if count:
        say(f"{counted(count, 'conversation')} with motion and voices of different lengths, by {most:.2f} s at most:"
            " cut to the shortest motion")  # fmt: skip
    if summary.one_sided:
        say(f"{counted(summary.one_sided, 'conversation')} with the motion of one person only: the other is no avatar")
    end_build(summary, out, reporter)


@corpora.command()
def card(
    what: Annotated[str, typer.Argument(help="Dataset or run, or a checkpoint (.safetensors).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to be written; not replaced.")] = Path("README.md"),
    name: Annotated[str | None, typer.Option(help="Its title; else the name of the folder.")] = None,
) -> None:
    """Write a card for Hugging Face's hub, from a dataset's manifest or from a checkpoint."""
    from visavis.pipeline.cli.cards import dataset_card, model_card, write_card
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.training.checkpoint import checkpoint_id, load_checkpoint
    from visavis.training.dataset import Dataset

    reporter = Reporter()
    if out.exists():
        raise UsageError(f"{out} is there already, and may have been edited: name another --out, or remove it")
    if what.endswith(".safetensors"):
        path = Path(what)
        title = name or path.absolute().parent.name
        text = model_card(load_checkpoint(path, whole=False), checkpoint_id(path), title)
    else:
        data = Dataset(dataset_folder(what))
        title = name or what.rstrip("/").removesuffix("/dataset").rpartition("/")[2]
        text = dataset_card(data.manifest, data.hash, title)
    write_card(text, out)
    say(str(out))
    reporter.end(f"card of {title}", advice="next: fill in what is marked `to be filled in`")

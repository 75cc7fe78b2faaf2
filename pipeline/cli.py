"""The command line. Exit 0 done; 1 ran, but not all is well; 2 wrong use, told in one line."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import click
import typer
from rich.console import Console

from schemas.errors import DatasetError, RunFailed, UsageError

app = typer.Typer(
    name="visavis",
    help="From dyadic conversation video to training shards, preference pairs and a causal listener.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for scripts.")]


@app.command()
def build(
    config: Annotated[str, typer.Argument(help="Recipe, for example configs/default.yaml.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Videos, folders, globs, fsspec URLs, or lists (.jsonl, .csv, .parquet with `uri` and,"
            " where known, `conversation` and `participant`)."
        ),
    ] = None,
    pair: Annotated[
        list[click.Tuple] | None,
        typer.Option(
            "--pair",
            metavar="FILE FILE",
            click_type=click.Tuple([str, str]),
            help="Two files of one conversation, one per participant, on one timeline; may be repeated.",
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or URL of the run.")] = "runs/build",
    engine: Annotated[str | None, typer.Option(help="ray (default) or local: in this process.")] = None,
    set_: Overrides = None,
    reconfigure: Annotated[
        bool, typer.Option("--reconfigure", help="Rebuild what changed settings touch in a folder of other settings.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build a dataset of training shards from conversation videos.

    Running it again does only what is missing. Roles are never an input: every conversation is used both ways.
    """
    from pipeline.commands import run_build

    overrides = [*(set_ or []), *([f"run.engine={engine}"] if engine else [])]
    pairs = [(str(p[0]), str(p[1])) for p in pair or []]  # type: ignore[index]
    run_build(config, inputs or [], pairs, out, overrides, reconfigure=reconfigure, dry_run=dry_run, as_json=as_json)


@app.command()
def status(
    run: Annotated[str, typer.Argument(help="Folder or URL of a run.")] = "runs/build", as_json: Json = False
) -> None:
    """Show what became of every item of a run, also while it goes on."""
    from pipeline.build import DATASET
    from pipeline.status import read_status, status_table

    found = read_status(run, DATASET)
    if as_json:
        print_json(found)
    else:
        Console().print(status_table(found))


@app.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="Folder or URL that holds manifest.json, or a run's folder.")],
    quick: Annotated[bool, typer.Option("--quick", help="Hash the shards only; do not decode samples.")] = False,
    as_json: Json = False,
) -> None:
    """Check a dataset against its manifest: every byte, every sample. Exit 1 if anything is wrong."""
    from pipeline.commands import dataset_folder
    from pipeline.verify import verify_dataset

    folder = dataset_folder(dataset)
    findings = verify_dataset(folder, decode=not quick)
    if as_json:
        print_json({"dataset": folder, "findings": findings})
    else:
        for line in findings:
            typer.echo(line)
        if not findings:
            typer.echo(f"{folder}: sound")
    raise typer.Exit(1 if findings else 0)


def print_json(data: Any) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(data, sort_keys=True))


def main() -> None:
    """Entry point: every expected error becomes one line on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
    except click.ClickException as error:
        code = _fail(error.format_message(), 2)
    except UsageError as error:
        code = _fail(str(error), 2)
    except (DatasetError, RunFailed) as error:
        code = _fail(str(error), 1)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("stopped; run the same command again to go on from here", 130)
    except BrokenPipeError:  # the reader of our output went away
        code = 1
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    print(f"visavis: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

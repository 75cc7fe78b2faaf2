"""The command line. Exit 0 done; 1 ran, but not all is well; 2 wrong use, told in one line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.terminal import Terminal, say, say_json
from schemas.errors import DatasetError, RunFailed, UsageError
from schemas.faults import Blame, as_os_error, blame_of
from schemas.plain import to_json
from schemas.secrets import guard_output, safe
from schemas.words import counted
from training.home import ensure_home
from training.ranks import signature
from training.stopping import EXIT_CODE, answer_requests_to_stop

app = typer.Typer(
    name="visavis",
    help="From dyadic conversation video to training shards, preference pairs and a causal listener.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def visavis(context: typer.Context) -> None:
    """Prints the help where no command is given, as wrong use."""
    if context.invoked_subcommand is None:
        say(context.get_help(), err=True)
        raise typer.Exit(2)


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override a setting; may be repeated. VALUE is YAML 1.2, and none where it is empty.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Weights of the checkpoint's audio encoder, where it was trained on one."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for scripts.")]


@app.command()
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
    engine: Annotated[str | None, typer.Option(help="ray (default) or local: in this process.")] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: auto, or host:port. None: one is started here.")
    ] = None,
    set_: Overrides = None,
    reconfigure: Annotated[
        bool, typer.Option("--reconfigure", help="Rebuild what changed settings touch in a folder of other settings.")
    ] = False,
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
    as_json: Json = False,
) -> None:
    """Build a dataset of training shards from conversation videos.

    Running it again does only what is missing. Roles are never an input: every conversation is used both ways.
    """
    from pipeline.commands import run_build

    chosen = {"engine": engine, "address": address}
    overrides = [*(set_ or []), *(f"run.{name}={to_json(value)}" for name, value in chosen.items() if value)]
    run_build(
        config,
        inputs or [],
        [pair] if pair else [],
        out,
        overrides,
        reconfigure=reconfigure,
        dry_run=dry_run,
        only=only,
        item=item,
        as_json=as_json,
    )


@app.command()
def status(
    run: Annotated[str, typer.Argument(help="Folder or URL of a run.")] = "runs/build", as_json: Json = False
) -> None:
    """Show what became of every item of a run, also while it goes on."""
    from pipeline.dataset import DATASET
    from pipeline.status import read_status, status_tables

    found = read_status(run, DATASET)
    if as_json:
        say_json(found)
    else:
        for part in status_tables(found):
            Terminal().print(part, highlight=False)


@app.command()
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
    """Draw what was seen in a conversation: its faces at some moments, and the motion made of them."""
    from pipeline.draw import draw as drawn
    from pipeline.draw import save_sheet

    sheet, name = drawn(run, item, moments, media or [])
    save_sheet(sheet, out)
    say(str(out))
    say(f"drawn: {name}", err=True)


@app.command()
def verify(
    dataset: Annotated[str, typer.Argument(help="Folder or URL that holds manifest.json, or a run's folder.")],
    quick: Annotated[bool, typer.Option("--quick", help="Hash the shards only; do not decode samples.")] = False,
    as_json: Json = False,
) -> None:
    """Check a dataset against its manifest: every byte, every sample. Exit 1 if anything is wrong."""
    from pipeline.commands import run_verify

    raise typer.Exit(0 if run_verify(dataset, quick=quick, as_json=as_json) else 1)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="Recipe, for example configs/train/tiny.yaml.")],
    dataset: Annotated[str, typer.Argument(help="Dataset or run of `visavis build`.")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder of checkpoint.safetensors and metrics.")
    ] = "runs/train",
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from.")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Pairs of `visavis pairs`: preference tuning of --init, which is its reference.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Train in so many processes on Ray, with a GPU each where there are some.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="With --num-workers: a Ray cluster, auto or host:port. None: one is started here."),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Train the causal listener on shards, or tune it by preference pairs. Running it again goes on.

    Ctrl-C or SIGTERM finishes the step and writes a checkpoint. torchrun … -m pipeline.cli train works, too.
    """
    from pipeline.commands import run_train

    run_train(config, dataset, Path(out), init, pairs, set_ or [], num_workers, address)


@app.command()
def pairs(
    dataset: Annotated[str, typer.Argument(help="Dataset or run of `visavis build`.")],
    checkpoint: Annotated[
        Path, typer.Argument(help="Checkpoint of `visavis train` whose model makes the losing side.")
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or URL of the run.")] = "runs/pairs",
    config: Annotated[
        str | None, typer.Option(help="Recipe; without it the defaults and the checkpoint's sampler.")
    ] = None,
    rejected: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another checkpoint to make the losing side, under every condition."),
    ] = None,
    encoder: Encoder = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Try at most so many windows.")] = None,
    engine: Annotated[str, typer.Option(help="ray or local.")] = "ray",
    address: Annotated[str | None, typer.Option(help="A Ray cluster; none: one is started here.")] = None,
    set_: Overrides = None,
    reconfigure: Annotated[bool, typer.Option("--reconfigure", help="Rebuild a folder of other settings.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make pairs of a few windows to tell yield and time; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make preference pairs: the recorded motion, and the model's without the user's signals."""
    from pipeline.commands import run_pairs

    places = [f"encoder={to_json(encoder)}"] if encoder else []
    run_pairs(
        dataset,
        checkpoint,
        out,
        config,
        rejected,
        limit,
        engine,
        address,
        [*places, *(set_ or [])],
        reconfigure=reconfigure,
        dry_run=dry_run,
        as_json=as_json,
    )


@app.command()
def export(
    dataset: Annotated[str, typer.Argument(help="Dataset or run, of `visavis build` or of `visavis pairs`.")],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="A .parquet, as a path or URL; runs/windows.parquet or runs/pairs.parquet."),
    ] = None,
) -> None:
    """Write windows or preference pairs as one Parquet file, for Hugging Face `datasets`, pandas and other trainers."""
    from pipeline.commands import dataset_folder
    from pipeline.export import export_dataset
    from training.data import Dataset

    data = Dataset(dataset_folder(dataset))
    path = out or f"runs/{data.manifest.kind}.parquet"
    say(f"{counted(export_dataset(data, path), data.manifest.kind.removesuffix('s'))}\n{path}")
    say(f'next: datasets.load_dataset("parquet", data_files="{path}")', err=True)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of `visavis train`.")],
    dataset: Annotated[str, typer.Argument(help="Dataset or run of `visavis build`.")],
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    seeds: Annotated[int, typer.Option(min=1, help="Generate with so many seeds and average.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Windows per class; none: all.")] = None,
    encoder: Encoder = None,
    by_class: Annotated[bool, typer.Option("--by-class", help="Tables for every class, too.")] = False,
    as_json: Json = False,
) -> None:
    """Score a checkpoint beside the ground truth and simple baselines."""
    from pipeline.commands import run_evaluate

    run_evaluate(checkpoint, dataset, split, seeds, limit, encoder, by_class=by_class, as_json=as_json)


@app.command()
def generate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of `visavis train`.")],
    dataset: Annotated[str, typer.Argument(help="Dataset or run of `visavis build`.")],
    key: Annotated[str, typer.Argument(help="A sample's key, as `visavis report` lists them.")],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder for KEY.generated.npy and others.")
    ] = "runs/generated",
    drop: Annotated[str, typer.Option(help="Conditions left: full, no_user, no_avatar or none.")] = "full",
    encoder: Encoder = None,
) -> None:
    """Generate the motion of one sample, beside its truth. `visavis report` draws it."""
    from pipeline.commands import run_generate

    run_generate(checkpoint, dataset, key, Path(out), drop, encoder)


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint.pt, or weights of torch.save (.pt, .pth, .bin).")],
    to: Annotated[
        Path | None, typer.Option(help="The new file; none: FILE's name with .safetensors, beside it.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With a checkpoint that was trained on an encoder: the weights as they were in training. They are"
            " converted, too, and the new checkpoint names the new file's sha256; it serves with that file alone.",
        ),
    ] = None,
) -> None:
    """Make safetensors of what was pickled: nothing else is read. The old file stays.

    It is unpickled by a process of its own, without rights worth having. A half-done preference run is best ended
    before: a converted initial checkpoint is another file to it.
    """
    from pipeline.commands import run_convert

    run_convert(file, to, encoder)


@app.command()
def report(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DATASET", help="Dataset or run of `visavis build` or `visavis pairs`, or a KEY.generated.npy."
        ),
    ],
    samples: Annotated[int, typer.Option(min=0, help="Sample keys to list per class and split.")] = 2,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The picture; none: KEY.png beside it.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="For a picture: where the dataset lies, if it was moved since.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Summarise a dataset: classes, shards, balance, codec, pairs. Or draw what `visavis generate` wrote."""
    from pipeline.report import run_report

    run_report(what, samples, out, dataset, as_json=as_json)


Fetched = Annotated[
    str | None,
    typer.Option(
        "--in", "--to", metavar="FOLDER", help="Where models are fetched to; none: the caches of this machine."
    ),
]

assets = typer.Typer(help="List, fetch and check the production models.", invoke_without_command=True)
app.add_typer(assets, name="assets")


@assets.callback()
def list_assets(context: typer.Context, folder: Fetched = None, as_json: Json = False) -> None:
    """List the production models: what they are for, their licences, and which are at hand. None is needed at first."""
    if context.invoked_subcommand is None:
        from pipeline.assets import run_list

        run_list(folder, as_json=as_json)


@assets.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names as listed, or OWNER/MODEL of the model hub.")],
    folder: Fetched = None,
) -> None:
    """Fetch models. A gated one needs its terms accepted on its page, and HF_TOKEN."""
    from pipeline.assets import run_fetch

    run_fetch(names, folder)


@assets.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Names as listed; none: all that are at hand.")] = None,
    folder: Fetched = None,
    as_json: Json = False,
) -> None:
    """Check that fetched models are whole. Exit 1 if one is damaged, or one that was named is not at hand."""
    from pipeline.assets import run_check

    raise typer.Exit(0 if run_check(names or [], folder, as_json=as_json) else 1)


@app.command()
def demo(
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for everything the demo makes.")] = "runs/demo",
    engine: Annotated[str, typer.Option(help="ray or local.")] = "ray",
) -> None:
    """Make conversations with known truth, then build, train, make pairs, tune and evaluate."""
    from pipeline.demo.main import run_demo

    run_demo(Path(out), engine)


def main() -> None:
    """Entry point: every expected error becomes one line on stderr and an exit code."""
    # OpenMP's threads spin while they wait. For long, and a machine with other load trains at half the speed; not at
    # all, and a quiet one does. Read when torch is loaded, which no command has done yet.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    guard_output(sys.argv)
    answer_requests_to_stop("visavis")
    ensure_home()
    try:
        code = app(standalone_mode=False)
        if code == EXIT_CODE:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
    except typer.TyperException as error:
        code = _fail(error.format_message(), 2)
    except UsageError as error:
        code = _fail(str(error), 2)
    except (DatasetError, RunFailed) as error:
        code = _fail(str(error), 1)
    except BrokenPipeError:  # the reader of our output went away
        code = 1
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("stopped; run the same command again to go on from here", EXIT_CODE)
    except Exception as error:  # a full disk, a store that is away; what was committed stays
        known = as_os_error(error, "")
        if known is None:  # a bug
            raise
        code = _fail(f"{known.filename or 'I/O error'}: {known.strerror}", 2 if blame_of(error) is Blame.USER else 1)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    print(f"visavis: {signature()}{safe(' '.join(message.split()))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()

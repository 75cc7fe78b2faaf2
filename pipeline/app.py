"""The command line. Exit 0 done; 1 ran, but not all is well; 2 wrong use, in one line; 130 stopped."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import visavis as program
from visavis.pipeline.cli.assets_command import assets
from visavis.pipeline.cli.build import builds
from visavis.pipeline.cli.corpora import corpora
from visavis.pipeline.cli.doctor import doctors
from visavis.pipeline.cli.export_command import exports
from visavis.pipeline.cli.housekeeping import housekeeping
from visavis.pipeline.cli.live import live_page
from visavis.pipeline.cli.models import models
from visavis.pipeline.cli.pairs import pairing
from visavis.pipeline.cli.render import films
from visavis.pipeline.cli.report_command import reports
from visavis.pipeline.cli.scoring import scores
from visavis.pipeline.cli.study import studies
from visavis.pipeline.cli.tune import tuning
from visavis.pipeline.engine.terminal import say
from visavis.schemas.errors import DatasetError, RunFailed, UsageError
from visavis.schemas.extras import absent, needs
from visavis.schemas.secrets import guard_output, safe
from visavis.schemas.storage.faults import Blame, as_os_error, blame_of
from visavis.training.home import ensure_home
from visavis.training.ranks import signature
from visavis.training.stopping import EXIT_CODE, answer_requests_to_stop

app = typer.Typer(
    name="visavis",
    help="From dyadic conversation video to training shards, preference pairs and a causal listener.",
    epilog="Exit codes: 0 done; 1 it ran, and not all is well; 2 wrong use, said in one line; 130 stopped by Ctrl-C or"
    " SIGTERM, and the same command resumes.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback()
def visavis(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Prints the help where no command is given, as wrong use."""
    if version:
        say(f"visavis {program.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        say(context.get_help(), err=True)
        raise typer.Exit(2)


app.add_typer(builds)
app.add_typer(exports)
app.add_typer(corpora)
app.add_typer(reports)
app.add_typer(doctors)
app.add_typer(housekeeping)
app.add_typer(models)
app.add_typer(pairing)
app.add_typer(scores)
app.add_typer(tuning)
app.add_typer(films)
app.add_typer(studies)
app.add_typer(live_page)
app.add_typer(assets, name="assets")


@app.command()
def demo(
    out: Annotated[str, typer.Option("--out", "-o", help="Folder for everything the demo makes.")] = "runs/demo",
    engine: Annotated[str, typer.Option(help="ray or local.")] = "ray",
) -> None:
    """Make conversations with known truth, then build, train, make pairs, tune and evaluate."""
    needs("demo", "visavis demo")
    from visavis.pipeline.demo.main import run_demo

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
        code = _fail("stopped; the same command resumes", EXIT_CODE)
    except ImportError as error:
        said = absent(error)
        if said is None:  # a bug
            raise
        code = _fail(said, 2)
    except Exception as error:  # a full disk, a store that is away; what was committed stays
        known = as_os_error(error, "")
        if known is None:  # a bug
            raise
        code = _fail(f"{known.filename or 'I/O error'}: {known.strerror}", 2 if blame_of(error) is Blame.USER else 1)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> int:
    print(f"visavis: {signature()}{safe(' '.join(message.split()))}", file=sys.stderr)
    return code

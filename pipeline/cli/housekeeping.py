"""The commands about settings and folders: `config` and `clean`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from visavis.pipeline.cli.options import Json
from visavis.pipeline.engine.terminal import Terminal, say, say_json, table
from visavis.schemas.errors import UsageError
from visavis.schemas.words import counted, size

if TYPE_CHECKING:
    from visavis.pipeline.cli.clean import Group
    from visavis.pipeline.engine.progress import Reporter

housekeeping = typer.Typer()


@housekeeping.command()
def config(
    kind: Annotated[str, typer.Argument(metavar="[build|train|pairs]", help="Whose recipe.")] = "build",
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print a whole commented recipe with the defaults.")] = False,
    as_json: Json = False,
) -> None:
    """Show every setting of a recipe: its default, its unit and what it means."""
    from visavis.pipeline.cli.config import KINDS, recipe_of, settings_of, settings_table
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    if kind not in KINDS:
        raise UsageError(f"config is of {', '.join(KINDS)}, not of {kind!r}")
    if as_yaml and as_json:
        raise UsageError("--yaml or --json, not both")
    if as_yaml:
        say(recipe_of(kind).rstrip())
    elif as_json:
        say_json({"settings": [setting._asdict() for setting in settings_of(KINDS[kind])]})
    else:
        Terminal().print(settings_table(kind))
        count = counted(sum(1 for _ in settings_of(KINDS[kind])), "setting")
        reporter.end(f"{count}, each also with --set SETTING=VALUE", "config", kind, "--yaml")


@housekeeping.command()
def clean(
    run: Annotated[str, typer.Argument(help="Folder or URL of a run of `visavis build` or `visavis pairs`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it nothing is.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the artifacts of the present settings: a later build measures again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what of a run may be deleted, with its size, and delete it. Never the dataset."""
    from visavis.pipeline.cli import clean as cleaning
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    if yes:
        files, freed = cleaning.clean(run, present=everything)
        if as_json:
            say_json({"run": run, "deleted": files, "bytes": freed})
        else:
            reporter.end(f"{counted(files, 'file')} deleted, {size(freed)}", "status", run)
        return
    groups = cleaning.groups_of(run)
    if as_json:
        plain = [{"stage": g.stage, "present": g.present, "files": len(g.paths), "bytes": g.size} for g in groups]
        say_json({"run": run, "running": cleaning.is_running(run), "may_be_deleted": plain})
    else:
        _say_groups(run, groups, reporter)


def _say_groups(run: str, groups: Sequence[Group], reporter: Reporter) -> None:
    columns = ("stage", "settings", "files", "size", "deleted by")
    made = table(f"{run}: what may be deleted", *columns, left=("settings", "deleted by"))
    for group in groups:
        kind, how = ("present", "--yes --all") if group.present else ("earlier", "--yes")
        made.add_row(group.stage, kind, str(len(group.paths)), size(group.size), how)
    if groups:
        Terminal().print(made)
    free, whole = (sum(group.size for group in groups if both or not group.present) for both in (False, True))
    found = f"nothing was deleted; {size(free)} of earlier settings, {size(whole)} with the present ones"
    reporter.end(found, "clean", run, "--yes", *(() if free else ("--all",)))

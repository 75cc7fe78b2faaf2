"""`visavis assets`: list, fetch and check the production models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from visavis.pipeline.cli.options import Json
from visavis.pipeline.engine.terminal import say, say_json
from visavis.schemas.words import counted

if TYPE_CHECKING:
    from visavis.pipeline.engine.progress import Reporter

assets = typer.Typer(help="List, fetch and check the production models.", invoke_without_command=True)
Folder = Annotated[
    str | None,
    typer.Option(
        "--in", "--to", metavar="FOLDER", help="Where models are fetched to; none: the caches of this machine."
    ),
]


@assets.callback()
def list_assets(context: typer.Context, folder: Folder = None, as_json: Json = False) -> None:
    """List the production models: what they are for, their licences, and which are at hand. None is needed at first."""
    if context.invoked_subcommand is not None:
        return
    from visavis.pipeline.cli.assets import at_hand, read_assets
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    rows = [(asset, at_hand(asset, folder)) for asset in read_assets()]
    if as_json:
        plain = [a.model_dump(mode="json") | {"at_hand": path is not None, "path": str(path or "")} for a, path in rows]
        say_json({"assets": plain})
        return
    for asset, path in rows:
        gated = ", gated: accept its terms and set HF_TOKEN" if asset.gated else ""
        known = f"at hand: {path}" if path else "not at hand"
        say(f"{asset.name}: {asset.what}\n    {asset.licence}, {asset.size_mb:.0f} MB, {known}{gated}")
        say(f"    from {asset.source}, used by {asset.used_by}")
    there = sum(path is not None for _, path in rows)
    reporter.end(f"{counted(len(rows), 'model')}, {there} at hand", "assets", "fetch", "NAME", *_at(folder))


@assets.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names as listed, or OWNER/MODEL of the model hub.")],
    folder: Folder = None,
) -> None:
    """Fetch models. A gated one needs its terms accepted on its page, and HF_TOKEN."""
    from visavis.pipeline.cli.assets import at_hand, converted, damage, named_assets
    from visavis.pipeline.cli.download import fetch_file, fetch_hub
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    for asset in named_assets(names):
        path = at_hand(asset, folder)
        if path is None or damage(asset, path):
            reporter.line(f"{asset.name}: fetching from {asset.url}")
            if asset.hub_id:
                path = fetch_hub(asset.hub_id, folder, asset.files, reporter, again=path is not None)
            else:
                path = asset.file(folder)
                sha256 = fetch_file(asset.url, path, asset.sha256, reporter)
                if asset.sha256 is None:
                    reporter.line(f"{asset.name}: sha256 {sha256}, not pinned: compare it with what others have")
                path = converted(asset, path)
        say(f"{asset.name}: {path}")
        if asset.setting and (folder or not asset.hub_id):
            value = asset.setting.format(path=path, folder=folder)
            say(f"    use it with --set {value}")
    reporter.end(f"{counted(len(names), 'model')} at hand", "assets", "check", *names, *_at(folder))


@assets.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Names as listed; none: all that are at hand.")] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Check that fetched models are whole. Exit 1 if one is damaged, or one that was named is not at hand."""
    from visavis.pipeline.cli.assets import at_hand, damage, named_assets, read_assets
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    rows: list[dict[str, Any]] = []
    for asset in named_assets(names) if names else read_assets():
        path = at_hand(asset, folder)
        if path or names:
            findings = damage(asset, path) if path else ["not at hand"]
            rows.append({"name": asset.name, "path": str(path or ""), "findings": findings})
    if as_json:
        say_json({"assets": rows})
    for row in rows if not as_json else ():
        say(f"{row['name']}: {', '.join(row['findings']) or 'intact'}{row['path'] and '  ' + row['path']}")
    if not rows and not as_json:
        say("no model is at hand")
    raise typer.Exit(_say_checked(rows, reporter, folder, as_json=as_json))


def _at(folder: str | None) -> tuple[str, ...]:
    """The folder as the next command has to name it."""
    return ("--to", folder) if folder else ()


def _say_checked(rows: list[dict[str, Any]], reporter: Reporter, folder: str | None, *, as_json: bool) -> int:
    """The last line, and the exit code."""
    damaged = [row["name"] for row in rows if row["findings"]]
    if not as_json:
        counts = f"{counted(len(rows), 'model')} looked at, {len(damaged)} damaged or absent"
        reporter.end(counts, "assets", *(("fetch", *damaged) if damaged else ()), *_at(folder))
    return 1 if damaged else 0

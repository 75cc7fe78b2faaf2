"""What is printed for people and scripts: names are only names here, whatever is in them.

No key of an address or of the environment (`schemas.secrets`), no control character, no markup.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from visavis.schemas.plain import to_json
from visavis.schemas.secrets import hidden_all, safe, safe_all


class Terminal(Console):
    """A console through whose `render_str` all text passes: lines, cells of tables, titles."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(safe(text), **how)


def table(title: str, *columns: str, left: Collection[str] = (), caption: str | None = None) -> Table:
    """An empty table in few columns of the terminal. The first column is for names; left: what else is no number."""
    made = Table(
        title=title, caption=caption, box=SIMPLE_HEAD, title_justify="left", caption_justify="left",
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for column in columns:
        name = column == columns[0]
        made.add_column(column, justify="left" if name or column in left else "right", no_wrap=name)
    return made


def say(text: str, *, err: bool = False) -> None:
    """Print a line or several."""
    typer.echo(safe(text), err=err)


def say_json(data: Any, *, for_people: bool = False) -> None:
    """Print one JSON object on stdout. for_people: over several lines, in all alphabets."""
    if for_people:
        typer.echo(to_json(safe_all(data), indent=2, sort_keys=False, ascii_only=False))
    else:
        typer.echo(to_json(hidden_all(data)))

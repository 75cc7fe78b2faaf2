"""The command line as it is for programs that call it often."""

from __future__ import annotations

import functools

import typer.main


def keep_commands() -> None:
    """Typer builds all commands anew for each call: half of the time of a test that is refused with one line."""
    typer.main.get_command = functools.cache(typer.main.get_command)

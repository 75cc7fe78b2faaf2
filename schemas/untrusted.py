"""Bytes from strangers: whatever reading them raises has one outcome, and what they claim is bounded first.

A parser that is fed on purpose raises whatever it happens to: MemoryError at a claimed size, RecursionError at depth,
OverflowError, RuntimeError, or an error class of its library. All of that is the data's fault, so it becomes the one
refusal that the caller names. What is not: storage that fails (OSError, see `schemas.storage.faults`), and what this
program raises on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from visavis.schemas.errors import VisavisError
from visavis.schemas.secrets import hidden
from visavis.schemas.uris import printable

_LONGEST = 300  # characters of a library's message


class TooLarge(ValueError):
    """More than its reader takes, by what it claims or by what was read of it."""


@contextmanager
def parsing(refuse: Callable[[str], VisavisError]) -> Iterator[None]:
    """Whatever parsing a stranger's bytes raises in this block is raised as `refuse(one line)`.

    OSErrors with a number pass: they are a disk's or a network's. So do errors that are raised on purpose.
    """
    try:
        yield
    except VisavisError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise refuse(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """What an error says, in one printable line that is not too long; its class, where it says nothing."""
    if isinstance(error, MemoryError):
        return "claims more than fits into memory"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    said = printable(hidden(said))  # as a whole: a key that is cut through is not known as one
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


def bounded(size: float, most: float, what: str) -> None:
    """Refuse a size before anything is allocated for it. `what` reads like "bytes of an array".

    Raises:
        TooLarge: more than `most`.
    """
    if size > most:
        raise TooLarge(f"{size:.0f} {what}, at most {most:.0f} are read")

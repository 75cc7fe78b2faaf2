"""How much a test takes of what there is to try: a part in CI, all of it nightly (`HYPOTHESIS_PROFILE=nightly`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
FEW = 10
"""CI takes every tenth of what is tried by the hundred."""


def some(items: Iterable[T], of: int = 3) -> Iterator[T]:
    """Every third one, or all of them."""
    return islice(items, 0, None, 1 if NIGHTLY else of)


def thinned(files: list[Path], of: int = 3) -> list[Path]:
    """`some` of the files of a folder; the others are removed."""
    kept = list(some(files, of))
    for path in set(files) - set(kept):
        path.unlink()
    return kept

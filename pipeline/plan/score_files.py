"""Scores that somebody has worked out for pairs, from a file: what `visavis pairs --scores` takes.

    key        of the pair, as `visavis export` of the same pairs without scores gives it
    chosen     a finite number; may be empty
    rejected   a finite number; may be empty

With `chosen: best` the rejected sides of pairs of the model's own motion (`rejected=own`) are ranked: `key-r0`,
`key-r1`, ….
"""

from __future__ import annotations

import hashlib
import math
from pathlib import PurePath
from typing import IO, Any, cast

import numpy as np

from visavis.pipeline.plan.row_files import Table
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.user_files import open_given
from visavis.stages.pairing.scoring import FileScorer

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_COLUMNS = ("key", "chosen", "rejected")
_ALIASES = {"key": ("__key__", "window", "id")}
_MOST_BYTES = 2 << 30
_MOST_ROWS = 20_000_000
_LONGEST_KEY = 300


def read_scores(path: str) -> FileScorer:
    """Scores by the keys of pairs.

    Raises:
        UsageError: no such file, or a row that is no key with finite numbers, or a key twice. One line, with the row.
    """
    suffix = PurePath(path.removesuffix(".gz")).suffix + (".gz" if path.endswith(".gz") else "")
    if suffix.removesuffix(".gz") not in _SUFFIXES:
        raise UsageError(f"scores: {path} is none of {', '.join(_SUFFIXES)}")
    table = Table(path, suffix, _COLUMNS, _ALIASES)
    found: dict[str, tuple[float, float]] = {}
    with open_given("scores", path, most=_MOST_BYTES) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        for key, *numbers in table.rows(cast(IO[bytes], file)):
            if not isinstance(key, str) or not 0 < len(key) <= _LONGEST_KEY or not key.isascii():
                table.fail("has a `key` that is none of a pair")
            if key in found:
                table.fail(f"has key {key} for the second time")
            found[key] = tuple(_number(table, name, each) for name, each in zip(_COLUMNS[1:], numbers, strict=True))  # type: ignore[assignment]
            if len(found) > _MOST_ROWS:
                table.fail(f"is one of more than {_MOST_ROWS}")
    scores = np.array(list(found.values()), np.float64)
    if not np.isfinite(scores).any():
        raise UsageError(f"scores: {path} has no number in its columns chosen and rejected")
    return FileScorer(list(found), scores, digest)


def _number(table: Table, column: str, value: Any) -> float:
    if value is None or value == "":
        return math.nan
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        table.fail(f"has no number as `{column}`: {str(value)[:40]}")
    if not math.isfinite(number):
        table.fail(f"has a `{column}` that is not finite")
    return number

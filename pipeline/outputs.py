"""Reading back what a run's stages made: for notebooks, checks and reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from pipeline.folder import read_settings
from pipeline.ledger import Ledger
from pipeline.task import artifact_path
from schemas.artifact import load_rows
from schemas.rows import Row
from stages.base import Stage
from stages.store import Store

Out = TypeVar("Out", bound=Row)


def read_outputs(
    root: str, stage: type[Stage[Any, Out]], of: str = "", *, left_out: bool = False
) -> Iterator[tuple[str, Out]]:
    """(item's key, row) of what a stage made with the run's present settings, by key.

    Args:
        of: how the key begins.
        left_out: also what was made of items that a threshold or the corpus left out afterwards.

    Raises:
        UsageError: not a run's folder.
    """
    store = Store(root)
    wanted = read_settings(store)["fingerprints"].get(stage.name)
    kind: type[Any] = stage.types()[1]
    for (name, key), outcome in sorted(Ledger(store).latest().items()):
        if name != stage.name or not key.startswith(of) or outcome.fingerprint.split("-")[0] != wanted:
            continue
        if outcome.status == "ok" or (left_out and outcome.output):
            for row in load_rows(store.read(artifact_path(name, stage.version, outcome.fingerprint, key)), kind):
                yield key, row

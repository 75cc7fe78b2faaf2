"""What of a run's folder may be deleted, and what that costs.

Never the dataset, nor what says how it was made (run.json, state.json, the ledger, and what the corpus was summed up
in: the codec, the census, what pairs are measured against): a cleaned run is still one that `status`, `verify`,
`report` and `train` read. Of artifacts, those that other settings left are of no use to the present ones. Those of the
present settings are what a build resumes from: without them the dataset stays as it is, and the next build, and
`draw`, would have to measure again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

from visavis.pipeline.engine.progress import command
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.lock import holder, locked
from visavis.pipeline.state.tasks import ARTIFACT_SUFFIX, own_print
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.storage.store import Store

_ARTIFACTS = "artifacts"
_MADE = re.compile(r"([^/]+)/v\d+-([^/]+)/[^/]+" + re.escape(ARTIFACT_SUFFIX))


class Group(NamedTuple):
    """Artifacts of a stage. present: of the settings that the run has now. paths: below the run's folder."""

    stage: str
    present: bool
    paths: list[str]
    size: int


def groups_of(root: str) -> list[Group]:
    """What may be deleted, by stage.

    Raises:
        UsageError: not a run's folder.
    """
    store = Store(root)
    prints: dict[str, str] = read_settings(store)["fingerprints"]
    paths: defaultdict[tuple[str, bool], list[str]] = defaultdict(list)
    sizes: defaultdict[tuple[str, bool], int] = defaultdict(int)
    for name, size in store.sizes(_ARTIFACTS):
        if found := _MADE.fullmatch(name):
            present = own_print(found[2]) == prints.get(found[1])
            paths[found[1], present].append(f"{_ARTIFACTS}/{name}")
            sizes[found[1], present] += size
    order = {stage: n for n, stage in enumerate(prints)}
    found_of = sorted(paths, key=lambda kind: (kind[1], order.get(kind[0], len(order)), kind[0]))
    return [Group(stage, present, paths[stage, present], sizes[stage, present]) for stage, present in found_of]


def clean(root: str, *, present: bool) -> tuple[int, int]:
    """Delete what other settings left, and what killed runs left half-written.

    Args:
        present: also the artifacts of the present settings.

    Returns: how many files that were, and their bytes.

    Raises:
        UsageError: somebody is at work in the folder; or `present`, and there is no dataset yet.
    """
    read_settings(Store(root))  # anybody else's folder stays untouched, without even a lock
    with locked(root) as hold:
        store = Store(root)
        if present and not store.exists(f"{DATASET}/{MANIFEST_NAME}"):
            again = f"finish it first, or see `{command('status', root)}`"
            raise UsageError(f"{root} has no dataset, so its artifacts are all there is of it; {again}")
        doomed = [group for group in groups_of(root) if present or not group.present]
        for group in doomed:
            hold.check()
            for path in group.paths:
                store.delete(path)
        swept = store.sweep()
    return swept + sum(len(group.paths) for group in doomed), sum(group.size for group in doomed)


def is_running(root: str) -> bool:
    return holder(Store(root)) is not None

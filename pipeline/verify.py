"""Verify: does a dataset hold what its manifest says? Every byte is hashed, every sample decoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pipeline.run import RUN_FILE
from schemas.errors import DatasetError
from schemas.manifest import MANIFEST_NAME, ShardEntry
from stages.store import Store
from training.data import Dataset
from training.epochs import Members

_LOG = logging.getLogger(__name__)


def verify_dataset(dataset: str, *, decode: bool = True) -> list[str]:
    """One line per finding; an empty list is a sound dataset.

    Args:
        dataset: folder or URL that holds the manifest.
        decode: also decode every sample and hold it against the manifest, not only hash the shards.

    Raises:
        UsageError: there is no dataset.
    """
    if _lost_its_manifest(dataset):
        return [f"{dataset}: no {MANIFEST_NAME}, so no dataset: the build did not finish, or it was removed"]
    try:
        opened = Dataset(dataset)
    except DatasetError as error:
        return [str(error)]
    sides: dict[str, str] = {}
    findings = [f for entry in opened.manifest.shards for f in _check_shard(opened, entry, sides, decode=decode)]
    named = {entry.path for entry in opened.manifest.shards}
    return findings + [f"shard {path} is not in the manifest" for path in _shards(Store(dataset)) if path not in named]


def _lost_its_manifest(folder: str) -> bool:
    """Whether a dataset or a run is here, and no manifest: that is damage. Elsewhere, asking for it is wrong use."""
    try:
        store = Store(folder)
        return not store.exists(MANIFEST_NAME) and (store.exists(RUN_FILE) or bool(_shards(store)))
    except PermissionError:  # `Dataset` says what is wrong
        return False


def _shards(store: Store) -> list[str]:
    try:
        return [f"{split}/{name}" for split in ("train", "val") for name in store.list(split, ".tar")]
    except (PermissionError, NotImplementedError) as error:
        _LOG.warning("shards beside the manifest's were not looked for: the store does not list them (%s)", error)
        return []


def _check_shard(dataset: Dataset, entry: ShardEntry, sides: dict[str, str], *, decode: bool) -> Iterator[str]:
    try:
        for key, members in dataset.shard(entry):
            if decode:
                yield from _check_sample(dataset, entry, key, members, sides)
    except DatasetError as error:
        yield str(error)


def _check_sample(
    dataset: Dataset, entry: ShardEntry, key: str, members: Members, sides: dict[str, str]
) -> Iterator[str]:
    try:
        meta = dataset.decode(key, members).meta
    except DatasetError as error:
        yield f"{entry.path}: {error}"
        return
    if meta.label != entry.label:
        yield f"{entry.path}: {key}: class {meta.label}, the shard's is {entry.label}"
    for name in (meta.avatar, meta.user):
        if sides.setdefault(name, entry.split) != entry.split:
            yield f"{entry.path}: {key}: {name} is in both train and val"

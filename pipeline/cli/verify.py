"""Verify: does a dataset hold what its manifest says? Every byte is hashed, every sample decoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from visavis.pipeline.plan.file_names import RUN_FILE, unnamed_files
from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import MANIFEST_NAME, Manifest, ShardEntry
from visavis.schemas.storage.store import Store
from visavis.stages.face.decode import conversation_of, read_codec, read_faces
from visavis.training.dataset import Dataset
from visavis.training.shards import Members

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
    split_of: dict[str, str] = {}
    store = Store(dataset)
    findings = [*_check_codec(store, opened.manifest)]
    findings += [f for entry in opened.manifest.shards for f in _check_shard(opened, entry, split_of, decode=decode)]
    return findings + [f"{path} is not in the manifest" for path in _unnamed(store, opened.manifest)]


def _lost_its_manifest(folder: str) -> bool:
    """Whether a dataset or a run is here, and no manifest: that is damage. Elsewhere, asking for it is wrong use."""
    try:
        store = Store(folder)
        shards = (name for split in ("train", "val") for name in store.list(split, ".tar"))
        return not store.exists(MANIFEST_NAME) and (store.exists(RUN_FILE) or any(shards))
    except (PermissionError, NotImplementedError):  # `Dataset` says what is wrong
        return False


def _unnamed(store: Store, manifest: Manifest) -> list[str]:
    try:
        folders = ("train", "val", "faces")
        return unnamed_files([f"{folder}/{n}" for folder in folders for n in store.names(folder)], manifest)
    except (PermissionError, NotImplementedError) as error:
        _LOG.warning("files beside the manifest's were not looked for: the store does not list them (%s)", error)
        return []


def _check_shard(dataset: Dataset, entry: ShardEntry, split_of: dict[str, str], *, decode: bool) -> Iterator[str]:
    try:
        samples = dataset.shard(entry)
        for key, members in samples if decode else ():
            yield from _check_sample(dataset, entry, key, members, split_of)
        faces = read_faces(Store(dataset.location), entry) if entry.faces else {}
        missing = {conversation_of(key) for key, _ in samples} - set(faces)
        if entry.faces and missing:
            some = f"{len(missing)} of the shard's conversations, for example {min(missing)}"
            yield f"{entry.faces.path}: no faces of {some}"
    except DatasetError as error:
        yield str(error)


def _check_codec(store: Store, manifest: Manifest) -> Iterator[str]:
    try:
        codec = read_codec(store, manifest)
    except DatasetError as error:
        yield str(error)
        return
    if codec and codec.id != manifest.motion.codec:
        yield f"codec {codec.id} does not decode the motion, which is of {manifest.motion.codec}"


def _check_sample(
    dataset: Dataset, entry: ShardEntry, key: str, members: Members, split_of: dict[str, str]
) -> Iterator[str]:
    try:
        meta = dataset.decode(key, members).meta
    except DatasetError as error:
        yield f"{entry.path}: {error}"
        return
    if meta.label != entry.label:
        yield f"{entry.path}: {key}: class {meta.label}, the shard's is {entry.label}"
    for name in (meta.avatar, meta.user):
        if split_of.setdefault(name, entry.split) != entry.split:
            yield f"{entry.path}: {key}: {name} is in both train and val"

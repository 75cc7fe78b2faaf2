"""Verify: does a dataset hold what its manifest says? Every byte is hashed, every sample decoded."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import webdataset

from schemas.errors import DatasetError
from schemas.manifest import MANIFEST_NAME, Manifest, ShardEntry, parse_manifest
from schemas.sample import Sample, decode_sample
from stages.store import Store


def verify_dataset(dataset: str, *, decode: bool = True) -> list[str]:
    """One line per finding; an empty list is a sound dataset.

    Args:
        dataset: folder or URL that holds the manifest.
        decode: also decode every sample and hold it against the manifest, not only hash the shards.
    """
    store = Store(dataset)
    if not store.exists(MANIFEST_NAME):
        return [f"{dataset}: no {MANIFEST_NAME}, so no dataset: the build did not finish, or this is another folder"]
    try:
        manifest = parse_manifest(store.read(MANIFEST_NAME), f"{dataset}/{MANIFEST_NAME}")
    except DatasetError as error:
        return [str(error)]
    findings = []
    sides: dict[str, str] = {}
    for entry in manifest.shards:
        findings += _check_shard(store, entry, manifest, sides, decode=decode)
    named = {entry.path for entry in manifest.shards}
    for split in ("train", "val"):
        extra = [f"{split}/{name}" for name in store.list(split, ".tar") if f"{split}/{name}" not in named]
        findings += [f"{path}: not in the manifest" for path in extra]
    return findings


def read_shard(store: Store, path: str) -> Iterator[Sample]:
    """The samples of a tar.

    Raises:
        DatasetError: a sample is broken.
    """
    entries = webdataset.tariterators.tar_file_iterator(io.BytesIO(store.read(path)))
    for group in webdataset.tariterators.group_by_keys(entries):
        members = {name: data for name, data in group.items() if not name.startswith("__")}
        yield decode_sample(str(group["__key__"]), members)


def _check_shard(
    store: Store, entry: ShardEntry, manifest: Manifest, sides: dict[str, str], *, decode: bool
) -> list[str]:
    try:
        data = store.read(entry.path)
    except FileNotFoundError:
        return [f"{entry.path}: the shard is missing"]
    if len(data) != entry.bytes:
        return [f"{entry.path}: {len(data)} bytes, the manifest says {entry.bytes}"]
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        return [f"{entry.path}: its content does not match the manifest's sha256"]
    return list(_check_samples(store, entry, manifest, sides)) if decode else []


def _check_samples(store: Store, entry: ShardEntry, manifest: Manifest, sides: dict[str, str]) -> Iterator[str]:
    count = 0
    try:
        for sample in read_shard(store, entry.path):
            count += 1
            shape = (manifest.window, manifest.motion.dim)
            if sample.avatar_motion.shape != shape:
                yield f"{entry.path}: {sample.key}: motion {sample.avatar_motion.shape}, the manifest says {shape}"
            if sample.meta.label != entry.label:
                yield f"{entry.path}: {sample.key}: class {sample.meta.label}, the shard's is {entry.label}"
            if sample.meta.codec != manifest.motion.codec:
                yield f"{entry.path}: {sample.key}: codec {sample.meta.codec}, not {manifest.motion.codec}"
            for name in (sample.meta.avatar, sample.meta.user):
                if sides.setdefault(name, entry.split) != entry.split:
                    yield f"{entry.path}: {sample.key}: {name} is in both train and val"
    except DatasetError as error:
        yield f"{entry.path}: {error}"
        return
    if count != entry.samples:
        yield f"{entry.path}: {count} samples, the manifest says {entry.samples}"

"""What files of a run and its dataset are called; loads nothing that a build needs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from visavis.schemas.manifest import Manifest

RUN_FILE = "run.json"
DATASET = "dataset"
DIAGNOSIS = "doctor.json"
"""What `visavis doctor` found, in the folder of a run."""
GENERATED = ".generated.npy"
_FILES = re.compile(r"(train|val)/[^/]+\.tar|faces/[^/]+\.safetensors|codec[^/]*\.safetensors")


def named_files(manifest: Manifest) -> set[str]:
    """Shards, faces and the codec."""
    entries = [*manifest.shards, *(entry.faces for entry in manifest.shards), manifest.codec]
    return {entry.path for entry in entries if entry}


def unnamed_files(names: Iterable[str], manifest: Manifest) -> list[str]:
    """Which of a dataset's files are shards, faces or codecs that the manifest does not name."""
    return sorted(filter(_FILES.fullmatch, set(names) - named_files(manifest)))

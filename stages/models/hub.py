"""Models that were fetched from the model hub: where they lie on this machine. Nothing here reaches for the network."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path


def fetched(repository: str, folder: str | None = None, files: Iterable[str] = ()) -> Path | None:
    """The folder that holds a fetched model, or None.

    Args:
        repository: its id on the hub. folder: where it was fetched to; None: the hub's own cache.
        files: names that must be there, or it was not fetched to the end; patterns among them say nothing.
    """
    if importlib.util.find_spec("huggingface_hub") is None:  # then nothing was fetched
        return None
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(repository, cache_dir=folder or constants.HF_HUB_CACHE, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    names = [name for name in files if not set(name) & set("*?[")]
    return found if all((found / name).exists() for name in names) else None

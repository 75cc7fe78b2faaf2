"""Where a dataset lies that a command was given."""

from __future__ import annotations

from contextlib import suppress

from visavis.pipeline.engine.progress import command
from visavis.pipeline.plan.file_names import DATASET, RUN_FILE
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.storage.store import Store


def dataset_folder(path: str) -> str:
    """A dataset's folder, also where its run's folder is named.

    Raises:
        UsageError: a run's folder that has no dataset.
    """
    for folder in (path, f"{path.rstrip('/')}/{DATASET}"):
        with suppress(PermissionError):  # what S3 says of an absent object to those who may read but not list
            if Store(folder).exists(MANIFEST_NAME):
                return folder
    with suppress(PermissionError):
        if Store(path).exists(RUN_FILE):
            how_far = f"`{command('status', path)}` says how far it is"
            raise UsageError(f"{path} is a run that has no dataset yet; {how_far}")
    return path

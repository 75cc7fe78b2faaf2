"""Reading back what a run's stages made: for notebooks, checks and reports; and a codec that the user names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.tasks import artifact_path, own_print
from visavis.schemas.artifact import load_rows
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Row
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import TooLarge
from visavis.stages.base import Stage

Out = TypeVar("Out", bound=Row)
_CODEC_BYTES = 64 << 20  # ours have 0.2 MB


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
        if name != stage.name or not key.startswith(of) or own_print(outcome.fingerprint) != wanted:
            continue
        if outcome.status == "ok" or (left_out and outcome.output):
            for row in load_rows(store.read(artifact_path(name, stage.version, outcome.fingerprint, key)), kind):
                yield key, row


def read_codec(path: str) -> bytes:
    """The bytes of a codec that the user names.

    Raises:
        UsageError: no such file, or none that can be a codec.
    """
    try:
        files, place = locate(path)  # the user's own word: this may be a link
        return read_whole(files, place, path, _CODEC_BYTES)
    except TooLarge as error:
        raise UsageError(f"motion.codec: {path}: no codec ({error})") from error
    except FileNotFoundError as error:
        raise UsageError(f"motion.codec: {path}: no such file") from error

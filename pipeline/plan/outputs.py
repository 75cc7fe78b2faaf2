"""Reading back what a run's stages made: for notebooks, checks and reports; and a codec that the user names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import takewhile
from operator import itemgetter
from typing import Any, TypeVar

from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.tasks import CODEC, artifact_path, own_print
from visavis.schemas.artifact import load_row, load_rows
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import Split
from visavis.schemas.rows import Conversation, Row
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import TooLarge
from visavis.stages.base import Stage
from visavis.stages.face.decode import read_faces
from visavis.stages.ingest import IngestStage
from visavis.training.dataset import Dataset

Out = TypeVar("Out", bound=Row)
_CODEC_BYTES = 64 << 20  # ours have 0.2 MB


def read_outputs(
    root: str, stage: type[Stage[Any, Out]], of: str = "", *, left_out: bool = False
) -> Iterator[tuple[str, Out]]:
    """As `Outputs.read`, for a single question.

    Raises:
        UsageError: not a run's folder.
    """
    yield from Outputs(root).read(stage, of, left_out=left_out)


class Outputs:
    """What the stages of a run made with its present settings. Its ledger is read once, for many questions.

    stages: the names of those that the run has.

    Raises:
        UsageError: not a run's folder.
    """

    def __init__(self, root: str) -> None:
        self.root, self._store = root, Store(root)
        prints = read_settings(self._store)["fingerprints"]
        self.stages = frozenset(prints)
        self._by_stage: dict[str, list[tuple[str, Outcome]]] = {}
        for (name, key), outcome in sorted(Ledger(self._store).latest().items()):
            if name in prints and own_print(outcome.fingerprint) == prints[name]:
                self._by_stage.setdefault(name, []).append((key, outcome))

    def read(self, stage: type[Stage[Any, Out]], of: str = "", *, left_out: bool = False) -> Iterator[tuple[str, Out]]:
        """(item's key, row) of what a stage made, by key.

        Args:
            of: how the key begins.
            left_out: also what was made of items that a threshold or the corpus left out afterwards.
        """
        for key, outcome in self._from(stage, of):
            if outcome.status == "ok" or (left_out and outcome.output):
                for row in self._rows(stage, key, outcome):
                    yield key, row

    def keys(self, stage: type[Stage[Any, Any]], of: str = "") -> Iterator[str]:
        """Keys of the items of which a stage made something, as `read` gives them; nothing is read."""
        return (key for key, outcome in self._from(stage, of) if outcome.status == "ok")

    def conversation(self, id_: str) -> Conversation | None:
        """The conversation of an id; none where there is no such one. Others are not read: the ledger has their ids."""
        for key, outcome in self._by_stage.get(IngestStage.name, ()):
            if outcome.status == "ok" and (id_ in outcome.facts or not outcome.facts):
                for row in self._rows(IngestStage, key, outcome):
                    if row.id == id_:
                        return row
        return None

    def _from(self, stage: type[Stage[Any, Any]], of: str) -> Iterator[tuple[str, Outcome]]:
        """What became of a stage's items whose keys begin so: they are sorted, so no others are looked at."""
        made = self._by_stage.get(stage.name, [])
        found = (made[n] for n in range(bisect_left(made, of, key=itemgetter(0)), len(made)))
        return takewhile(lambda each: each[0].startswith(of), found)

    def _rows(self, stage: type[Stage[Any, Out]], key: str, outcome: Outcome) -> Iterator[Out]:
        kind: type[Any] = stage.types()[1]
        path = artifact_path(stage.name, stage.version, outcome.fingerprint, key)
        yield from load_rows(self._store.read(path), kind)


def splits_in(data: Dataset) -> Iterator[tuple[str, Split]]:
    """Conversations of a run's dataset and their splits, by the files of faces beside the shards; some come several
    times."""
    inside = Store(data.location)
    for entry in data.manifest.shards:
        for id_ in read_faces(inside, entry):
            yield id_, entry.split


def codecs_of(store: Store) -> dict[str, Codec]:
    """The codecs of a run by their ids."""
    folder = f"artifacts/{CODEC}"
    found = (load_row(store.read(f"{folder}/{name}"), Codec) for name in store.list(folder))
    return {codec.id: codec for codec in found}


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

"""Our stages in Ray Data's public API, as a good user of it would chain them.

One row a conversation, from the list to its windows; what the stages make travels as bytes in columns. Light stages
share an operator, heavy ones have pools of actors that keep their models. Blocks hold one row each, so a checkpoint
(`CheckpointConfig`) saves every conversation that came to its end; it wants one id column through all operators, so
nothing in between is saved, and a conversation cannot fan out into pieces. What rejects or fails an item is caught in
the function and travels on as the row's status.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from visavis.schemas.artifact import dump_rows, load_row, load_rows
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import Codec, Dyad
from visavis.schemas.errors import Rejected
from visavis.schemas.face_rows import Cast, FaceTracks
from visavis.schemas.rows import Binding, Conversation, Diarization, Source
from visavis.stages.base import Stage
from visavis.stages.bind import BindInput, BindStage
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.diarize import DiarizeStage
from visavis.stages.faces import FacesStage, pieces_of
from visavis.stages.glance import GlanceInput, GlanceStage
from visavis.stages.ingest import IngestStage, outline_of
from visavis.stages.motion import MotionInput, MotionStage
from visavis.stages.separate import SeparateInput, SeparateStage
from visavis.stages.windows import WindowsInput, WindowsStage

DEADLY = "deadly"
"""A file of this name ends the process that ingests it, every time."""

Columns = dict[str, Any]


class DeadlyIngest(IngestStage):
    """Ingest, but for one file that kills its worker, as a decoder with a fault does."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = IngestStage.version

    def process(self, item: Source) -> Iterator[Conversation]:
        if DEADLY in Path(item.uris[0]).stem:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().process(item)


class _Operator(ABC):
    """A row in, the same row with further columns out. `status` says what became of the conversation so far."""

    def __init__(self, *stages: Stage[Any, Any]) -> None:
        self.stages = stages
        for stage in stages:
            stage.setup()

    def __call__(self, row: Columns) -> Columns:
        if row["status"] != "ok":
            return row
        try:
            return row | self.columns(row)
        except Rejected as rejected:
            return row | {"status": "rejected", "reason": rejected.reason.value}
        except Exception as error:  # noqa: BLE001 - told in the row
            return row | {"status": "failed", "reason": f"{type(error).__name__}: {error}"}

    @abstractmethod
    def columns(self, row: Columns) -> Columns:
        """What the stages make of a row of which nothing is rejected yet."""


class Ingested(_Operator):
    def __init__(self) -> None:
        super().__init__(DeadlyIngest(BuildConfig().ingest))

    def columns(self, row: Columns) -> Columns:
        return {"conversation": dump_rows([*self.stages[0].process(Source(uris=(row["uri"],)))])}


class Diarized(_Operator):
    def __init__(self) -> None:
        super().__init__(DiarizeStage(BuildConfig().diarize))

    def columns(self, row: Columns) -> Columns:
        return {"diarization": dump_rows([*self.stages[0].process(load_row(row["conversation"], Conversation))])}


class Tracked(_Operator):
    """Where the diarizer does not hear two people, a glance; then faces."""

    def __init__(self) -> None:
        config = BuildConfig().faces
        super().__init__(GlanceStage(config), FacesStage(config))

    def columns(self, row: Columns) -> Columns:
        glance, faces = self.stages
        conversation = load_row(row["conversation"], Conversation)
        diarization = load_row(row["diarization"], Diarization)
        if diarization.speakers != 2:
            list(glance.process(GlanceInput(conversation=conversation, diarization=diarization)))
        pieces = pieces_of(outline_of(conversation), (row["uri"],), BuildConfig().faces)
        return {"faces": dump_rows([tracks for piece in pieces for tracks in faces.process(piece)])}


class Windowed(_Operator):
    """All that follows faces, and takes little time."""

    def __init__(self, codec: bytes) -> None:
        config = BuildConfig()
        bind, separate, windows = (
            BindStage(config.bind),
            SeparateStage(config.separate),
            WindowsStage(config.windows),
        )
        super().__init__(CastStage(), bind, separate, MotionStage(), windows)
        self._codec = load_row(codec, Codec)

    def columns(self, row: Columns) -> Columns:
        cast, bind, separate, motion, windows = self.stages
        conversation = load_row(row["conversation"], Conversation)
        diarization = load_row(row["diarization"], Diarization)
        faces = load_rows(row["faces"], FaceTracks)
        chosen: Cast = next(cast.process(CastInput(conversation=conversation, faces=faces)))
        binding: Binding = next(
            bind.process(BindInput(conversation=conversation, diarization=diarization, cast=chosen))
        )
        voices = dump_rows([*separate.process(SeparateInput(conversation=conversation, binding=binding))])
        moved = tuple(
            next(motion.process(MotionInput(codec=self._codec, binding=binding, faces=faces, participant=participant)))
            for participant in (0, 1)
        )
        inputs = WindowsInput(codec=self._codec, conversation=conversation, binding=binding, motion=moved)
        dyad: Dyad = next(windows.process(inputs))
        # What is not needed any more is emptied: a column cannot be dropped for some rows only.
        return {"dyad": dump_rows([dyad]), "voices": voices, "faces": b"", "diarization": b""}


def run_chain(listing: Path, out: Path, codec: Path) -> None:
    """Build what is not built yet. listing: Parquet files with `id` and `uri`, one row each."""
    import ray
    from ray.data import DataContext
    from ray.data.checkpoint import CheckpointConfig

    ray.init(include_dashboard=False, logging_level="error")
    context = DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(out / "checkpoint"), delete_checkpoint_on_success=False
    )
    context.max_errored_blocks = -1  # one lost conversation must not end the others
    cores = os.cpu_count() or 1
    # Pools hold what they are given also while they wait: with half a core for each actor the task that lists the files
    # never found its whole core on two, and nothing happened, without a word (ray#44687). So all ask for little.
    little: dict[str, Any] = {"num_cpus": 0.2}
    actors = little | {"max_restarts": 4, "max_task_retries": 2}
    empty = {
        "status": "ok",
        "reason": "",
        "conversation": b"",
        "diarization": b"",
        "faces": b"",
        "dyad": b"",
        "voices": b"",
    }
    rows = ray.data.read_parquet(str(listing), ray_remote_args=little)
    # Files that are small are read into one block, and a block is lost as a whole.
    rows = rows.repartition(target_num_rows_per_block=1)
    rows = rows.map(lambda row: row | empty, **little)
    rows = rows.map(Ingested, concurrency=1, **actors)
    rows = rows.map(Diarized, concurrency=(1, cores), **actors)
    rows = rows.map(Tracked, concurrency=(1, cores), **actors)
    rows = rows.map(Windowed, fn_constructor_args=(codec.read_bytes(),), concurrency=1, **actors)
    rows.select_columns(["id", "status", "reason", "dyad", "voices"]).write_parquet(str(out / "rows"), mode="append")

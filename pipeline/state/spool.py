"""A list on disk: what the driver knows of each conversation between two phases, whatever their number."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Generic, TypeVar

from pydantic import TypeAdapter

from visavis.schemas.storage.faults import about

D = TypeVar("D")


class Spool(Generic[D]):
    """Dataclasses of one kind, appended and read again in order. Gone at the end of its block."""

    def __init__(self, kind: type[D] | TypeAdapter[D]) -> None:
        self._adapter: TypeAdapter[D] = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="visavis-")  # noqa: SIM115 - closed by __exit__
        self._count = 0

    def append(self, entry: D) -> None:
        with about(tempfile.gettempdir()):
            self._file.seek(0, 2)
            self._file.write(self._adapter.dump_json(entry) + b"\n")
        self._count += 1

    def keep(self, wanted: Callable[[D], bool]) -> None:
        """Forget the others."""
        with Spool(self._adapter) as kept:
            for entry in self:
                if wanted(entry):
                    kept.append(entry)
            self._file, kept._file = kept._file, self._file
            self._count = len(kept)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[D]:
        place = 0
        for _ in range(self._count):
            with about(tempfile.gettempdir()):  # what was appended may have to be written now
                self._file.seek(place)  # others may read at the same time
            line = self._file.readline()
            place += len(line)
            yield self._adapter.validate_json(line)

    def __enter__(self) -> Spool[D]:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

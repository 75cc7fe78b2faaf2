"""What a stage is: plain class, typed in and out, one method to write.

    class Loudness(Stage[Conversation, LoudnessRow]):
        name, version = "loudness", 1
        def process(self, item):
            ...
            yield LoudnessRow(...)

`process` yields rows, or raises `Rejected(reason, detail)` to leave the item out. Anything else that it
raises marks the item as failed. The same object runs in a notebook, in-process and on Ray.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from visavis.schemas.access import ANYBODY
from visavis.schemas.rows import Head, Row
from visavis.schemas.section import Section

In = TypeVar("In", bound=Row)
Out = TypeVar("Out", bound=Row)


@dataclass(frozen=True)
class Resources:
    """What one worker of a stage holds while it works."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None


class Stage(ABC, Generic[In, Out]):
    """One step from an item to rows.

    name: as in the ledger and on the command line. version: raise it when the output changes.
    config: the part of the configuration that shapes the output: it goes into the fingerprint, but for the fields that
    are marked (`schemas.markers`).
    """

    name: ClassVar[str]
    version: ClassVar[int]

    def __init__(self, config: Section) -> None:
        self.config = config
        self.access = ANYBODY  # what files may lead to: no part of the settings, for it does not shape the output

    @property
    def resources(self) -> Resources:
        return Resources()

    def setup(self) -> None:
        """Load models. Runs once in each worker before the first item."""

    @abstractmethod
    def process(self, item: In) -> Iterator[Out]:
        """Turn an item into rows.

        Raises:
            Rejected: the data is at fault.
        """

    def facts(self, rows: Sequence[Out]) -> str:
        """What the plan of later stages needs to know of an item's rows, so that the driver opens no artifact.

        Short: it is kept in the ledger.
        """
        return ""

    @classmethod
    def digests(cls, config: Any) -> Mapping[str, str]:
        """Of fields that are marked `ByDigest`: the digest of what lies there, where the stage reads it.

        Raises:
            UsageError: it is not there.
        """
        return {}

    @classmethod
    def types(cls) -> tuple[type[Row], type[Row]]:
        """The declared In and Out, read from `Stage[In, Out]`."""
        for base in getattr(cls, "__orig_bases__", ()):
            args = get_args(base)
            if len(args) == 2:
                return args
        raise TypeError(f"{cls.__name__} must derive from Stage[In, Out]")


def row_of(annotation: Any) -> Any:
    """The type of row of which a field of an In holds one, or several, or the beginning."""
    kind = get_args(annotation)[0] if get_origin(annotation) in (tuple, Sequence) else annotation
    return kind.whole if isinstance(kind, type) and issubclass(kind, Head) else kind

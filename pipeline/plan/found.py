"""One file as an input has it, with what its name says of it and what lies beside it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from fsspec import AbstractFileSystem

from visavis.pipeline.plan.beside import Beside, Siblings
from visavis.pipeline.plan.scan import MEDIA_SUFFIXES
from visavis.pipeline.plan.seamless import named
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Given
from visavis.schemas.storage.files import locate
from visavis.schemas.uris import is_local, local_path, local_uri, shown, unsigned

WEB = ("http://", "https://")

_LOG = logging.getLogger(__name__)


class Found(NamedTuple):
    """A file as an input has it. uri as `schemas.uris` makes it; stamp only where it is wanted."""

    uri: str
    conversation: str | None = None
    participant: str | None = None
    stamp: str = ""
    sidecars: tuple[str, ...] = ()
    given: Given | None = None

    @property
    def identity(self) -> tuple[str | None, str]:
        """Whose file, and which: a row that was signed anew is the same."""
        return self.participant, unsigned(self.uri)


def with_beside(row: Found, siblings: Siblings | None) -> Found:
    """A file that a list names; without what lies beside it where that is in a store that does not say."""
    try:
        return recognised(row, siblings, None)
    except (UsageError, OSError) as error:
        if is_local(row.uri):
            raise
        _LOG.warning("sound and annotations beside %s are left out: %s", shown(row.uri), error)
        return recognised(row, None, None)


def recognised(row: Found, siblings: Siblings | None, fs: AbstractFileSystem | None) -> Found:
    """A file with what lies beside it; one of a corpus also with what its name says of it, where the list does not say
    otherwise. A web server is asked about files of a corpus only."""
    name = named(row.uri)
    if name is not None and name.suffix not in MEDIA_SUFFIXES:
        return row
    if name is not None and row.conversation is None and row.participant is None:
        row = row._replace(conversation=name.conversation, participant=name.participant)
    if siblings is None or (name is None and row.uri.startswith(WEB)):
        return row
    if is_local(row.uri):
        return _joined(row, siblings.of(None, local_path(row.uri)), local_uri)
    fs, path = (fs, fs._strip_protocol(row.uri)) if fs else locate(row.uri)
    beside = siblings.of(fs, str(path))
    return _joined(row, beside, lambda found: str(fs.unstrip_protocol(found)))


def _joined(row: Found, beside: Beside, written: Callable[[str], str]) -> Found:
    """What a list names goes before what lies beside a file. written: path → uri."""
    given, stamps = row.given or Given(), list(beside.sidecars.values())
    for kind, found in (("turns", beside.turns), ("boxes", beside.boxes)):
        if found and not getattr(given, kind):
            given = given.model_copy(update={kind: written(found[0])})
            stamps.append(found[1])
    return row._replace(
        sidecars=tuple(map(written, beside.sidecars)),
        given=given if given.turns or given.boxes else None,
        stamp="+".join([row.stamp, *stamps]),
    )

"""Lists of conversations: the same columns in every format, checked by one schema.

`uri` is needed; `conversation`, `participant`, `size` and `modified` are read where they are, as are `turns` and
`boxes`, files of the user's own (`stages.media.given`), with `turns_offset`; every other column is named and ignored.
Names are text or whole numbers: 0 is a name, and 1.0, as tables write a whole number beside a missing one, is 1. What
spells a missing value (`MISSING`) does so in every format, and is reported where it is a word. A value of another kind
ends everything in one line that names row, column and value, before anything is built.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from numbers import Integral, Real
from typing import IO, Any, NamedTuple, NoReturn

from visavis.pipeline.plan.row_files import Cells, Table
from visavis.schemas.names import LONGEST_NAME, is_name
from visavis.schemas.rows import Given
from visavis.schemas.secrets import hidden
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import is_local, local_path, printable
from visavis.stages.media.given import has_ending

COLUMNS = ("uri", "conversation", "participant", "size", "modified", "turns", "boxes", "turns_offset")
MISSING = frozenset(["", "#N/A", "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null", "\\N"])

_ALIASES = {  # what others call our columns
    "uri": ("url", "path", "file", "filename", "filepath", "file_name", "file_path", "video", "video_path", "uris"),
    "conversation": ("conversation_id", "dialogue", "dialog", "session", "session_id", "dyad", "pair"),
    "participant": ("participant_id", "speaker", "speaker_id", "person", "actor"),
}
GIVEN = {"turns": (".rttm", ".json"), "boxes": (".npz", ".json")}
"""Columns that name files of the user's own, and how these end."""
_FARTHEST = 1e9  # seconds of an offset: thirty years
_EXACT = 2**53  # from here on a float does not tell which whole number it was
_SHOWN = 2000  # characters of a value that are looked at to show some
_NAMED = 10  # columns that are named; the rest is counted


class ListRow(NamedTuple):
    """A row as it counts.

    uri: a local uri as `schemas.uris` makes it, or a URL. size, modified: text, empty where the list does not say.
    """

    uri: str
    conversation: str | None
    participant: str | None
    size: str
    modified: str
    given: Given | None


class ListFile:
    """One list. `resolve` makes a uri of what the list says, or raises ValueError with what it should say instead.

    Raises, while rows are taken:
        UsageError: not such a list, or a wrong row. One line.
    """

    def __init__(self, name: str, suffix: str, resolve: Callable[[str], str]) -> None:
        self._table = Table(name, suffix, COLUMNS, _ALIASES)
        self._resolve = resolve
        self._untyped = self._table.suffix in (".csv", ".tsv")
        self._counts: Counter[str] = Counter()

    def rows(self, file: IO[bytes]) -> Iterator[ListRow]:
        """Every row. The file may be closed at the end."""
        with parsing(self._table.broken):
            yield from map(self._checked, self._table.rows(file))

    def notes(self) -> Iterator[str]:
        """What people should know of a list that was read to its end."""
        name, columns = self._table.name, self._table.columns
        for what, count in self._counts.items():
            yield f"{name}: {count} row{'s' if count > 1 else ''} {what}"
        ignored = [printable(column)[:40] or "(no name)" for column in columns if column not in COLUMNS]
        if ignored:
            more = f" and {len(ignored) - _NAMED} more" if len(ignored) > _NAMED else ""
            hints = "".join(self._table.meant(column) for column in COLUMNS)
            yield f"{name}: columns not read: {', '.join(ignored[:_NAMED])}{more}{hints}"

    def _checked(self, cells: Cells) -> ListRow:
        uri, conversation, participant, size, modified, *more = cells
        name = self._uri("uri", uri)
        talk = self._text("conversation", conversation) if conversation is not None else None
        who = self._text("participant", participant) if participant is not None else None
        if (talk is None) != (who is None):
            self._counts[_ONLY_WHO if talk is None else _ONLY_TALK] += 1
        if self._table.lines > 1:  # it passed, so the line breaks are elsewhere
            self._counts[_SPREAD] += 1
        size = "" if size is None else self._size(size)
        return ListRow(name, talk, who, size, "" if modified is None else self._modified(modified), self._given(more))

    def _given(self, cells: Cells) -> Given | None:
        """What the row names beside the video; None where that is nothing, as nearly always."""
        if not any(cells):  # an offset of 0 is none
            return None
        turns, boxes = (self._beside(column, value) for column, value in zip(GIVEN, cells, strict=False))
        return Given(turns=turns, boxes=boxes, offset=self._offset(cells[2])) if turns or boxes else None

    def _beside(self, column: str, value: Any) -> str:
        if value is None or (isinstance(value, str) and value.strip() in MISSING):
            return ""
        name = self._uri(column, value)
        if not has_ending(name, *GIVEN[column]):
            self._wrong(column, value, f"a file that ends in {' or '.join(GIVEN[column])}")
        return name

    def _offset(self, value: Any) -> float:
        text = str(value).strip() if isinstance(value, str | Real) and not isinstance(value, bool) else None
        if value is None or text in MISSING:
            return 0.0
        try:
            seconds = float(text or "")
        except ValueError:
            seconds = math.inf
        if not abs(seconds) <= _FARTHEST:
            self._wrong("turns_offset", value, "seconds")
        return seconds

    def _uri(self, column: str, value: Any) -> str:
        if isinstance(value, bytes):
            value = os.fsdecode(value)
        if value is not None and not isinstance(value, str):
            self._wrong(column, value, "a path or URL")
        if value is None or value.strip() in MISSING:
            self._table.fail("has no `uri`" + (f", but {value.strip()}" if value and value.strip() else ""))
        try:
            uri = self._resolve(value)
        except ValueError as error:
            self._wrong(column, value, str(error))
        if self._table.lines > 1 and "\n" in value and is_local(uri) and not os.path.lexists(local_path(uri)):
            self._wrong(column, value, f"a name on one line, not on {self._table.lines}: is a quote never closed?")
        return uri

    def _text(self, column: str, value: Any) -> str | None:
        """A name, None where it is missing."""
        if (
            type(value) is str
            and (value.isidentifier() or value.isdecimal())
            and value not in MISSING
            and is_name(value)
        ):
            return value  # nearly every name
        if isinstance(value, bytes):
            value = value.decode("utf-8", "surrogateescape")
        if not isinstance(value, str):
            return self._number(column, value)
        text = value.strip()
        if text in MISSING:
            if text:
                self._counts[f"with {text} as `{column}`: read as missing"] += 1
            return None
        if not is_name(text):
            wanted = f"a name in UTF-8 of at most {LONGEST_NAME} characters, without line breaks or control characters"
            self._wrong(column, value, wanted)
        if self._untyped:
            if text[0] == '"' and value[0] != '"':  # a blank before it has made the quote a part of the name
                self._wrong(column, value, "the quote right after what separates columns")
            if text.endswith(".0") and text[:-2].lstrip("-").isdecimal():
                return text[:-2]
        return text

    def _number(self, column: str, value: Any) -> str | None:
        """Bool is a number to Python, and a date is none, but a good name."""
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, Integral) and not isinstance(value, bool):
            return str(int(value))
        if isinstance(value, bool | list | dict):
            self._wrong(column, value, "text or a whole number")
        if value != value:  # NaN, which is how tables spell a missing number
            return None
        inexact = isinstance(value, Real) and abs(float(value)) >= _EXACT  # a Decimal is exact, and is no Real
        if inexact or value != value.__floor__():
            self._wrong(column, value, "text or a whole number")
        return str(int(value))

    def _size(self, value: Any) -> str:
        if type(value) is int and value >= 0:
            return str(value)
        text = self._text("size", value)
        if text is not None and not (text.isdecimal() and text.isascii()):
            self._wrong("size", value, "a whole number of bytes")
        return text or ""

    def _modified(self, value: Any) -> str:
        if isinstance(value, str):
            return "" if value.strip() in MISSING else value.strip()
        if isinstance(value, bool | list | dict | bytes):
            self._wrong("modified", value, "text, a number or a time")
        return "" if value != value else str(value)

    def _wrong(self, column: str, value: Any, expected: str) -> NoReturn:
        said = printable(hidden(f"'{value[:_SHOWN]}'" if isinstance(value, str) else repr(value)[:_SHOWN]))
        self._table.fail(f"`{column}` is {said[:60]}{'…' if len(said) > 60 else ''}, expected {expected}")


_ONLY_WHO = "with a participant and no conversation: nobody to pair with, so an incomplete dyad"
_ONLY_TALK = "with a conversation and no participant: taken as videos that show both people"
_SPREAD = "on more than one line, by a quoted text in a column that is not read"

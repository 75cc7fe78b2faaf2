"""Which settings do not shape the data: said at the field, read here by all who compare or hash settings.

    device: Annotated[str, Runtime]             how and where it runs
    weights: Annotated[str | None, ByDigest]    where something lies; what it is counts

A field without a marker shapes the data: whatever depends on it is done again when it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo


class Marker(Enum):
    RUNTIME = "how and where it runs, or what is checked on the way"
    BY_DIGEST = "where something lies: its content, or a field beside this one, says what it is"


Runtime, ByDigest = Marker


def marker_of(field: FieldInfo) -> Marker | None:
    return next((note for note in field.metadata if isinstance(note, Marker)), None)


def fields_by_digest(kind: type[BaseModel]) -> Iterator[str]:
    """Names of the fields of a section that are marked `ByDigest`."""
    return (name for name, field in kind.model_fields.items() if marker_of(field) is ByDigest)


def shaping(settings: BaseModel | Mapping[str, BaseModel]) -> dict[str, Any]:
    """Plain JSON values of the settings that shape the data; what is marked is left out, at any depth."""
    if isinstance(settings, Mapping):
        return {name: shaping(section) for name, section in settings.items()}
    return settings.model_dump(mode="json", exclude=_marked(settings))


def _marked(value: Any) -> dict[str, Any]:
    """As pydantic's `exclude` wants it."""
    if isinstance(value, Mapping):
        return {name: inside for name, entry in value.items() if (inside := _marked(entry))}
    found: dict[str, Any] = {}
    for name, field in type(value).model_fields.items() if isinstance(value, BaseModel) else ():
        if marker_of(field):
            found[name] = True
        elif inside := _marked(getattr(value, name)):
            found[name] = inside
    return found

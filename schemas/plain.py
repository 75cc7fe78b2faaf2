"""Plain data for everybody: JSON as its standard has it, and records that keep one type per field.

JSON knows no NaN and no infinity: Python writes `NaN`, which most other readers refuse. What is not finite becomes
`null` here, and names with bytes that are no text stay ASCII escapes.

Readers of shards (`datasets`, `pandas`, Arrow) learn a column's type from the first few samples, and then refuse a
number where they saw `null`, or a field that they saw nowhere. So a record always has all of its fields, each with a
value of its type: what is not known is written as zero or as an empty text, and its name stands in `unknown`, which
is a text of names with spaces between them, empty where everything is known. For the same reason a tuple of words is
one text (`Words`): the items of an empty list have no type.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, PlainSerializer, ValidationError

from visavis.schemas.untrusted import bounded

M = TypeVar("M", bound=BaseModel)
UNKNOWN = "unknown"

MOST_BYTES = 16 << 20
"""Of JSON, where nobody says otherwise."""
RECORD_BYTES = 1 << 16
"""Of a record; ours have some two thousand."""
_MOST_VALUES = 5_000_000  # in lists and mappings: Python needs up to 200 bytes for one
_DEEPEST = 32

Words = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: value.split() if isinstance(value, str) else value),
    PlainSerializer(" ".join, when_used="json"),
]
"""Words without spaces; in JSON one text."""


def to_json(data: Any, *, indent: int | None = None, sort_keys: bool = True, ascii_only: bool = True) -> str:
    """Strict JSON. Floats that are not finite become null.

    Args:
        ascii_only: letters beyond ASCII as escapes, so that a name with any bytes can be written; else for people.

    Raises:
        TypeError: not plain data.
    """
    return json.dumps(_finite(data), indent=indent, sort_keys=sort_keys, ensure_ascii=ascii_only, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return data


def read_strict(data: bytes | str, most: int = MOST_BYTES, *, finite: bool = True) -> Any:
    """JSON in which every number is finite and no name comes twice.

    Args:
        most: bytes, or characters, that are read.
        finite: False: also Python's `NaN` and `Infinity`, in what only programs like this one read.

    Raises:
        ValueError: not such JSON, larger than `most`, of too many values, or nested too deeply.
    """
    bounded(len(data), most, "bytes of JSON")
    text = data if isinstance(data, str) else data.decode()
    bounded(text.count("[") + text.count("{") + text.count(","), _MOST_VALUES, "values")
    try:
        plain = (_STRICT if finite else _PYTHONS).decode(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    _check_depth(plain, _DEEPEST)
    return plain


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object. ValueError: a name comes twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        again = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {again!r} comes twice in one object")
    return fields


_STRICT = json.JSONDecoder(parse_constant=_no_number, parse_float=_number, object_pairs_hook=distinct)
_PYTHONS = json.JSONDecoder(object_pairs_hook=distinct)


def _check_depth(data: Any, left: int) -> None:
    if not left:
        raise ValueError("is nested too deeply")
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        if isinstance(value, dict | list):
            _check_depth(value, left - 1)


def fitted(kind: type[M], plain: Any) -> M:
    """Plain data as a model.

    Raises:
        ValueError: fields that do not fit; names the first.
    """
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {said}" if where else said) from error


def dump_record(record: BaseModel) -> bytes:
    """A record with all of its fields, at every depth, whatever is known.

    Raises:
        ValueError: a number that is not finite.
    """
    plain = record.model_dump(mode="json")
    unknown = list(_fill(type(record), plain, ""))
    plain[UNKNOWN] = " ".join(unknown)
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def load_record(data: bytes, kind: type[M]) -> M:
    """What `dump_record` wrote; also with null for what is not known, as it was written once.

    Raises:
        ValueError: not JSON, too large, or fields that do not fit.
        TypeError, LookupError, AttributeError: `unknown` that names what is not there.
    """
    plain = read_strict(data, RECORD_BYTES)
    if isinstance(plain, dict):
        for path in plain.pop(UNKNOWN, "").split():
            *parents, name = path.split(".")
            inner = plain
            for parent in parents:
                inner = inner[parent]
            inner[name] = None
    return fitted(kind, plain)


def _fill(kind: type[BaseModel], plain: dict[str, Any], path: str) -> Iterator[str]:
    """Put a value of its type where there is None; what is said are the places."""
    for name, field in kind.model_fields.items():
        inner = _present(field.annotation)
        if plain[name] is None:
            plain[name] = _nothing(inner)
            yield f"{path}{name}"
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _fill(inner, plain[name], f"{path}{name}.")


def _present(annotation: Any) -> Any:
    """The type of a field that may be None where it is not."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = (each for each in typing.get_args(annotation) if each is not type(None))
    return annotation


def _nothing(kind: Any) -> Any:
    """A value of the type that a field has in JSON: zero, or an empty text."""
    if kind in (bool, int, float):
        return kind()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {name: _nothing(_present(field.annotation)) for name, field in kind.model_fields.items()}
    if typing.get_origin(kind) is tuple:
        return [_nothing(each) for each in typing.get_args(kind)]
    return ""

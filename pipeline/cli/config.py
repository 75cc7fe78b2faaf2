"""Every setting of a recipe with its default and meaning, read from the fields that recipes are checked against."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.table import Table

from visavis.pipeline.engine.terminal import table
from visavis.schemas.config import BuildConfig
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.plain import to_json
from visavis.schemas.train import TrainConfig

KINDS: dict[str, type[BaseModel]] = {"build": BuildConfig, "train": TrainConfig, "pairs": PairsConfig}
_EACH = "NAME"  # in place of a key of a mapping of sections
_WIDTH = 100  # characters of a comment
_COMMON = {"device": "where its networks run; auto: on a GPU where there is one"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


class Setting(NamedTuple):
    """One setting. name: as `--set` takes it; default: plain data; allowed: choices or bounds, empty: any."""

    name: str
    default: Any
    allowed: str
    meaning: str


def settings_of(kind: type[BaseModel], before: str = "") -> Iterator[Setting]:
    """All settings below a section, in the order of the fields."""
    for name, field in kind.model_fields.items():
        section = section_of(field.annotation)
        if section and get_origin(field.annotation) is not dict:
            yield from settings_of(section, f"{before}{name}.")
            continue
        default = field.get_default(call_default_factory=True)
        yield Setting(f"{before}{name}", plain(default), _allowed(field), field.description or _COMMON.get(name, ""))
        if section:
            yield from settings_of(section, f"{before}{name}.{_EACH}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, alone or by name."""
    kinds = (annotation, *(get_args(annotation) if get_origin(annotation) is dict else ()))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def plain(value: Any) -> Any:
    """A default as YAML and JSON have it."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def _allowed(field: FieldInfo) -> str:
    kinds = (field.annotation, *get_args(field.annotation))
    choices = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    enums = [str(each.value) for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum) for each in kind]
    limits = ((sign, getattr(part, at, None)) for part in field.metadata for at, sign in _BOUNDS.items())
    return ", ".join(choices or enums or (f"{sign} {limit}" for sign, limit in limits if limit is not None))


def settings_table(kind: str) -> Table:
    """For people: a line for each setting."""
    made = table(f"settings of `visavis {kind}`", "setting", "default", "meaning", left=("default", "meaning"))
    for setting in settings_of(KINDS[kind]):
        allowed = f" [{setting.allowed}]" if setting.allowed else ""
        made.add_row(setting.name, _written(setting.default), f"{setting.meaning}{allowed}")
    return made


def recipe_of(kind: str) -> str:
    """A recipe that says what the defaults are: every setting, and its meaning above it."""
    lines = [f"# Recipe for `visavis {kind}`: every setting with its default."]
    written = set[tuple[str, ...]]()
    for setting in settings_of(KINDS[kind]):
        *sections, name = setting.name.split(".")
        mark = "# " if _EACH in sections else ""  # who wants one of these gives it a name
        for depth in range(len(sections)):
            path = tuple(sections[: depth + 1])
            if path not in written:
                lines += [*([""] if not depth else []), f"{mark}{'  ' * depth}{path[-1]}:"]
            written.add(path)
        written.add((*sections, name))
        lines += _entry(setting, name, f"{mark}{'  ' * len(sections)}")
    return "\n".join(lines) + "\n"


def _entry(setting: Setting, name: str, indent: str) -> list[str]:
    allowed = f" [{setting.allowed}]" if setting.allowed else ""
    comment = textwrap.wrap(f"{setting.meaning}{allowed}".strip(), _WIDTH)
    return [*(f"{indent}# {line}" for line in comment), f"{indent}{name}: {_written(setting.default)}"]


def _written(value: Any) -> str:
    """As YAML, of which JSON is a part; a plain word needs no quotes."""
    word = isinstance(value, str) and value.replace("-", "").replace("_", "").isalpha()
    return value if word and value.lower() not in ("null", "true", "false") else to_json(value, sort_keys=False)

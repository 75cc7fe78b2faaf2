"""Recipes: YAML read as YAML 1.2 means it, into typed configuration.

PyYAML's parser does the reading; what a plain word means is decided here, by YAML 1.2's core schema. By YAML 1.1, which
PyYAML's own loaders speak, `no` is false, `010` is 8, `1:30` is 90 and `1e-3` is text. Nothing else is built from a
recipe than text, numbers, booleans, lists and mappings: no tags, no dates. A key that comes twice is refused, as are
merge keys (`<<`), which YAML 1.2 does not have; a section may be given a name and used again (`&name`, `*name`).

What is wrong is said in one line that names the recipe's line, or the `--set` that is at fault.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from visavis.schemas.config import BuildConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.secrets import hidden
from visavis.schemas.section import Section
from visavis.schemas.train import TrainConfig
from visavis.schemas.tune import TuneConfig

_LARGEST = 1 << 18  # bytes of a recipe
_MOST_NODES = 20_000  # what its aliases stand for counted in
_TAG = "tag:yaml.org,2002:"

C = TypeVar("C", bound="Section")
Keys = tuple[str, ...]


class CoreLoader(yaml.SafeLoader):
    """Plain words as the core schema of YAML 1.2 resolves them."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - as PyYAML's classes have it


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    CoreLoader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass
class _Recipe:
    """Values, and where each came from: a line of the file, or an override."""

    where: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Keys, int] = field(default_factory=dict)
    set_: dict[Keys, str] = field(default_factory=dict)

    def blame(self, keys: Keys) -> str:
        """Who is at fault for what is wrong at `keys`: an override there, above or below, else the recipe."""
        above = [keys[:n] for n in range(len(keys), 0, -1)]
        below = [path for path in self.set_ if path[: len(keys)] == keys and (keys or not self.lines)]
        guilty = next((path for path in (*above, *reversed(below)) if path in self.set_), None)
        if guilty:
            return f"--set {self.set_[guilty]}"
        line = next((self.lines[path] for path in above if path in self.lines), None)
        return f"{self.where}, line {line}" if line else self.where


def load_config(path: str | Path, kind: type[C], overrides: Sequence[str] = ()) -> C:
    """Read a recipe and apply `section.key=value` overrides (values are YAML; an empty one is none).

    Raises:
        UsageError: no such file, not YAML, an unknown key or a wrong type. One line.
    """
    file = _found(path)
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = f"; the recipe comes first, for example {_EXAMPLE}" if file.is_dir() else ""
        raise UsageError(f"cannot read config {file}: {reason}{hint}") from error
    return parse_config(_decoded(data, str(file)), kind, overrides, where=str(file))


def _found(path: str | Path) -> Path:
    """A recipe's file: `configs/…` is one of the program's own where the current folder has none of that name."""
    file, own = Path(path), Path(__file__).parents[1] / path
    return own if file.parts[:1] == ("configs",) and not file.exists() and own.is_file() else file


def parse_config(text: str, kind: type[C], overrides: Sequence[str] = (), *, where: str = "config") -> C:
    """`load_config` for text that is already read."""
    recipe = _Recipe(where)
    values = _parsed(text, where, recipe.lines)
    if values is not None and not isinstance(values, dict):
        hint = _hint(where)
        raise UsageError(f"{where} must be a mapping of sections, found a {type(values).__name__}{hint}")
    recipe.values = values or {}
    for override in overrides:
        _apply(recipe, override)
    try:
        return kind.model_validate(recipe.values)
    except ValidationError as error:
        raise UsageError(_message(error, recipe, kind)) from error


_EXAMPLE = "configs/default.yaml"


def _hint(where: str) -> str:
    """What to say beside a fault of a file whose name is no recipe's."""
    return "" if Path(where).suffix in (".yaml", ".yml", "") else _not_a_recipe(where)


def _not_a_recipe(where: str) -> str:
    return f"; {where} is no recipe, which comes first, for example {_EXAMPLE}"


def _decoded(data: bytes, where: str) -> str:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        if b"\0" in data and not utf16:
            raise ValueError("not text")
        if len(data) > _LARGEST:
            raise ValueError(f"more than {_LARGEST >> 10} kB")
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except ValueError as error:
        what = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise UsageError(f"cannot read config {where}: {what}{_not_a_recipe(where)}") from error


def _parsed(text: str, where: str, lines: dict[Keys, int]) -> Any:
    """The values of YAML text; adds the line of each key."""
    try:
        node = yaml.compose(text, CoreLoader)
        return _Values(lines).of(node, ()) if node is not None else None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML reads numbers in a %YAML line as they come
        hint = _hint(where)
        raise UsageError(f"{where} is not valid YAML: {_yaml_fault(error)}{hint}") from error
    except RecursionError as error:
        raise UsageError(f"{where} is not valid YAML: nested too deep") from error


class _Values:
    """Plain values of YAML nodes."""

    def __init__(self, lines: dict[Keys, int]) -> None:
        self._lines = lines
        self._count = 0
        self._open: set[int] = set()

    def of(self, node: yaml.Node, keys: Keys) -> Any:
        self._count += 1
        if self._count > _MOST_NODES:
            _refuse(node, f"more than {_MOST_NODES} entries, with what aliases stand for")
        if id(node) in self._open:
            _refuse(node, "an alias inside of what it stands for")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.ScalarNode):
                return _scalar(node)
            if node.tag == _TAG + "seq" and isinstance(node, yaml.SequenceNode):
                return [self.of(child, (*keys, str(n))) for n, child in enumerate(node.value)]
            if node.tag == _TAG + "map" and isinstance(node, yaml.MappingNode):
                return dict(self._entries(node, keys))
            return _refuse(node, f"the tag {_short(node.tag)} is not read")
        finally:
            self._open.remove(id(node))

    def _entries(self, node: yaml.MappingNode, keys: Keys) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                _refuse(name, "a key is one word, not a list or mapping")
            key = _joined(name, name.value)
            if key == "<<" and name.style is None and not isinstance(value, yaml.ScalarNode):
                _refuse(name, "merge keys (<<) are not part of YAML 1.2; name a section &name, and use it as *name")
            if key in seen:
                _refuse(name, f"{key!r} comes twice, first in line {seen[key]}; put both into one")
            seen[key] = line
            self._lines.setdefault((*keys, key), line)
            yield key, self.of(value, (*keys, key))


def _scalar(node: yaml.ScalarNode) -> Any:
    kind, text = node.tag.removeprefix(_TAG), str(node.value)
    try:
        if kind == "str":
            return _joined(node, text)
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            if number.bit_length() > 64:
                raise ValueError("no setting is as large, and Python does not even print the largest")
            return number
        if kind == "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan") if text[-1:].isalpha() else text)
    except (ValueError, KeyError):
        return _refuse(node, f"{hidden(text)[:40]!r} is no {kind}")
    return _refuse(node, f"the tag {_short(node.tag)} is not read")


def _joined(node: yaml.Node, text: str) -> str:
    """JSON writes a character beyond U+FFFF as two escapes, which YAML takes for two characters."""
    if text.isascii():
        return text
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return _refuse(node, "half a character: not UTF-8")


def _short(tag: str) -> str:
    return tag.replace(_TAG, "!!")[:60]


def _refuse(node: yaml.Node, what: str) -> NoReturn:
    raise yaml.MarkedYAMLError(None, None, what, node.start_mark)


def _yaml_fault(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {' '.join(str(error.problem).split())}"
    return " ".join(str(error).split())


def _apply(recipe: _Recipe, override: str) -> None:
    name, equals, value = override.partition("=")
    name = name.strip()
    *sections, key = keys = tuple(name.split("."))
    if not equals or not all(keys):
        raise UsageError(f"--set wants section.key=value, got {override!r}")
    place = recipe.values
    for n, section in enumerate(sections):
        child = place.get(section)
        if child is None:
            child = place[section] = {}
        if not isinstance(child, dict):
            raise UsageError(f"--set {name}: {section} is not a section{'' if n else ' in ' + recipe.where}")
        child = place[section] = dict(child)  # an alias may stand for it elsewhere, too
        place = child
    place[key] = _value(name, value)
    recipe.set_ = {path: said for path, said in recipe.set_.items() if path[: len(keys)] != keys}
    recipe.set_[keys] = name


def _value(name: str, text: str) -> Any:
    try:
        node = yaml.compose(text, CoreLoader)
        comment = "#" in text and not text[node.end_mark.index if node else 0 :].isspace()
        if comment and (node is None or text[node.end_mark.index :].strip()):
            raise UsageError(f"--set {name}: {text!r} has a comment in it; quote the value: {name}='\"{text}\"'")
        return _Values({}).of(node, ()) if node is not None else None
    except (yaml.YAMLError, ValueError) as error:  # PyYAML reads numbers in a %YAML line as they come
        raise UsageError(f"--set {name}: {text!r} is not valid YAML: {_yaml_fault(error)}") from error
    except RecursionError as error:
        raise UsageError(f"--set {name}: nested too deep") from error


def _message(error: ValidationError, recipe: _Recipe, kind: type[BaseModel]) -> str:
    """The first thing that is wrong, and who is to blame. An override goes before the file: it was just typed."""
    found = [(tuple(str(part) for part in one["loc"]), one) for one in error.errors()]
    other = _other_kind(recipe.values, kind)
    if other:
        return f"{recipe.where} is a recipe for `visavis {other[0]}`, not for `visavis {other[1]}`"
    found.sort(key=lambda one: not recipe.blame(one[0]).startswith("--set"))
    keys, first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{recipe.blame(keys)}: {'.'.join(keys) or 'recipe'}: {_what(first, keys, kind)}{more}"


def _what(error: Mapping[str, Any], keys: Keys, kind: type[BaseModel]) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key{_suggestion(keys, kind)}"
    given, message = error["input"], str(error["msg"]).removeprefix("Value error, ")
    if given is None:
        return f"{message}, and nothing is given; an empty value is none, which this setting cannot be"
    return f"{message}, got {hidden(str(given))[:40]!r}" if isinstance(given, str | int | float) else message


def _suggestion(keys: Keys, kind: type[BaseModel]) -> str:
    """A key that is spelled alike, or has that name in another section."""
    section = kind
    for part in keys[:-1]:
        section = _section(section, part) or section  # a mapping's own keys lead nowhere
    known = list(section.model_fields)
    close = get_close_matches(keys[-1], known, 1, 0.6)
    elsewhere = [path for path in _paths(kind) if path.rpartition(".")[2] == keys[-1]]
    meant = elsewhere[0] if elsewhere else ".".join((*keys[:-1], close[0])) if close else ""
    return f"; did you mean {meant}?" if meant else f"; known are {', '.join(known)}" if len(known) < 20 else ""


def _section(parent: type[BaseModel], name: str) -> type[BaseModel] | None:
    annotation = parent.model_fields[name].annotation if name in parent.model_fields else None
    return next(
        (a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)), None
    )


def _paths(kind: type[BaseModel], before: str = "") -> Iterator[str]:
    for name in kind.model_fields:
        yield before + name
        inside = _section(kind, name)
        if inside:
            yield from _paths(inside, f"{before}{name}.")


def _other_kind(values: Mapping[str, Any], kind: type[BaseModel]) -> tuple[str, str] | None:
    """The command that a recipe is for, and the one that it was given to, where its sections say so."""
    kinds: dict[str, type[BaseModel]] = {
        "build": BuildConfig,
        "train": TrainConfig,
        "pairs": PairsConfig,
        "tune": TuneConfig,
    }
    unknown = set(values) - set(kind.model_fields)
    if not unknown or kind not in kinds.values():
        return None
    fits = [name for name, other in kinds.items() if unknown <= set(other.model_fields)]
    own = next(name for name, other in kinds.items() if other is kind)
    return (fits[0], own) if fits and set(values) <= set(kinds[fits[0]].model_fields) else None

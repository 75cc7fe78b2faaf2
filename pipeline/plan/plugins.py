"""Stages of a user's own, run in a build beside the others: `--plugin FILE.py:Class`, or `plugins:` in a recipe.

    plugins:
      blinks: {code: examples/plugin_blinks.py:CountBlinks, settings: {closed: 0.5}}

A stage of this kind takes what stages before it make of one conversation, found by the types of its In's fields or
named by a class attribute `takes = {"field": "stage"}`, and leaves an artifact of its own for each conversation. It is
committed, resumed, retried and shown as any other, and done again when its file, its settings or its inputs change. A
conversation that it rejects is left out, as by any other stage. It cannot replace a stage, work on pieces or on the
whole corpus, or add members to samples.

Its code is a program that runs as the user: only the user's own command line or recipe names it, never data. Workers
get its path and its digest, not its code: each machine loads the file from that path, and refuses another one.
"""

from __future__ import annotations

import copyreg
import hashlib
import inspect
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from visavis.pipeline.engine.paths import in_full
from visavis.pipeline.engine.worker import AnyStage
from visavis.pipeline.state.tasks import WHOLE
from visavis.schemas.config import BuildConfig, PluginConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Row
from visavis.schemas.section import Section
from visavis.schemas.storage.user_code import named_in, read_code, run_code
from visavis.schemas.words import candidates
from visavis.stages.base import Stage, row_of

GROUP = "visavis.stages"
"""Entry points of installed packages; they too are used only where the user names them."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


@dataclass(frozen=True)
class Output:
    """What a stage makes of a conversation: rows of which type, and whether in several artifacts."""

    row: type[Row]
    several: bool


@dataclass(frozen=True)
class Plugin:
    """A stage of the user's own, its settings, and the digest of its file."""

    code: str
    stage: type[AnyStage]
    settings: Section
    digest: str

    def __str__(self) -> str:
        return f"plugin {self.code}"

    def takes(self, made: Mapping[str, Output]) -> dict[str, str]:
        """Field of its In → the stage that makes what goes there; made: by stage, of those that there are.

        Raises:
            UsageError: nobody makes it, or several do.
        """
        takes = self.stage.types()[0]
        named = getattr(self.stage, "takes", {})
        _check(isinstance(named, Mapping), self.code, "has a `takes` that maps no field to a stage")
        if unknown := next((field for field in named if field not in takes.model_fields), None):
            known = candidates(unknown, list(takes.model_fields), "field")
            raise UsageError(f"{self}: takes names {unknown}; {known}")
        if whole := [name for name, output in made.items() if output.row is takes and not output.several]:
            return {WHOLE: whole[0]}
        found = {}
        for field, info in takes.model_fields.items():
            makers = self._makers(field, info.annotation, made)
            if len(makers) == 1:
                found[field] = makers[0]
            elif info.is_required() or len(makers) > 1:
                which = f"{', '.join(makers)} all make" if makers else "no stage of this build makes"
                raise UsageError(f"{self}: {which} what its input {field} takes; say takes = {{{field!r}: STAGE}}")
        if not found:
            raise UsageError(f"{self}: it takes nothing that a stage makes")
        return found

    def _makers(self, field: str, annotation: Any, made: Mapping[str, Output]) -> list[str]:
        named = getattr(self.stage, "takes", {}).get(field)
        if named is not None and named not in made:
            raise UsageError(f"{self}: takes of {field} names {named}; {candidates(named, made, 'stage')}")
        wanted = row_of(annotation)
        makers = [name for name, output in made.items() if output.row is wanted and named in (None, name)]
        if named is not None and not makers:
            raise UsageError(f"{self}: {field} takes {_name_of(wanted)}, but {named} makes {made[named].row.__name__}")
        several = get_origin(annotation) in (tuple, Sequence)
        if lone := [name for name in makers if made[name].several and not several]:
            raise UsageError(f"{self}: {lone[0]} makes several, so {field} must be a Sequence[{_name_of(wanted)}]")
        return makers


def with_plugins(config: BuildConfig, named: Iterable[str]) -> BuildConfig:
    """The same with stages that the command line names: FILE.py:Class, or an installed one's name.

    Raises:
        UsageError: there is no such stage.
    """
    plugins = dict(config.plugins)
    for code in named:
        name = load(code)[0].name
        plugins[name] = plugins.get(name, PluginConfig()).model_copy(update={"code": code})
    return config.model_copy(update={"plugins": plugins})


def plugins_of(config: Mapping[str, PluginConfig]) -> Iterator[Plugin]:
    """
    Raises:
        UsageError: there is no such stage, or its settings are not as it wants them.
    """
    for name, entry in config.items():
        code = entry.code or name
        stage, digest = load(code)
        if stage.name != name:
            raise UsageError(f"plugins.{name}: {code} is named {stage.name}; name its section so")
        yield Plugin(code, stage, _settings(stage, entry.settings), digest)


def load(code: str, digest: str = "") -> tuple[type[AnyStage], str]:
    """The class that FILE.py:Class or an entry point names, and the digest of its file.

    Args:
        digest: that the file must have. The class of such a file is loaded once in a process.

    Raises:
        UsageError: it is not there, is no stage, or its file is another one.
    """
    stage, data = _of_file(code, digest) if ":" in code else _of_package(code)
    found = _digest(data)
    _check(digest in ("", found), code, f"is another one on {socket.gethostname()} than where the build began")
    is_stage = isinstance(stage, type) and issubclass(stage, Stage)
    _check(is_stage and not inspect.isabstract(stage), code, "is no class of a stage (visavis.stages.base.Stage)")
    named = _NAME.fullmatch(str(getattr(stage, "name", ""))) and isinstance(getattr(stage, "version", None), int)
    _check(named, code, "has no name of small letters, digits and _, or no version that is a number")
    _check(_is_typed(stage), code, "must derive from Stage[In, Out], with rows (visavis.schemas.rows.Row) as both")
    copyreg.pickle(stage, partial(_reduced, code=_in_full(code), digest=found))
    return stage, found


def _of_file(code: str, digest: str) -> tuple[Any, bytes]:
    path, _, name = _in_full(code).rpartition(":")
    data = read_code(path, f"plugin {code}", elsewhere=bool(digest))
    if digest not in ("", _digest(data)):
        return None, data
    module = run_code(path, data, "plugin")
    stages = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Stage)]
    own = [key for key in stages if vars(module)[key] is not Stage]
    return named_in(module, name, own, f"plugin {code}", "stage"), data


def _of_package(name: str) -> tuple[Any, bytes]:
    there = entry_points(group=GROUP)
    wanted = [point for point in there if point.name == name]
    known = candidates(name, [point.name for point in there], "installed stage")
    _check(wanted, name, f"is neither FILE.py:Class nor the name of an installed stage ({GROUP}); {known}")
    try:
        stage = wanted[0].load()
        return stage, Path(inspect.getfile(stage)).read_bytes()
    except Exception as error:
        raise UsageError(f"plugin {name} does not load: {type(error).__name__}: {error}") from error


def _reduced(stage: AnyStage, *, code: str, digest: str) -> tuple[Any, ...]:
    """How such a stage goes to another process: where its code lies, what it is, and what it holds."""
    return _restored, (code, digest), vars(stage)


def _restored(code: str, digest: str) -> AnyStage:
    stage, _ = load(code, digest)
    return stage.__new__(stage)


def _settings(stage: type[AnyStage], values: Mapping[str, Any]) -> Section:
    """Settings as a stage's `config` is typed, in the class or in its `__init__`."""
    try:
        hints = [get_type_hints(typed).get("config") for typed in (stage, stage.__init__)]
    except NameError as error:
        raise UsageError(f"plugins.{stage.name}: the type of its config is not known when it runs ({error})") from error
    found = (kind for hint in hints for kind in (hint, *get_args(hint)))
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Section) and kind is not Section]
    kind = (kinds or [Section])[0]
    if unknown := next((name for name in values if name not in kind.model_fields), None):
        raise UsageError(
            f"plugins.{stage.name}.settings.{unknown}: {candidates(unknown, list(kind.model_fields), 'setting')}"
        )
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("plugins", stage.name, "settings", *first["loc"])))
        raise UsageError(f"{where}: {str(first['msg']).removeprefix('Value error, ')}") from error


def _is_typed(stage: type[AnyStage]) -> bool:
    try:
        return all(isinstance(kind, type) and issubclass(kind, Row) for kind in stage.types())
    except TypeError:
        return False


def _in_full(code: str) -> str:
    path, colon, name = code.rpartition(":")
    return f"{in_full(path)}:{name}" if colon else code


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _name_of(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _check(holds: Any, code: str, what: str) -> None:
    if not holds:
        raise UsageError(f"plugin {code} {what}")

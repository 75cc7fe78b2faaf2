"""What of this program's optional parts is installed. Its own metadata tells what each extra brings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from visavis.schemas.errors import UsageError

_PROGRAM = "visavis"
_NOT_NAMED_ALIKE = {
    "cv2": "opencv",
    "sklearn": "scikit",
    "yaml": "pyyaml",
}  # modules → the beginning of their distributions' names
_FEW = 3  # missing packages that a message lists


def needs(extra: str, what: str) -> None:
    """See that all is installed that `visavis[extra]` brings, before work starts.

    Args:
        what: has the need, as people call it, for example `visavis build`.

    Raises:
        UsageError: something is missing, or too old. One line, with what to type.
    """
    if missing := sorted({lack for each in _packages(extra) if (lack := _lack(each))}):
        more = f" and {len(missing) - _FEW} more" if len(missing) > _FEW else ""
        lacking = f"{', '.join(missing[:_FEW])}{more}"
        raise UsageError(f"{what} needs what is not installed here: {install(extra)} ({lacking})")


def install(extra: str) -> str:
    """What to type for an extra."""
    return f'pip install "{_PROGRAM}[{extra}]"'


def absent(error: BaseException | None) -> str | None:
    """What to say of a module that was not found and that an extra brings; None: it is not ours to explain."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = extra_of(error.name)
        return f"this needs {error.name}, not installed here: {install(extra)}" if extra else None
    return absent(error.__cause__) if isinstance(error, ImportError) else None


def extra_of(module: str) -> str | None:
    """The extra that brings a module, the one with the fewest packages where several do."""
    root = _plain(module.partition(".")[0])
    wanted = _NOT_NAMED_ALIKE.get(root, root)
    bring = {extra: [_plain(each.name) for each in _packages(extra)] for extra in _extras()}
    found = [extra for extra, names in bring.items() if any(name.startswith(wanted) for name in names)]
    return min(found, key=lambda extra: len(bring[extra]), default=None)


def _lack(wanted: Requirement) -> str:
    """A package that is not there, or is older than it may be; newer ones are the user's choice."""
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return wanted.name
    floors = (clause for clause in wanted.specifier if clause.operator in (">=", "==", "~="))
    return "" if all(clause.contains(found, prereleases=True) for clause in floors) else str(wanted)


def _packages(extra: str) -> Iterator[Requirement]:
    """What an extra brings, and the extras that it names."""
    for each in _requirements():
        if each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""}):
            own = _plain(each.name) == _PROGRAM
            for inner in each.extras if own else ():
                yield from _packages(inner)
            if not own:
                yield Requirement(str(each).partition(";")[0])


def _extras() -> list[str]:
    names = (re.findall(r"""extra == ['"]([\w.-]+)['"]""", str(each.marker)) for each in _requirements())
    return sorted({name for found in names for name in found})


@cache
def _requirements() -> tuple[Requirement, ...]:
    try:
        return tuple(map(Requirement, requires(_PROGRAM) or ()))
    except PackageNotFoundError:  # a folder on the path that nobody installed
        return ()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()

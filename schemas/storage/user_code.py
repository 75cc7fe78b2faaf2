"""Code of a user's own, named as FILE.py:NAME: a program that runs as the user.

Only the user's own command line or recipe names it, never data. Another process or machine gets its path and its
digest, not its code: it loads the file from that path, and refuses another one.
"""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from visavis.schemas.errors import UsageError
from visavis.schemas.untrusted import first_line
from visavis.schemas.words import candidates

_LARGEST = 1 << 20  # bytes of a file of code


def read_code(path: str, named: str, *, elsewhere: bool = False) -> bytes:
    """The bytes of a file of code.

    Args:
        named: what is said of it, as in `plugin FILE.py:NAME`. elsewhere: this may not be the machine where the work
            began, and is named.

    Raises:
        UsageError: it is no file of this machine, or larger than code is.
    """
    if "://" in path:
        raise UsageError(f"{named} must be a file of this machine")
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        where = f" on {socket.gethostname()}, and every machine of the cluster needs it" if elsewhere else ""
        raise UsageError(f"{named}: {path}: {error.strerror}{where}") from error
    if len(data) > _LARGEST:
        raise UsageError(f"{named} is larger than {_LARGEST >> 20} MB: no file of code")
    return data


def run_code(path: str, data: bytes, kind: str) -> ModuleType:
    """A file's code as a module, run once in a process; other code of the same path is another module.

    Raises:
        UsageError: it does not run; kind: of what is said not to load.
    """
    name = f"visavis_{kind}_{hashlib.sha256(path.encode() + data).hexdigest()[:16]}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__file__ = path
        sys.modules[name] = module
        try:
            exec(compile(data, path, "exec"), module.__dict__)  # noqa: S102 - the user's own program, by the user's word
        except Exception as error:
            del sys.modules[name]
            raise UsageError(f"{kind} {path} does not load: {type(error).__name__}: {first_line(error)}") from error
    return sys.modules[name]


def named_in(module: ModuleType, name: str, known: Sequence[str], named: str, what: str) -> Any:
    """What a module calls `name`.

    Args:
        known, what: names that there are of this kind, and what they are called, for the message.

    Raises:
        UsageError: it has nothing of that name.
    """
    if not hasattr(module, name):
        raise UsageError(f"{named} has no {name}; {candidates(name, known, what)}")
    return getattr(module, name)

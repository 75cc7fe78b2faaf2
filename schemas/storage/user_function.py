"""A function of the user's own, named as FILE.py:FUNCTION, that other processes and machines call, too."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visavis.schemas.errors import UsageError
from visavis.schemas.storage.user_code import named_in, read_code, run_code
from visavis.schemas.untrusted import first_line


class UserFunction:
    """Called as the function is; what it raises is told in one line. digest: sha256 of its file."""

    def __init__(self, code: str, kind: str, digest: str = "") -> None:
        """
        Args:
            code: FILE.py:FUNCTION.
            kind: what it is called in messages: scorer, labeller, metric.
            digest: that its file must have; as it goes to another process.

        Raises:
            UsageError: there is no such function, or its file is another one.
        """
        path, _, self.name = code.rpartition(":")
        self.named = f"{kind} {code}"
        if not path:
            raise UsageError(f"{self.named} is not FILE.py:FUNCTION")
        path = path if "://" in path else str(Path(path).expanduser().absolute())
        data = read_code(path, self.named, elsewhere=bool(digest))
        self.digest = hashlib.sha256(data).hexdigest()
        if digest not in ("", self.digest):
            raise UsageError(f"{self.named} is another one on {socket.gethostname()} than where the run began")
        module = run_code(path, data, kind)
        own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        self._function: Callable[..., Any] = named_in(module, self.name, own, self.named, "function")
        if not callable(self._function):
            raise UsageError(f"{self.named} is no function")
        self.code, self._kind = f"{path}:{self.name}", kind

    def __reduce__(self) -> tuple[Any, ...]:
        return UserFunction, (self.code, self._kind, self.digest)

    def __call__(self, *given: Any) -> Any:
        """Raises UsageError where the function raises anything."""
        try:
            return self._function(*given)
        except Exception as error:
            raise UsageError(f"{self.named} raised {type(error).__name__}: {first_line(error)}") from error

"""A folder that one process has for itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from visavis.schemas.errors import UsageError

_LOG = logging.getLogger(__name__)


@contextmanager
def held(folder: Path, by: str, remedy: str) -> Iterator[None]:
    """Hold a folder, which is made where there is none. On a file system without locks nobody is kept out.

    Args:
        by: what may be at work in it; remedy: what to do then.

    Raises:
        UsageError: somebody is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / ".lock").acquire(timeout=0))
        except Timeout as error:
            raise UsageError(f"{folder} is in use by another {by}; {remedy}") from error
        except (OSError, NotImplementedError):
            _LOG.debug("%s cannot be locked", folder)
        yield

"""The token that guards this user's Ray clusters: in a file that nobody else can read.

A process with the token runs what it likes as the user whose cluster it is. Ray makes the file when it needs one, with
the rights that all files have, so it is made here before Ray looks for it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from visavis.schemas.errors import UsageError
from visavis.schemas.uris import printable

_NAME = "auth_token"
_LOG = logging.getLogger(__name__)


def ensure_token(*, local: bool) -> None:
    """See to it that `~/.ray/auth_token` is its user's alone, and make it for a cluster of this machine.

    Where a token is named otherwise (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH), or none is wanted (RAY_AUTH_MODE=disabled),
    nothing happens. In a home that cannot be written the token is in the environment of this process alone.

    Args:
        local: for a cluster that is started here. To join another, a file that is there is made private, if it may be.

    Raises:
        UsageError: what lies there is somebody else's, or a link.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    folder = Path.home() / ".ray"
    try:
        if local:
            folder.mkdir(mode=0o700, exist_ok=True)
        with _opened(folder, folder, os.O_DIRECTORY) as inside:
            if local:
                _make(inside)
            with _opened(folder / _NAME, _NAME, os.O_NOFOLLOW, inside):
                return
    except UsageError:
        if local:
            raise
    except OSError:
        if local:
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextlib.contextmanager
def _opened(path: Path, name: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    """A file or folder that is ours, made private. A link to a folder of one's own is one's own affair."""
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.ENXIO):
            raise _foreign(path) from error
        raise
    try:
        found = os.fstat(handle)
        kind = stat.S_ISDIR if flags & os.O_DIRECTORY else stat.S_ISREG
        if not kind(found.st_mode) or found.st_uid != os.geteuid():
            raise _foreign(path)
        if found.st_mode & 0o077:
            os.fchmod(handle, found.st_mode & 0o700)
            if kind is stat.S_ISREG:
                _LOG.warning("%s could be read by others until now; remove it for a new one", printable(str(path)))
        yield handle
    finally:
        os.close(handle)


def _make(folder: int) -> None:
    """A token, unless there is one. It is complete when it appears: another build may start at the same moment."""
    draft = f".{_NAME}-{secrets.token_hex(8)}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, _NAME, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.unlink(draft, dir_fd=folder)


def _foreign(path: Path) -> UsageError:
    return UsageError(
        f"{printable(str(path))}, where Ray keeps its token, is a link, or belongs to somebody else: remove it,"
        " or set RAY_AUTH_TOKEN_PATH to a file of your own"
    )

"""A home for processes that have none: containers that run under a number that no one gave a name, read-only homes.

Libraries keep caches in the home folder and fail, or say so on every start, where there is none or it cannot be
written: `pathlib.Path.home`, `getpass.getuser` (torch.compile), matplotlib.
"""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path


def ensure_home() -> None:
    """Set HOME, LOGNAME and MPLCONFIGDIR where they would be needed and are missing. Before libraries are imported."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        os.environ["LOGNAME"] = f"uid{os.getuid()}"
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("/")
    if os.access(home, os.W_OK) and home != Path("/"):
        return
    own = own_folder(tempfile.gettempdir())
    if not home.is_dir() or home == Path("/"):  # one that can only be read may hold models
        os.environ["HOME"] = own
    os.environ.setdefault("MPLCONFIGDIR", own)


def own_folder(where: str) -> str:
    """A folder in `where` that is this user's alone; the same for all processes."""
    folder = Path(where) / f"visavis-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if not is_private(folder):  # somebody was here before us
        return tempfile.mkdtemp(prefix="visavis-", dir=where)
    return str(folder)


def is_private(folder: Path) -> bool:
    """Whether it is this user's folder, and no link, and nobody else may look into it."""
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077

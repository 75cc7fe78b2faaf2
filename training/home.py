"""A home for processes that have none: containers that run under a number that no one gave a name, read-only homes.

Libraries keep caches in the home folder and fail, or say so on every start, where there is none or it cannot be
written: `pathlib.Path.home`, `getpass.getuser` (torch.compile), matplotlib.
"""

from __future__ import annotations

import getpass
import os
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
    own = _own_folder()
    if not home.is_dir() or home == Path("/"):  # one that can only be read may hold models
        os.environ["HOME"] = own
    os.environ.setdefault("MPLCONFIGDIR", own)


def _own_folder() -> str:
    """A folder for temporary files that is this user's alone; the same for all processes."""
    folder = Path(tempfile.gettempdir()) / f"visavis-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:  # somebody was here before us
        return tempfile.mkdtemp(prefix="visavis-")
    return str(folder)

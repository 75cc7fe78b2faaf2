"""What every process of ours sets before libraries are imported: a home where there is none, and that nobody reports.

Containers may run under a number that no one gave a name, or with a home that can only be read. Libraries keep caches
there and fail, or say so on every start: `pathlib.Path.home`, `getpass.getuser` (torch.compile), matplotlib.

Several libraries report to their makers who uses them and how: onnxruntime keeps a number for the machine in the home
folder and sends it along. A lab's corpus is nobody else's business.
"""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path

_NO_REPORTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYANNOTE_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def report_nothing() -> None:
    """Keep libraries from sending reports, as far as the user has not set it otherwise. Before they are imported."""
    for name, value in _NO_REPORTS.items():
        os.environ.setdefault(name, value)


def ensure_home() -> None:
    """`report_nothing`, and set HOME, LOGNAME and MPLCONFIGDIR where they are needed and missing.

    Before libraries are imported.
    """
    report_nothing()
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

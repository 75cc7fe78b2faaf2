"""What tells a file from a later one of the same name: its size and when it was changed."""

from __future__ import annotations

import os
from typing import Any


def stamp_of(path: str) -> str:
    """Size and modification time of a local file, `absent` where there is none; a link's are its target's."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a million times
    except (OSError, ValueError):
        return "absent"
    return f"{found.st_size}:{found.st_mtime or ''}"


def remote_stamp(info: dict[str, Any]) -> str:
    """The same of a file elsewhere, as its file system describes it."""
    changed = next((info[k] for k in ("ETag", "mtime", "LastModified", "last_modified", "updated") if info.get(k)), "")
    return f"{info.get('size')}:{changed}"

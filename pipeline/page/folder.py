"""A page's folder: it appears when it is whole, and takes the place of an earlier one; nobody else's is touched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from visavis.schemas.errors import UsageError
from visavis.schemas.storage.faults import about

MARK = ".visavis-page"
"""A file by which a page's folder is known as one that may be replaced."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder to write into; it is renamed to `out` when the block ends well, and removed when it raises.

    Raises:
        UsageError: `out` is a file, a link, or a folder with something in it that no page of ours is.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / MARK).is_file()))):
        raise UsageError(f"{out} is not a page that `visavis` wrote, and is not touched; choose another --out")
    with about(str(out)):
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = out.with_name(f".tmp-{uuid4().hex[:12]}")
        unfinished.mkdir()
    try:
        (unfinished / MARK).write_text("A page of visavis: it may be replaced by a later one.\n")
        yield unfinished
        _exchange(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _exchange(new: Path, out: Path) -> None:
    """An earlier page is moved aside first, as no folder is renamed onto one that is not empty."""
    with about(str(out)):
        if not out.exists():
            new.rename(out)
            return
        aside = out.with_name(f".tmp-{uuid4().hex[:12]}")
        out.rename(aside)
        try:
            new.rename(out)
        except BaseException:
            aside.rename(out)
            raise
        shutil.rmtree(aside, ignore_errors=True)

"""A folder on a disk, and nothing outside of it: no symbolic link below it is followed.

A folder may come from others, and others may write into it while we work. So each part of a path is opened from the
folder before it (`openat`) and refused if it is a link: there is no moment between looking and opening, and whatever is
renamed meanwhile, what is opened was inside. The folder itself, and those above it, are the user's: they may be links.
Hard links are files like any other; FIFOs and devices are none.

Costs two system calls for each part of a path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from visavis.schemas.untrusted import bounded

LINK = "is a link, and links inside a folder are not followed; copy what it stands for, or remove it"

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # opening a FIFO does not wait for its writer
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path inside a folder.

    Raises:
        ValueError: absolute, empty, or it would leave the folder.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"{path!r} is not a path inside the store")
    return parts


@contextmanager
def folder_of(root: str, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The folder that holds an entry, as a descriptor, and the entry's name in it.

    Args:
        make: folders that are missing are made.

    Raises:
        OSError: with the full path; ELOOP where a part is a link.
    """
    *folders, name = parts_of(path)
    if make:
        Path(root).mkdir(parents=True, exist_ok=True)  # what is above it is the user's
    with _told(root, f"{root}/{path}"):
        at = os.open(root, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for depth, folder in enumerate(folders, 1):
            with _told(folder, f"{root}/{path}", at, f"{root}/{'/'.join(folders[:depth])}"):
                inner = _made(at, folder) if make else os.open(folder, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        yield at, name
    finally:
        os.close(at)


def open_inside(root: str, path: str) -> IO[bytes]:
    """A file, to be read.

    Raises:
        OSError: with the full path; ELOOP for a link, EINVAL for what is no file.
    """
    full = f"{root}/{path}"
    with folder_of(root, path) as (at, name), _told(name, full, at):
        opened = os.open(name, _READ, dir_fd=at)
    kind = os.fstat(opened).st_mode
    if stat.S_ISREG(kind):
        return os.fdopen(opened, "rb")
    os.close(opened)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), full)
    raise OSError(errno.EINVAL, "not a file", full)


def read_inside(root: str, path: str, most: int | None = None) -> bytes:
    """All bytes of a file.

    Raises:
        OSError: as `open_inside`.
        TooLarge: there are more than `most`. Nothing is read then.
    """
    with open_inside(root, path) as file:
        if most is not None:
            bounded(os.fstat(file.fileno()).st_size, most, "bytes")
        return file.read() if most is None else file.read(most)


@contextmanager
def replace_inside(root: str, path: str, temporary: str, *, fresh: bool = False) -> Iterator[IO[bytes]]:
    """A file that gets its name when the block ends well. Until then it has another one, which nobody had before.

    Args:
        fresh: nobody may have the name: of several at once that want it, one gets it (two within microseconds on a
            file system without hard links).

    Raises:
        FileExistsError: somebody has it.
    """
    full = f"{root}/{path}"
    with folder_of(root, path, make=True) as (at, name):
        try:
            with _told(temporary, full), os.fdopen(_begun(at, temporary), "wb") as file:
                yield file
                file.flush()
                _sync(file)
                if not (fresh and _linked(at, temporary, name)):
                    os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)  # a link is replaced, not followed
        finally:
            with suppress(OSError):  # gone; or the disk turned read-only, and that is told already
                os.unlink(temporary, dir_fd=at)


def _begun(at: int, temporary: str) -> int:
    """A new file, which `remove_left` leaves alone for as long as it is open."""
    while True:
        opened = os.open(temporary, _CREATE, 0o666, dir_fd=at)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        if os.fstat(opened).st_nlink:
            return opened
        os.close(opened)  # it was taken for a leftover before it was locked


def _linked(at: int, temporary: str, name: str) -> bool:
    """Give a file a second name, which nobody has. False: nobody has it, but the file system has no second names."""
    try:
        os.link(temporary, name, src_dir_fd=at, dst_dir_fd=at)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=at, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        return False
    return True


def remove_left(root: str, path: str) -> bool:
    """Remove a file that was begun, unless somebody is writing it still. Returns whether it was there and is gone."""
    with suppress(FileNotFoundError), folder_of(root, path) as (at, name), _told(name, f"{root}/{path}"):
        if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=at)
            return True
        with os.fdopen(os.open(name, _WRITE, dir_fd=at), "wb") as file:
            # Somebody else may have removed it before the lock was had, and a writer begun another one of that name.
            if not _is_locked(file) and os.path.samestat(os.fstat(file.fileno()), os.stat(name, dir_fd=at)):
                os.unlink(name, dir_fd=at)
                return True
    return False


def _is_locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        pass
    return False


def remove_inside(root: str, path: str) -> None:
    """Remove a file, or a link itself. Raises FileNotFoundError where there is none."""
    with folder_of(root, path) as (at, name), _told(name, f"{root}/{path}"):
        os.unlink(name, dir_fd=at)


def is_inside(root: str, path: str) -> bool:
    """Whether there is such a file or folder.

    Raises:
        OSError: a part is a link, or nobody can tell.
    """
    full = f"{root}/{path}"
    try:
        with folder_of(root, path) as (at, name), _told(name, full):
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, LINK, full)
    return True


def walk(root: str, folder: str = "") -> Iterator[str]:
    """Paths, relative to a folder inside the root, of all files at any depth below it; a link is one of them.

    In no particular order. A folder that goes away meanwhile is empty.

    Raises:
        OSError: the folder is a link.
    """
    pending = [""]
    while pending:
        below = pending.pop()
        with suppress(FileNotFoundError), _listed(root, f"{folder}/{below}".strip("/")) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{below}{entry.name}/")
                else:
                    yield below + entry.name


@contextmanager
def _listed(root: str, folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    if not folder:
        with os.scandir(root) as entries:
            yield entries
        return
    with folder_of(root, folder) as (at, name), _told(name, f"{root}/{folder}", at):
        opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        with os.scandir(opened) as entries:
            yield entries
    finally:
        os.close(opened)


def _made(at: int, folder: str) -> int:
    with suppress(FileExistsError):
        os.mkdir(folder, dir_fd=at)
    return os.open(folder, _FOLDER, dir_fd=at)


def _sync(file: IO[bytes]) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # file systems that cannot promise more
            raise


@contextmanager
def _told(name: str, full: str, at: int | None = None, link: str = "") -> Iterator[None]:
    """An error about `name` names the whole path instead; and the link, if there is one of that name in `at`."""
    try:
        yield
    except OSError as error:
        if at is not None and error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(at, name):
            raise OSError(errno.ELOOP, LINK, link or full) from error
        if error.errno is None or error.filename not in (None, name):
            raise
        raise OSError(error.errno, error.strerror, full) from error


def _is_link(at: int, name: str) -> bool:
    with suppress(OSError):
        return stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
    return False

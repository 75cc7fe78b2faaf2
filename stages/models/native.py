"""Native libraries: their chatter is kept off the user's terminal, MediaPipe's heap small, and its use unreported."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Iterator
from importlib.metadata import version

from packaging.version import Version

from visavis.stages.models.wheels import is_inside

_REPORTS_SINCE = Version("0.10.35")
_NOBODY = "http://127.0.0.1:9"  # the port of "discard"
_M_ARENA_MAX = -8  # malloc.h


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Nothing reaches stderr inside the block, not from C++ either; errors come as exceptions all the same."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def prepare_mediapipe() -> None:
    """To be called before MediaPipe is imported.

    glibc is told to keep one heap for all threads. MediaPipe's hand pictures on to each other, and with a heap for each
    the freed ones pile up: the same 88 s of video took between 0.3 and 2.1 GB; this way 0.3 GB, and no more time.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.suppress(AttributeError, OSError):  # other C libraries have no such setting
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def has_graphs() -> bool:
    """Whether the MediaPipe that is installed runs graphs from Python, as it did until 0.10.21."""
    return is_inside("mediapipe", "python/__init__.py")


def report_no_use() -> None:
    """Keep MediaPipe's later versions from reporting to their maker that they are used. Before they are imported.

    They do so over HTTPS, and have no switch for it (google-ai-edge/mediapipe#6291); without a network
    it fails in silence. Their copy of libcurl asks the environment for a proxy whenever it connects: in that of C,
    which Python's libraries do not look at, stands one where nobody listens. The trade-off: programs that this process
    starts with its own environment inherit it.
    """
    if Version(version("mediapipe")) < _REPORTS_SINCE:
        return
    with contextlib.suppress(AttributeError, OSError):
        setenv = ctypes.CDLL(None).setenv
        setenv(b"https_proxy", _NOBODY.encode(), 1)
        setenv(b"no_proxy", b"127.0.0.1", 1)

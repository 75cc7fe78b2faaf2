"""UniLSTalk (arXiv 2512.09327): an LMDB whose records are the bytes of `np.savez`, read without pickle.

`motioncode` [T, 111 or more] at 25 frames a second: FLAME's expression 0–99, the head 100–102, the jaw 103–105, the
eyes 106–111 (three for each; the last, a roll that is 0, may be absent). `audio` [N], one voice at 16 kHz.
`speech_mask` [T], when the person speaks.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.extras import install
from visavis.schemas.names import LONGEST_NAME
from visavis.schemas.untrusted import bounded, parsing
from visavis.schemas.uris import local_path
from visavis.stages.corpora.coefficients import LARGEST_ARRAY, Taken, table_of
from visavis.stages.media.npz import read_members

EXPRESSION, COLUMNS = 100, 112
_POSE, _JAW, _EYES = slice(100, 103), slice(103, 106), slice(106, 112)
_RECORD = 1 << 30  # bytes


def read_code(uri: str, key: str, exp: int) -> Taken:
    """Motion of one person; the first `exp` coefficients of expression.

    Raises:
        Rejected: UNREADABLE.
    """
    code, mask = _members(uri, key, ("motioncode",))[0], _mask(uri, key)
    code = table_of(code, "motioncode", key, COLUMNS - 1)
    if code.shape[1] < COLUMNS:
        code = np.concatenate([code, np.zeros((len(code), 1), code.dtype)], axis=1)
    parts = {"exp": code[:, :exp], "jaw": code[:, _JAW], "pose": code[:, _POSE], "eyes": code[:, _EYES]}
    if mask is not None and mask.shape != (len(code),):
        raise Rejected(Reason.UNREADABLE, f"{key}: speech_mask is {mask.shape} beside {len(code)} frames")
    return Taken(parts, speaks_T=mask)


def read_voice(uri: str, key: str) -> np.ndarray:
    """float32 [N] in −1…1 at 16 kHz.

    Raises:
        Rejected: UNREADABLE, NO_AUDIO.
    """
    (audio_N,) = _members(uri, key, ("audio",), Reason.NO_AUDIO)
    if audio_N.dtype.kind == "i" and audio_N.dtype.itemsize == 2:
        audio_N = audio_N / np.float32(32768)
    audio_N = audio_N.reshape(-1).astype(np.float32)
    if audio_N.size < SAMPLES_PER_FRAME or not np.isfinite(audio_N).all():
        raise Rejected(Reason.UNREADABLE, f"{key}: audio is {audio_N.size} samples, or not finite")
    return audio_N


def _mask(uri: str, key: str) -> np.ndarray | None:
    with parsing(lambda why: Rejected(Reason.UNREADABLE, f"{key}: {why}")):
        found = read_members(io.BytesIO(_record(uri, key)), ("speech_mask",), LARGEST_ARRAY)
    return None if found is None else found[0].reshape(-1) > 0.5


def _members(uri: str, key: str, names: tuple[str, ...], absent: Reason = Reason.UNREADABLE) -> tuple[np.ndarray, ...]:
    with parsing(lambda why: Rejected(Reason.UNREADABLE, f"{key}: {why}")):
        found = read_members(io.BytesIO(_record(uri, key)), names, LARGEST_ARRAY)
        if found is None:
            raise Rejected(absent, f"{key}: no {names[0]} in its record")
        return found


def _record(uri: str, key: str) -> bytes:
    with database(local_path(uri)).begin(buffers=True) as look:
        data = look.get(key.encode()[:LONGEST_NAME])
        if data is None:
            raise Rejected(Reason.UNREADABLE, f"{key}: no such record")
        bounded(len(data), _RECORD, "bytes of a record")
        return bytes(data)


@lru_cache(8)
def database(path: str) -> Any:
    """An LMDB on this machine, to be read; one handle in a process, as its library wants.

    Raises:
        UsageError: the library is not installed.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UsageError(f"{path}: reading an LMDB needs what is not installed here: {install('corpora')}") from error

    return lmdb.open(path, readonly=True, lock=False, readahead=False, create=False)

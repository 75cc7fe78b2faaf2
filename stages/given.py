"""Files of models that a recipe names: read whole, known by their content, and told apart from other ones."""

from __future__ import annotations

import hashlib

from schemas.errors import Rejected, RunFailed, UsageError
from schemas.faults import Blame, blame_of
from stages.media import open_bytes


def read_given(setting: str, uri: str, sha256: str | None = None, remedy: str = "") -> bytes:
    """The file that a setting names, a path or URL.

    Args:
        sha256: what its content must have, from the setting of the same name with `_sha256`. remedy: where to get it.

    Raises:
        UsageError: it is not there, may not be read, or is another file.
        RunFailed: its store cannot be reached now.
    """
    try:
        with open_bytes(uri) as file:
            data = file.read()
    except (Rejected, PermissionError) as error:
        raise UsageError(f"{setting}: {error}{remedy and '; '}{remedy}") from error
    except OSError as error:
        kind = UsageError if blame_of(error) is Blame.USER else RunFailed
        raise kind(f"{setting}: {uri} cannot be read ({error.strerror or error})") from error
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256:
        raise UsageError(
            f"{setting}: {uri} has sha256 {digest[:12]}…, not {sha256[:12]}…;"
            f" fetch it again, or set {setting}_sha256 if it is another one on purpose"
        )
    return data


def short_digest(data: bytes) -> str:
    """What a file is, wherever it lies: 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:16]

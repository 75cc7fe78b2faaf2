"""What names and numbers of others may look like: those in manifests, samples, artifacts and plans.

Names become paths, lines of a message and keys of a ledger; numbers become sizes of arrays and of models. So names have
patterns and numbers have bounds, far beyond what there is. People's names are free, in any language, as long as they
can be printed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from schemas.uris import printable

LARGEST_FILE = 4 << 30
"""Bytes of a file of a dataset. Shards have some 256 MB."""

LONGEST_NAME = 500
"""Characters of a participant's name."""


def _printed(name: str) -> str:
    if printable(name) != name:
        raise ValueError("a name that cannot be printed")
    return name


ItemId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
"""Of a conversation (16 hexadecimal digits) or a window."""
CodecId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ParticipantName = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_printed)]
Text = Annotated[str, Field(max_length=LONGEST_NAME), AfterValidator(_printed)]
"""A word or a line of others."""
Count = Annotated[int, Field(strict=True, ge=0, le=2**48)]
FileSize = Annotated[int, Field(strict=True, ge=0, le=LARGEST_FILE)]

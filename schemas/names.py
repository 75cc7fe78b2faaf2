"""What names and numbers of others may look like: those in manifests, samples, artifacts and plans.

Names become paths, lines of a message and keys of a ledger; numbers become sizes of arrays and of models. So names have
patterns and numbers have bounds, far beyond what there is. People's names are free, in any language, as long as they
can be printed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

LARGEST_FILE = 4 << 30
"""Bytes of a file of a dataset. Shards have some 256 MB."""

LONGEST_NAME = 1000
"""Characters of a participant's name."""


def is_name(text: str) -> bool:
    """Text of one line, in any language, without control characters or bytes that are no text."""
    if len(text) > LONGEST_NAME:
        return False
    return text.isprintable() or not any(c < " " or "\x7f" <= c < "\xa0" or "\ud800" <= c < "\ue000" for c in text)


def _named(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"a name of one line, without control characters, of at most {LONGEST_NAME} characters")
    return text


ItemId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
"""Of a conversation (16 hexadecimal digits) or a window."""
CodecId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, AfterValidator(_named)]
"""A person's name, or a word or a line of others."""
Count = Annotated[int, Field(strict=True, ge=0, le=2**48)]
FileSize = Annotated[int, Field(strict=True, ge=0, le=LARGEST_FILE)]

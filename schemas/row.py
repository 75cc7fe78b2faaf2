"""What all rows are: frozen pydantic models of plain values, other rows, tuples of rows, and numpy arrays."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict


def _as_array(value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"expected a numpy array, got {type(value).__name__}")
    return np.ascontiguousarray(value)


Array = Annotated[np.ndarray, BeforeValidator(_as_array)]


class Row(BaseModel):
    """Base of all rows: frozen, and no unknown field gets in."""

    # Errors without what was given: cut to a few characters, a key in it would not be known as one.
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True)

    # Fields of text that came later. Where they say nothing they are not written, so digests of older rows still hold.
    later: ClassVar[frozenset[str]] = frozenset()


class Head(Row):
    """Some plain fields of a larger row, to be had from the first bytes of its artifact without its arrays."""

    whole: ClassVar[type[Row]]

"""How windows are sampled, beside what the sampler does: precision, how many together, graphs. And what is kept of it.

Same seed, weights, card and `Sampling`: same bytes. Another precision, batch or card changes last bits, no more.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from visavis.schemas.markers import Runtime
from visavis.schemas.names import Text
from visavis.schemas.section import Section

Precision = Literal["float32", "tf32", "bfloat16"]
"""Of matrix products. tf32: of numbers cut to 10 bits of mantissa, summed in float32. bfloat16: the transformer's of 7
bits, and the rest in tf32 where there is one."""
LARGEST_BATCH = 65_536


class SamplingConfig(Section):
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = Field(
        "auto",
        description="of matrix products in sampling; auto: float32 on a CPU; on a GPU bfloat16 for pairs, tf32 for"
        " figures; tf32 needs a GPU",
    )
    batch: int | None = Field(
        None,
        ge=1,
        le=LARGEST_BATCH,
        description="windows sampled together; none: on a GPU as many as its free memory holds, at most 256; on a CPU"
        " 64 for pairs, 32 for figures",
    )
    graph: Annotated[bool | None, Runtime] = Field(
        None, description="capture the blocks of a batch as CUDA graphs; none: on a GPU"
    )


class Sampling(BaseModel):
    """What was settled. device: name of the card, or `cpu`. graphs: blocks are captured, and a batch that is not full
    is filled up to a power of two."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    device: Text
    precision: Precision
    batch: int = Field(strict=True, ge=1, le=LARGEST_BATCH)
    graphs: bool = Field(strict=True)

    def __str__(self) -> str:
        graphs = ", as graphs" if self.graphs else ""
        return f"sampled in {self.precision} on {self.device}, {self.batch} windows at a time{graphs}"

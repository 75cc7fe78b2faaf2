"""What a section of a configuration is: frozen typed data that refuses what it does not know."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from visavis.schemas.markers import Runtime

Device = Annotated[Literal["auto", "cpu", "cuda"], Runtime]


class Section(BaseModel):
    """Base of all configuration: frozen, no unknown keys, numbers that are finite and no booleans.

    A section with nothing in it, as is left when all its lines are comments, has its defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        for name, value in values.items():
            if isinstance(value, bool) and name in fields and bool not in _kinds(fields[name]):
                raise ValueError(f"{name} is {str(value).lower()}, which is no value for it")
        return {k: v for k, v in values.items() if not (v is None and k in fields and _has_entries(fields[k]))}


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    return (field.annotation, *get_args(field.annotation))


def _has_entries(field: FieldInfo) -> bool:
    """True for a section, and for a mapping."""
    kind = field.annotation
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, BaseModel))

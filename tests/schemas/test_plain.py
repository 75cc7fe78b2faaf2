"""JSON that every reader takes, and records whose types can be learnt from any few of them."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tests.schemas.test_encodings import make_sample
from tests.training.synthetic import as_pair, sample
from visavis.schemas.errors import DatasetError
from visavis.schemas.face_rows import Figures
from visavis.schemas.manifest import Histogram, MotionSpec, parse_manifest
from visavis.schemas.pairs import PairRecord
from visavis.schemas.plain import dump_record, load_record, read_strict, to_json
from visavis.schemas.sample import SampleMeta, decode_sample, encode_sample
from visavis.schemas.voice_rows import VoiceFigures

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def refuse(token: str) -> float:
    raise AssertionError(f"{token} is not JSON")


@given(plain, st.booleans())
def test_whatever_is_written_is_json(data: Any, sort: bool) -> None:
    def as_null(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {name: as_null(each) for name, each in value.items()}
        return [as_null(each) for each in value] if isinstance(value, list) else value

    text = to_json(data, sort_keys=sort)
    assert text.isascii()
    assert json.loads(text, parse_constant=refuse) == as_null(data)
    assert read_strict(text) == as_null(data)


def test_a_name_of_any_bytes_can_be_written() -> None:
    name = b"caf\xe9.mp4".decode(errors="surrogateescape")
    assert json.loads(to_json({"uri": name}).encode()) == {"uri": name}


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_json_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        read_strict(f'{{"a": [{token}]}}')
    with pytest.raises(DatasetError, match="not a manifest"):
        parse_manifest(f'{{"schema_version": {token}}}'.encode())


@pytest.mark.parametrize("number", [math.nan, math.inf, 1e999])
def test_manifest_and_records_hold_finite_numbers_only(number: float) -> None:
    with pytest.raises(ValidationError):
        Histogram(low=number, high=1, counts=())
    with pytest.raises(ValidationError):
        SampleMeta.model_validate(meta().model_dump() | {"weight": number})
    text = dump_record(meta()).replace(b'"weight": 0.5', b'"weight": 1e999')
    with pytest.raises(ValueError, match="1e999 is no finite number"):
        load_record(text, SampleMeta)
    unseen = Figures(**dict.fromkeys(Figures.model_fields, number))
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_record(meta(avatar_figures=unseen))


def test_a_scale_of_zero_is_no_scale() -> None:
    fine: dict[str, Any] = {
        "codec": "c", "dim": 1, "rotation": (0, 0), "translation": (0, 0), "expression": (0, 1),
        "mean": (0,), "std": (1,),
    }  # fmt: skip
    MotionSpec(**fine)
    for change in ({"std": (0,)}, {"std": ()}, {"mean": (0, 0)}, {"std": (-1,)}):
        with pytest.raises(ValidationError, match="above 0"):
            MotionSpec(**fine | change)


FIGURES = Figures(**dict.fromkeys(Figures.model_fields, 0.5))
VOICES = [
    VoiceFigures(method="mask", residual_db=-20, overlapped=0.1),
    VoiceFigures(method="own_track", residual_db=None, overlapped=1),
    None,
]


def meta(**changes: Any) -> SampleMeta:
    return make_sample().meta.model_copy(update=changes)


def every_meta() -> list[SampleMeta]:
    """All combinations of what may be unknown."""
    fields = ("avatar_figures", "user_figures", "avatar_voice", "user_voice")
    values = itertools.product([FIGURES, None], [FIGURES, None], VOICES, VOICES)
    return [meta(**dict(zip(fields, each, strict=True))) for each in values]


def every_pair() -> list[PairRecord]:
    record = as_pair(sample(0)).pair
    assert record is not None
    changes = itertools.product(
        [None, -0.25],
        [(), ("user_audio",), ("avatar_audio", "user_audio", "user_motion")],
        [{"scores": None, "chosen_seed": None}, {"scores": (0.5, -0.25), "chosen_seed": 3, "scorer": "reactivity"}],
    )
    return [
        record.model_copy(update={"event_margin": margin, "dropped": words, **scored})
        for margin, words, scored in changes
    ]


@pytest.mark.parametrize("records", [every_meta(), every_pair()], ids=["meta", "pair"])
def test_any_few_records_teach_the_types_of_all(records: list[BaseModel]) -> None:
    """As `datasets` and pandas learn them: from whichever five come first."""
    rows = [json.loads(dump_record(record)) for record in records]
    schema = pa.Table.from_pylist(rows).schema
    nulls = [field for field in schema if "null" in str(field.type)]
    assert nulls == []
    for row in rows:
        assert pa.Table.from_pylist([row]).schema.equals(schema)


@pytest.mark.parametrize("record", [*every_meta(), *every_pair()])
def test_records_come_back_as_they_were(record: BaseModel) -> None:
    data = dump_record(record)
    assert load_record(data, type(record)) == record
    assert dump_record(load_record(data, type(record))) == data


@pytest.mark.parametrize("record", [*every_meta(), *every_pair()])
def test_older_records_with_null_and_lists_are_read(record: BaseModel) -> None:
    older = record.model_dump(mode="json")
    if isinstance(record, PairRecord):
        older["dropped"] = list(record.dropped)
    assert load_record(json.dumps(older).encode(), type(record)) == record


def test_every_optional_field_of_a_sample_is_covered() -> None:
    """A field that is added one day must be in the combinations above."""

    def optional(kind: type[BaseModel], path: str = "") -> set[str]:
        found = set()
        for name, field in kind.model_fields.items():
            inner = [each for each in (get_args(field.annotation) or (field.annotation,)) if each is not type(None)]
            if type(None) in get_args(field.annotation):
                found.add(path + name)
            if isinstance(inner[0], type) and issubclass(inner[0], BaseModel):
                found |= optional(inner[0], f"{path}{name}.")
        return found

    said = {
        name for record in (*every_meta(), *every_pair()) for name in json.loads(dump_record(record))["unknown"].split()
    }
    assert said == optional(SampleMeta) | optional(PairRecord)


@pytest.mark.parametrize("unknown", [b"nowhere.name", b"label.x", b"conversation"])
def test_a_record_that_names_the_wrong_unknown_is_refused(unknown: bytes) -> None:
    members = encode_sample(make_sample())
    damaged = members["meta.json"].replace(b'"unknown": "', b'"unknown": "' + unknown + b" ")
    with pytest.raises(DatasetError, match="sample k: "):
        decode_sample("k", members | {"meta.json": damaged})

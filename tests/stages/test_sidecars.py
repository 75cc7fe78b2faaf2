"""What lies beside a video of the Seamless Interaction corpus: spans of speech, and boxes of a person."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from visavis.schemas.errors import Reason, Rejected
from visavis.stages.media.sidecars import read_boxes, read_vad


def vad_of(path: Path, **content: Any) -> Any:
    path.write_text(
        json.dumps({"id": "V00_S0809_I00000582_P0947"} | {f"metadata:{name}": value for name, value in content.items()})
    )
    return read_vad(str(path), end=13.0)


def test_spans_of_speech(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    spans = [{"start": 9.5, "end": 12.25}, {"start": 1, "end": 2.5, "more": "x"}, {"start": 5.0, "end": 5.0}]
    words = [{"words": [{"word": "Hm", "start": None, "end": None}], "start": 9.6, "end": 12.0, "transcript": "Hm"}]
    assert vad_of(path, vad=spans, transcript=words) == ((1.0, 2.5), (9.5, 12.25))
    assert vad_of(path, vad=[]) is None  # nobody listened, or nobody speaks: our own ears will tell
    assert vad_of(path) is None
    assert vad_of(path, vad=spans, transcript=[{"start": 20.0, "end": 31.0}, {"start": None, "end": 4}]) is None


@pytest.mark.parametrize("unit", [1_000, 16_000, 48_000])
def test_spans_in_milliseconds_or_samples_are_not_believed(tmp_path: Path, unit: int) -> None:
    spans = [{"start": 1.0, "end": 2.5}, {"start": 9.5, "end": 12.25}]
    other = [{name: unit * value for name, value in span.items()} for span in spans]
    assert vad_of(tmp_path / "a.json", vad=spans) is not None
    assert vad_of(tmp_path / "a.json", vad=other) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "\x00", '{"metadata:vad": [[1, 2]]}', '{"metadata:vad": [{"start": NaN, "end": 2}]}', "[" * 9999],
)
def test_annotations_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(Rejected, match=r"a\.json: ") as error:
        read_vad(str(tmp_path / "a.json"), end=13.0)
    assert error.value.reason is Reason.UNREADABLE
    assert "\n" not in str(error.value)


def arrays(boxes: Any, valid: Any, **more: Any) -> dict[str, Any]:
    named = {"boxes_and_keypoints:box": boxes, "boxes_and_keypoints:is_valid_box": valid} | more
    return {name: np.asarray(value) for name, value in named.items() if value is not None}


def test_boxes_of_pictures_at_30_fps_are_looked_up_at_full_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    boxes_P4 = np.repeat(np.arange(100, dtype=np.float32)[:, None], 4, axis=1)
    valid_P = np.ones(100, bool)
    valid_P[60], boxes_P4[60] = False, 0
    keypoints = np.zeros((100, 133, 3), np.float32)
    np.savez_compressed(path, **arrays(boxes_P4, valid_P, **{"boxes_and_keypoints:keypoints": keypoints}))
    boxes_S4 = read_boxes(str(path), 0.1, 3.3, 30.0)
    assert boxes_S4 is not None
    np.testing.assert_array_equal(boxes_S4[:, 0], [np.nan, 27, 57, 87])
    boxes_S4 = read_boxes(str(path), 0.0, 5.0, 30.0)  # more pictures than boxes
    assert boxes_S4 is not None
    np.testing.assert_array_equal(boxes_S4[:, 3], [0, 30, np.nan, 90, np.nan, np.nan])


@pytest.mark.parametrize("rate", [10, 15, 24, 25, 30000 / 1001, 30, 60, 240])
@pytest.mark.parametrize("fps", [24, 25, 30000 / 1001, 30, 60])
def test_boxes_of_another_rate_than_the_pictures_lie_where_their_time_is(
    tmp_path: Path, rate: float, fps: float
) -> None:
    seconds = 61
    boxes_P4 = np.repeat(np.arange(round(rate * seconds), dtype=np.float32)[:, None] / rate, 4, axis=1)
    np.savez(tmp_path / "a.npz", **arrays(boxes_P4, np.ones(len(boxes_P4), bool)))
    boxes_S4 = read_boxes(str(tmp_path / "a.npz"), 0.0, seconds, fps)
    assert boxes_S4 is not None
    np.testing.assert_allclose(boxes_S4[:seconds, 0], np.arange(seconds), atol=0.1)


def test_boxes_that_are_far_too_many_are_not_believed(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(np.ones((1111, 4), np.float32), np.ones(1111, bool)))
    assert read_boxes(str(tmp_path / "a.npz"), 0.0, 10.0, 30.0) is None


@pytest.mark.parametrize(
    "content",
    [
        arrays(None, None, other=[1]),
        arrays(np.zeros((0, 4), np.float32), np.zeros(0, bool)),  # seen where a recording is empty
        arrays(np.ones((9, 4), np.float32), np.zeros(9, bool)),
    ],
)
def test_an_archive_without_boxes(tmp_path: Path, content: dict[str, Any]) -> None:
    np.savez(tmp_path / "a.npz", **content)
    assert read_boxes(str(tmp_path / "a.npz"), 0, 3, 30) is None


def _packed(**content: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


def _single() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        _single(),
        _packed(**arrays(np.ones((9, 4)), np.ones(9)))[:300],
        _packed(**arrays(np.ones((9, 4)), None)),
        _packed(**arrays(np.ones((9, 4)), np.ones(8))),
        _packed(**arrays(np.ones((9, 2)), np.ones(9))),
        _packed(**arrays(np.array([{}] * 9, object), np.ones(9))),  # would have to be unpickled
        _packed(**arrays(np.array([["a"] * 4] * 9), np.ones(9))),
        _packed(**arrays(np.ones((9, 4)), np.ones(9))).replace(b"NUMPY", b"MUMPY"),
    ],
)
def test_boxes_that_cannot_be_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(Rejected, match=r"a\.npz: ") as error:
        read_boxes(str(tmp_path / "a.npz"), 0, 3, 30)
    assert error.value.reason is Reason.UNREADABLE
    assert "\n" not in str(error.value)

"""One conversation in twenty-two awkward forms, made by ffmpeg's own encoders and muxers: what each is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import correlate

from tests.stages.test_awkward import worth
from visavis.schemas import SAMPLE_RATE
from visavis.schemas.errors import Reason
from visavis.stages.media.audio import read_audio
from visavis.stages.media.video import frames_on_grid

pytestmark = pytest.mark.nightly("a real film in 22 containers; made ones are in test_clock.py and test_containers.py")

VARIANTS: dict[str, int | Reason] = {
    "-leading-dash.mp4": 200,
    "audio_half_length.mp4": Reason.AV_LENGTH_MISMATCH,
    "audio_late_500ms.mp4": 200,
    "audio_only.m4a": Reason.NO_VIDEO,
    "av1_opus.mkv": 100,
    "bitflips.mp4": 200,
    "fps2997_mono8k.mp4": 200,
    "hevc_51.mp4": 200,
    "moov_end.mp4": 200,
    "mpegts.ts": 200,
    "name with spaces & ünïcode.mp4": 200,
    "no_audio.mp4": Reason.NO_AUDIO,
    "rotated_meta_90.mp4": 200,
    "silent_track.mp4": 200,
    "tenbit_flac.mkv": 200,
    "text_as.mp4": Reason.UNREADABLE,
    "truncated_faststart.mp4": 103,
    "truncated_no_moov.mp4": Reason.UNREADABLE,
    "two_frames.mp4": Reason.NO_AUDIO,
    "vfr_dropped_gap.mp4": 200,
    "vp9_opus.webm": 200,
    "zero_byte.mp4": Reason.UNREADABLE,
}
"""Frames of the grid, or why there are none."""


def test_every_variant_is_worked_on_or_rejected_with_the_right_reason(variants: Path) -> None:
    assert {path.name: worth(path) for path in variants.iterdir()} == VARIANTS


@pytest.mark.parametrize("name", [name for name, outcome in VARIANTS.items() if isinstance(outcome, int)])
def test_whatever_the_container_the_same_is_seen_and_heard_at_the_same_time(name: str, variants: Path) -> None:
    plain, other = variants / "moov_end.mp4", variants / name
    assert abs(shift_of_pictures(plain, other)) <= (1 if name == "vfr_dropped_gap.mp4" else 0)
    if name == "silent_track.mp4":
        assert not read_audio(str(other), 75).any()
        return
    late = 0.5 if name == "audio_late_500ms.mp4" else 0.0
    shift, alike = shift_of_sound(plain, other)
    assert abs(shift - late) <= 0.02  # MPEG-TS does not tell the 10 ms by which an MP2 encoder is late
    assert alike > 0.95


def shift_of_pictures(one: Path, other: Path) -> int:
    """Frames by which the other is late."""
    one_THW3, other_THW3 = (
        np.stack([rgb.astype(np.int16) for _, rgb in frames_on_grid(str(path), 25, 85, max_side=160)])
        for path in (one, other)
    )
    inner = one_THW3[3:-3]
    errors = {shift: np.abs(other_THW3[3 + shift :][: len(inner)] - inner).mean() for shift in range(-3, 4)}
    return min(errors, key=lambda shift: errors[shift])


def shift_of_sound(one: Path, other: Path) -> tuple[float, float]:
    """(seconds by which the other is late, correlation at that place)."""
    first, second = (read_audio(str(path), 75) for path in (one, other))
    lags = correlate(second, first, method="fft")
    shift = int(lags.argmax()) - (len(first) - 1)
    first, second = (
        first[max(0, -shift) : len(first) - max(0, shift)],
        second[max(0, shift) : len(second) + min(0, shift)],
    )
    return shift / SAMPLE_RATE, float(np.corrcoef(first, second)[0, 1])

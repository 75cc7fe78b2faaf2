"""Sound and motion stay where their time stamps say, however they come."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from visavis.pipeline.live.timeline import FRAME_MS, MotionLine, SoundLine

PIECE = 320  # samples, 20 ms


def test_sound_in_order_is_the_sound() -> None:
    line, sound_N = SoundLine(), np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    for at in range(0, len(sound_N), PIECE):
        line.add(at / 16, sound_N[at : at + PIECE])
    np.testing.assert_array_equal(line.frames(10, 20), sound_N[6400:12_800])


def test_a_gap_is_silence_of_its_length() -> None:
    line = SoundLine()
    line.add(0, np.ones(PIECE, np.float32))
    line.add(500, np.ones(PIECE, np.float32))  # 480 ms were lost
    heard_N = line.frames(0, 13)
    assert heard_N[:320].all()
    assert not heard_N[320:8000].any()
    assert heard_N[8000:8320].all()
    assert line.gaps == 8000 - 320


def test_what_comes_twice_or_late_does_not_move_what_is_known() -> None:
    line = SoundLine()
    line.add(0, np.ones(16_000, np.float32))
    line.add(100, np.full(PIECE, 9.0, np.float32))
    assert line.end == 16_000
    assert line.frames(0, 25).max() == 1


def test_a_sound_card_with_another_clock_is_followed_for_ten_minutes() -> None:
    """200 ppm, more than most are off by, and messages that come up to 3 ms late: a click is where it was heard."""
    random, worst = np.random.default_rng(1), 0
    for rate in (1.0002, 0.9998):
        line, clicks = SoundLine(), 0
        for piece in range(30_000):
            time = piece * 20 / rate + random.uniform(0, 3)
            samples_N = np.zeros(PIECE, np.float32)
            if piece % 500 == 250:
                samples_N[0] = 1
                clicks += 1
            line.add(time, samples_N)
            if piece % 500 == 251:
                frame = int(piece * 20 / rate // FRAME_MS)
                window_N = line.frames(frame - 3, frame + 1)
                found = (frame - 3) * 640 + int(window_N.argmax())
                worst = max(worst, abs(found - (piece - 1) * 320 / rate))
        assert clicks == 60
        assert line.gaps == 0
    assert worst < 16 * 6, f"{worst / 16:.1f} ms"


@given(st.lists(st.tuples(st.floats(0, 1e7), st.integers(1, 16_000)), max_size=30))
def test_whatever_the_times_memory_is_bounded_and_the_end_never_goes_back(pieces: list[tuple[float, int]]) -> None:
    line, end = SoundLine(), 0
    for time, count in pieces:
        line.add(time, np.ones(count, np.float32))
        assert line.end >= end
        end = line.end
        assert len(line._samples_N) <= 64_000
    assert np.isfinite(line.frames(max(0, end // 640 - 5), end // 640 + 5)).all()


def test_motion_is_read_on_the_grid_between_pictures_at_any_times() -> None:
    line = MotionLine(1)
    times = np.cumsum(np.random.default_rng(2).uniform(20, 70, 80))
    for time in times:
        line.add(time, np.array([time / 1000]), np.zeros(1))
    first, last = int(times[0] // FRAME_MS) + 1, int(times[-1] // FRAME_MS)
    expected = (np.arange(first, last) + 0.5) * FRAME_MS / 1000
    np.testing.assert_allclose(line.frames(first, last)[:, 0], expected, atol=1e-4)


def test_without_a_face_motion_holds_and_then_goes_to_rest() -> None:
    line = MotionLine(1)
    for time in range(0, 400, 40):
        line.add(time, np.array([1.0]), np.array([0.2]))
    motion_T = line.frames(0, 100)[:, 0]
    assert (motion_T[:20] == 1).all()  # half a second after the last picture
    assert abs(motion_T[-1] - 0.2) < 0.01
    assert np.abs(np.diff(motion_T)).max() < 0.1  # without a jump


def test_pictures_whose_times_go_back_do_not_count() -> None:
    line = MotionLine(1)
    line.add(100, np.array([1.0]), np.zeros(1))
    line.add(50, np.array([7.0]), np.zeros(1))
    assert line.frames(0, 10).max() == 1


def test_nobody_yet_is_at_rest() -> None:
    assert not MotionLine(3).frames(0, 12).any()

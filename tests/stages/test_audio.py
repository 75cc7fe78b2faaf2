"""Sound lies where its time stamps say, and turns become masks and states."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import read_audio, speech_state, turn_mask


def click(rate: int, seconds: float, at: float) -> np.ndarray:
    """Silence with a 2 ms burst centred at `at`."""
    time = np.arange(round(seconds * rate)) / rate - at
    return (0.8 * np.exp(-((time / 0.0005) ** 2)) * np.cos(2 * np.pi * 1500 * time)).astype(np.float32)


def centre(audio_N: np.ndarray, first: float = 0.0, last: float = 1e9) -> float:
    """Where the energy between two times lies, in seconds."""
    begin, end = round(first * SAMPLE_RATE), min(len(audio_N), round(last * SAMPLE_RATE))
    energy = audio_N[begin:end].astype(np.float64) ** 2
    return float((np.arange(begin, end) * energy).sum() / energy.sum() / SAMPLE_RATE)


def write_clip(path: Path, pieces: list[tuple[float, np.ndarray]], rate: int, codec: str = "aac") -> Path:
    """An mp4, mov or mkv with a second of video from 0 and pieces of sound at given times."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        audio = file.add_stream(codec, rate=rate, layout="stereo")
        integer = codec.startswith("pcm")
        for i in range(25):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            picture.pts = i
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
        for start, sound in pieces:
            for first in range(0, len(sound), 1024):
                block = sound[first : first + 1024]
                both = np.stack([block, block])
                samples = (both.T.reshape(1, -1) * 32767).astype(np.int16) if integer else both
                frame = av.AudioFrame.from_ndarray(samples, format="s16" if integer else "fltp", layout="stereo")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(start * rate) + first
                file.mux(audio.encode(frame))
        file.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_click_is_heard_when_it_happened(tmp_path: Path, rate: int) -> None:
    clip = write_clip(tmp_path / "click.mp4", [(0.0, click(rate, 2.0, at=1.25))], rate)  # AAC: 1024 samples of priming
    assert centre(read_audio(str(clip))) == pytest.approx(1.25, abs=0.002)


def test_a_late_stream_is_padded(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "late.mp4", [(0.4, click(48_000, 1.0, at=0.5))], 48_000)
    audio = read_audio(str(clip))
    assert centre(audio) == pytest.approx(0.9, abs=0.002)
    assert not audio[: round(0.39 * SAMPLE_RATE)].any()


def test_a_gap_is_silence_and_what_follows_keeps_its_time(tmp_path: Path) -> None:
    pieces = [(0.0, click(48_000, 0.5, at=0.25)), (1.5, click(48_000, 0.5, at=0.25))]
    audio = read_audio(str(write_clip(tmp_path / "gap.mkv", pieces, 48_000, codec="pcm_s16le")))
    assert centre(audio, 0.0, 0.6) == pytest.approx(0.25, abs=0.002)
    assert centre(audio, 1.4, 2.0) == pytest.approx(1.75, abs=0.002)
    assert np.abs(audio[round(0.6 * SAMPLE_RATE) : round(1.4 * SAMPLE_RATE)]).max() < 1e-4


def test_the_length_asked_for_is_the_length_given(tmp_path: Path) -> None:
    clip = str(write_clip(tmp_path / "click.mov", [(0.0, click(16_000, 1.0, at=0.5))], 16_000, codec="pcm_s16le"))
    whole, short, long = read_audio(clip), read_audio(clip, 20), read_audio(clip, 40)
    assert (len(short), len(long)) == (20 * SAMPLES_PER_FRAME, 40 * SAMPLES_PER_FRAME)
    np.testing.assert_array_equal(short, whole[: len(short)])
    np.testing.assert_array_equal(long, np.pad(whole, (0, len(long) - len(whole))))


def test_reading_twice_gives_the_same_samples(shared_media: Path) -> None:
    clip = str(shared_media / "conversation" / "two_in_frame.mp4")
    np.testing.assert_array_equal(read_audio(clip), read_audio(clip))


@pytest.mark.parametrize(
    ("name", "reason"),
    [("decord_video_90.mov", Reason.NO_AUDIO), ("moviepy_zero_byte_result.webm", Reason.UNREADABLE)],
)
def test_files_without_sound_are_rejected(shared_media: Path, name: str, reason: Reason) -> None:
    with pytest.raises(Rejected) as rejection:
        read_audio(str(shared_media / "awkward" / name))
    assert rejection.value.reason is reason


turns = st.lists(
    st.builds(
        lambda speaker, start, length: Turn(speaker=speaker, start=start, end=start + length),
        st.integers(0, 1),
        st.floats(-0.5, 2.5),
        st.floats(0.01, 1.0),
    ),
    max_size=6,
)


@given(turns=turns, fade=st.floats(0, 0.2))
def test_a_mask_is_one_in_turns_zero_away_from_them_and_never_jumps(turns: list[Turn], fade: float) -> None:
    mask = turn_mask(turns, 0, frames=50, fade=fade)
    time = (np.arange(len(mask)) + 0.5) / SAMPLE_RATE
    away = np.min([np.maximum(t.start - time, time - t.end) for t in turns if t.speaker == 0] or [time + 9], axis=0)
    assert mask.dtype == np.float32
    assert len(mask) == 50 * SAMPLES_PER_FRAME
    assert (mask[away < -1e-4] == 1).all()
    assert (mask[away > fade + 1e-4] == 0).all()
    if round(fade * SAMPLE_RATE) > 1:
        assert np.abs(np.diff(mask)).max() <= 2.0 / round(fade * SAMPLE_RATE)


def test_overlap_is_in_both_masks_and_silence_in_none() -> None:
    turns = [Turn(speaker=0, start=0.0, end=1.0), Turn(speaker=1, start=0.5, end=1.5)]
    one, other = (turn_mask(turns, speaker, frames=50, fade=0.02) for speaker in (0, 1))
    at = [round(t * SAMPLE_RATE) for t in (0.25, 0.75, 1.25, 1.75)]
    assert one[at].tolist() == [1, 1, 0, 0]
    assert other[at].tolist() == [0, 1, 1, 0]


def test_a_frame_counts_as_speech_from_half_of_it_on() -> None:
    first = Turn(speaker=0, start=0.0, end=0.06)  # half of frame 1
    second = Turn(speaker=1, start=0.061, end=0.139)  # less than half of frames 1 and 3, all of frame 2
    bystander = Turn(speaker=5, start=0.0, end=1.0)
    state = speech_state([first, second, bystander], frames=5)
    assert state.dtype == np.uint8
    assert state.tolist() == [1, 1, 2, 0, 0]


@given(turns=turns)
def test_states_agree_with_the_time_covered(turns: list[Turn]) -> None:
    state = speech_state(turns, frames=40)
    for speaker in (0, 1):
        samples = np.zeros(40 * SAMPLES_PER_FRAME)
        for turn in turns:
            if turn.speaker == speaker:
                samples[max(0, round(turn.start * SAMPLE_RATE)) : max(0, round(turn.end * SAMPLE_RATE))] = 1
        covered = samples.reshape(40, -1).mean(axis=1)
        np.testing.assert_array_equal((state >> speaker) & 1, covered >= 0.5)


def test_an_absurd_rate_is_a_broken_header(tmp_path: Path) -> None:
    """A flipped bit in a WebM made it 956 MHz: a tenth of a second of that is a gigabyte."""
    import soundfile

    path = tmp_path / "rate.wav"
    soundfile.write(path, np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE, subtype="PCM_16")
    header = bytearray(path.read_bytes())
    header[24:28] = (956_349_312).to_bytes(4, "little")
    path.write_bytes(header)
    with pytest.raises(Rejected, match="a sample rate of 956349312 Hz"):
        read_audio(str(path))

"""Sound on the clock of the pictures: 16 kHz mono, sample i at i / 16000 s of media time.

Time stamps decide where sound lies, not the order of arrival: a stream that starts late is padded, samples before
media time 0 are cut, gaps and broken packets are silence, and what overlaps is dropped. A packet is moved only if
its stamp is off by more than 2 ms (`_TOLERANCE`), because Matroska rounds stamps to 1 ms and each move is a click.

Decoding, mixing to mono and resampling (swresample) stream packet by packet: beside the result, memory holds a few
frames of source audio, whatever the length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from schemas.errors import Reason, Rejected
from schemas.rows import Turn
from stages.media import decoded_frames, open_container, time_origin

_TOLERANCE = 0.002  # seconds
_LONGEST_GAP = 600.0  # seconds; more is a broken time stamp, which must not fill the memory with silence
_BLOCK = 48_000  # samples of silence at a time


def read_audio(uri: str, frames: int | None = None) -> np.ndarray:
    """The first audio stream of a file.

    Args:
        uri: path or any fsspec URL.
        frames: length in frames of the 25 fps grid; the end is cut or padded with silence.

    Returns:
        float32 [N] in −1…1 at 16 kHz, from media time 0; N = frames · 640 where `frames` is given.

    Raises:
        Rejected: NO_AUDIO (no such stream), UNREADABLE (no file, nothing in it decodes, or its time stamps jump).
    """
    wanted = None if frames is None else frames * SAMPLES_PER_FRAME
    with open_container(uri) as container:
        if not container.streams.audio:
            raise Rejected(Reason.NO_AUDIO, uri)
        stream = container.streams.audio[0]
        source = _timed(container, stream)
        first = next(source, None)
        if first is None:
            raise Rejected(Reason.UNREADABLE, f"{uri}: no sound decodes")
        rate = first[1].sample_rate
        try:
            contiguous = _contiguous(_chain(first, source), rate)
            return _collect(_resampled(contiguous, rate), wanted)
        except _BrokenStamps as error:
            raise Rejected(Reason.UNREADABLE, f"{uri}: {error}") from error


class _BrokenStamps(Exception):
    pass


def _timed(container: InputContainer, stream: AudioStream) -> Iterator[tuple[float | None, AudioFrame]]:
    """(seconds of media time or None, frame); packets that do not decode are skipped."""
    origin = time_origin(container)
    for frame in decoded_frames(container.demux(stream), stream):
        assert isinstance(frame, AudioFrame)
        yield (None if frame.time is None else frame.time - origin), frame


def _chain(
    first: tuple[float | None, AudioFrame], rest: Iterable[tuple[float | None, AudioFrame]]
) -> Iterator[tuple[float | None, AudioFrame]]:
    yield first
    yield from rest


def _contiguous(source: Iterable[tuple[float | None, AudioFrame]], rate: int) -> Iterator[np.ndarray]:
    """Mono float32 pieces at the source's rate without gaps or overlaps, the first sample at media time 0."""
    position = 0  # next sample to be written
    for time, frame in source:
        if frame.sample_rate != rate:
            raise _BrokenStamps(f"the sample rate changes from {rate} to {frame.sample_rate} Hz")
        piece = mono(frame)
        start = position if time is None else round(time * rate)
        if abs(start - position) <= _TOLERANCE * rate:
            start = position
        if start - position > _LONGEST_GAP * rate:
            raise _BrokenStamps(f"{(start - position) / rate:.0f} s of sound are missing at {position / rate:.1f} s")
        for done in range(position, start, _BLOCK):
            yield np.zeros(min(_BLOCK, start - done), np.float32)
        piece = piece[max(0, position - start) :]
        position = max(position, start) + len(piece)
        if len(piece):
            yield piece


def mono(frame: AudioFrame) -> np.ndarray:
    """The mean of a decoded frame's channels, float32 [N] in −1…1."""
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    by_channel = samples if frame.format.is_planar else samples.reshape(-1, channels).T
    mixed = by_channel.mean(axis=0, dtype=np.float64)
    if samples.dtype == np.uint8:
        mixed = (mixed - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        mixed /= 2.0 ** (8 * samples.itemsize - 1)
    return np.nan_to_num(mixed, posinf=0.0, neginf=0.0).astype(np.float32)


def _resampled(pieces: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    if rate == SAMPLE_RATE:
        yield from pieces
        return
    resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    for piece in pieces:
        frame = AudioFrame.from_ndarray(piece[None], format="flt", layout="mono")
        frame.sample_rate = rate
        yield from (out.to_ndarray()[0] for out in resampler.resample(frame))
    yield from (out.to_ndarray()[0] for out in resampler.resample(None))


def _collect(pieces: Iterable[np.ndarray], wanted: int | None) -> np.ndarray:
    if wanted is None:
        return np.concatenate([*pieces, np.zeros(0, np.float32)])
    audio, filled = np.zeros(wanted, np.float32), 0
    for piece in pieces:
        if filled == wanted:
            break
        piece = piece[: wanted - filled]
        audio[filled : filled + len(piece)] = piece
        filled += len(piece)
    return audio


def turn_mask(turns: Iterable[Turn], speaker: int, frames: int, fade: float) -> np.ndarray:
    """A person's gain per sample, float32 [frames · 640] in 0…1.

    1 inside the speaker's turns; outside, a raised cosine falls to 0 within `fade` seconds, so that nothing that
    was said is dimmed.
    """
    mask_N = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    ramp = round(fade * SAMPLE_RATE)
    rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / max(1, ramp))).astype(np.float32)
    for turn in turns:
        if turn.speaker != speaker:
            continue
        first, last = round(turn.start * SAMPLE_RATE), round(turn.end * SAMPLE_RATE)
        gain = np.concatenate([rise, np.ones(last - first, np.float32), rise[::-1]])
        begin, end = max(0, first - ramp), min(len(mask_N), last + ramp)
        if begin < end:
            mask_N[begin:end] = np.maximum(mask_N[begin:end], gain[begin - (first - ramp) :][: end - begin])
    return mask_N


def speech_state(turns: Iterable[Turn], frames: int) -> np.ndarray:
    """Who speaks in each frame, uint8 [T]: bit i is set if turns of speaker i fill at least half of it.

    Back-channels are no turns: they set bit 2 + i in the same way.
    """
    turns = list(turns)
    state_T = np.zeros(frames, np.uint8)
    for bit, (backchannel, speaker) in enumerate(product((False, True), (0, 1))):
        covered_N = np.zeros(frames * SAMPLES_PER_FRAME, bool)
        for turn in turns:
            if (turn.backchannel, turn.speaker) == (backchannel, speaker):
                first, last = (max(0, round(edge * SAMPLE_RATE)) for edge in (turn.start, turn.end))
                covered_N[first:last] = True
        half_T = covered_N.reshape(frames, SAMPLES_PER_FRAME).sum(axis=1) >= SAMPLES_PER_FRAME / 2
        state_T |= half_T.astype(np.uint8) << bit
    return state_T

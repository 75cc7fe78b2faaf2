"""Which channels and streams hold speech, by a few excerpts.

A player plays all channels of a stream; who looks for people who talk leaves out music, atmosphere, or a control track
on a channel of its own. It is left out only where another channel speaks, this one does not at all, and it is loud
enough to drown somebody: a listener's microphone is quiet and stays.

The cost: up to half a minute of sound is decoded, at five places; the network that hears speech is asked only where
channels differ, so ordinary mono and stereo need none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from visavis.schemas import SAMPLE_RATE
from visavis.stages.media.file_identity import Unchanged
from visavis.stages.media.opening import decoded_frames, open_container, packets_of, time_origin
from visavis.stages.media.spans import Span

_EXCERPTS, _SECONDS = 5, 6.0
_ALIKE = 0.5  # correlation with the loudest, from which on a channel holds what that one does
_FAINT = 0.03  # of the power of the loudest that speaks: 15 dB below, nothing is drowned
_SPEAKS, _SILENT = 0.05, 0.01  # share of the excerpts with speech: surely some, or none
_HEARD = 0.5  # Silero's probability


def excerpts(uri: str, same: Unchanged, index: int, span: Span) -> np.ndarray:
    """Float32 [C, N] at 16 kHz of a stream, from several places of what it covers."""
    with open_container(uri, same) as container:
        stream = next(stream for stream in container.streams.audio if stream.index == index)
        whole = span.duration <= _EXCERPTS * _SECONDS
        places = [None] if whole else [span.start + span.duration * (k + 0.5) / _EXCERPTS for k in range(_EXCERPTS)]
        parts = [_read(container, stream, at, span.duration if whole else _SECONDS) for at in places]
    channels = max(1, *(part.shape[0] for part in parts))
    return np.concatenate([np.zeros((channels, 0), np.float32), *(p for p in parts if p.shape[0] == channels)], axis=1)


def speaks(sound_CN: np.ndarray) -> bool:
    """Whether somebody speaks in excerpts."""
    return bool(sound_CN.size and _speech_share(sound_CN.mean(axis=0)) >= _SPEAKS)


def without_speech(sound_CN: np.ndarray) -> tuple[int, ...]:
    """Channels that hold something else than speech, and would drown those that hold some."""
    if len(sound_CN) < 2 or not sound_CN.size:
        return ()
    centred_CN = sound_CN - sound_CN.mean(axis=1, keepdims=True)
    power_C = np.square(centred_CN).mean(axis=1, dtype=np.float64)
    loudest = int(power_C.argmax())
    alike_C = np.abs(centred_CN @ centred_CN[loudest]) / len(centred_CN[0])
    alike_C = alike_C / np.sqrt(np.maximum(power_C * power_C[loudest], 1e-20))
    unlike_C = (alike_C < _ALIKE) & (power_C > 1e-9)
    if not unlike_C.any():
        return ()
    speech_C = np.array(
        [_speech_share(channel) if power > 1e-9 else 0.0 for channel, power in zip(centred_CN, power_C, strict=True)]
    )
    speaking_C = speech_C >= _SPEAKS
    if not speaking_C.any():
        return ()
    drowning_C = (speech_C < _SILENT) & (power_C > _FAINT * power_C[speaking_C].max())
    return tuple(np.flatnonzero(drowning_C).tolist())


def _read(container: InputContainer, stream: AudioStream, at: float | None, seconds: float) -> np.ndarray:
    """Some seconds from a place, or from the beginning where the container cannot go there."""
    if at is not None:
        with suppress(av.error.FFmpegError):
            container.seek(round((at + time_origin(container)) * av.time_base))
    parts: list[np.ndarray] = []
    for part in _resampled(container, stream):
        if parts and part.shape[0] != parts[0].shape[0]:
            break
        parts.append(part)
        if sum(p.shape[1] for p in parts) >= seconds * SAMPLE_RATE:
            break
    return np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), np.float32)


def _resampled(container: InputContainer, stream: AudioStream) -> Iterator[np.ndarray]:
    resampler: AudioResampler | None = None
    form = None
    for frame in decoded_frames(packets_of(container, stream), stream):
        assert isinstance(frame, AudioFrame)
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
            resampler = AudioResampler(format="flt", rate=SAMPLE_RATE)
        assert resampler is not None
        frame.pts = None
        for out in resampler.resample(frame):
            samples = out.to_ndarray().reshape(-1, out.layout.nb_channels).T
            yield np.clip(np.nan_to_num(samples, posinf=0.0, neginf=0.0), -1, 1)


def _speech_share(sound_N: np.ndarray) -> float:
    loud = max(float(np.abs(sound_N).max()), 1e-6)
    return float((_activity()(np.ascontiguousarray(0.5 * sound_N / loud, np.float32)) > _HEARD).mean())


@cache
def _activity() -> Callable[[np.ndarray], np.ndarray]:
    from visavis.stages.models.networks import load_voice_activity

    return load_voice_activity()

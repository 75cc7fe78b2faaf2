"""Which of a file's audio streams people hear.

Among streams that have packets and a decoder:

1. what is made for few goes last: audio description, commentary, dubs, karaoke, music without voices; then what covers
   less than nine tenths of the longest; then what is not marked as the default; then by number, as players do.
2. The first of them that somebody speaks in is heard, if it is as whole and as much for all as the first that carries
   sound; else that one. A recorder that was set up for several tracks writes silent ones, a studio one of music.
3. Where that one has a single channel, others that do, and are its like in codec, rate, length, language and marks,
   are channels of one recording, as field recorders and MXF write them: one microphone each. All that carry sound are
   heard together; a player would play one of them, and one of the two people would be missing.
4. Of what is heard, a channel that would drown those that hold speech, and holds none, is left out
(`stages.media.excerpts`).

The cost: nothing for a file with one stream of one channel; excerpts of half a minute where there are several channels
(`stages.media.excerpts`). Of several streams each is decoded until five seconds (or a tenth) of it were louder than −60
dB, which is at once, or to its end if it is silent: about 6 s for an hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.uris import shown
from visavis.stages.media.excerpts import excerpts, speaks, without_speech
from visavis.stages.media.ffmpeg import is_read, unread
from visavis.stages.media.file_identity import Unchanged
from visavis.stages.media.limits import Limits
from visavis.stages.media.mixing import Samples, as_floats
from visavis.stages.media.opening import absent, decoded_frames, open_container, packets_of
from visavis.stages.media.spans import Span, timed_packets

_FOR_FEW = (
    Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.comment
    | Disposition.dub
    | Disposition.karaoke
    | Disposition.clean_effects
    | Disposition.non_diegetic
)
_WHOLE = 0.9  # of the longest stream
_ALIKE = 0.5  # seconds by which the lengths of one recording's channels differ at most
_AUDIBLE = 1e-6  # power: −60 dB
_ENOUGH, _ENOUGH_SHARE = 5.0, 0.1  # seconds of sound, or that share of a short stream
_UNKNOWN = {None, "", "und"}


class Soundtrack(NamedTuple):
    """The streams that are heard together, and what the first of them covers in seconds of media time."""

    streams: tuple[int, ...]
    rate: int
    channels: int
    start: float
    duration: float
    left_out: tuple[int, ...] = ()  # channels of the only stream


def heard_streams(uri: str, same: Unchanged | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The streams that are heard, by index, and the channels of an only one that are not.

    Args:
        same: what the file is held against.

    Raises:
        Rejected: NO_AUDIO, UNREADABLE, CHANGED.
    """
    with open_container(uri, same) as container:
        streams = container.streams.audio
        if not streams:
            raise Rejected(Reason.NO_AUDIO, shown(uri))
        if len(streams) == 1 and _form(streams[0])[1] <= 1:
            return (streams[0].index,), ()
    heard = choose(uri, same=same)
    return heard.streams, heard.left_out


def choose(
    uri: str,
    spans: Mapping[int, Span] | None = None,
    *,
    same: Unchanged | None = None,
    limits: Limits | None = None,
) -> Soundtrack:
    """What is heard.

    Args:
        spans: of all audio streams where they are known already; else the file is read through.
        same: what the file is held against.
        limits: what a file that was not read through yet is held against.

    Raises:
        Rejected: NO_AUDIO, UNREADABLE, CHANGED; with limits also TOO_LONG, TOO_HEAVY, TOO_LARGE, TOO_BUSY.
    """
    same = same or Unchanged(uri)
    spans = _read_through(uri, same, limits) if spans is None else spans
    with open_container(uri, same) as container:
        ranked = _ranked(container, spans)
        if not ranked:
            raise _nothing(uri, container)
        indices = [stream.index for stream in ranked]
        classes = [_class(stream, spans) for stream in ranked]
    first = _first_heard(uri, same, indices, classes, spans)
    with open_container(uri, same) as container:
        chosen = _stream(container, first)
        others = [s.index for s in _siblings(chosen, container.streams.audio, spans)]
        rate, channels = chosen.codec_context.sample_rate, chosen.codec_context.channels
    together = sorted([first, *(i for i in others if _carries_sound(uri, same, i, spans[i]))])
    left_out: tuple[int, ...] = ()
    if len(together) > 1:
        sounds = [excerpts(uri, same, i, spans[i])[0] for i in together]
        drowning = without_speech(np.stack([sound[: min(map(len, sounds))] for sound in sounds]))
        together = [index for at, index in enumerate(together) if at not in drowning]
    elif channels > 1:
        left_out = without_speech(excerpts(uri, same, first, spans[first]))
    span = spans[together[0]].checked(uri)
    return Soundtrack(tuple(together), rate, channels * len(together), span.start, span.duration, left_out)


def _first_heard(
    uri: str, same: Unchanged, indices: Sequence[int], classes: Sequence[object], spans: Mapping[int, Span]
) -> int:
    """The first stream that carries sound, or the first of its class that somebody speaks in."""
    if len(indices) == 1:
        return indices[0]
    at = next((k for k, i in enumerate(indices) if _carries_sound(uri, same, i, spans[i])), None)
    if at is None:
        return indices[0]
    rivals = [i for i, of in zip(indices[at:], classes[at:], strict=True) if of == classes[at]]
    spoken = (i for i in rivals if speaks(excerpts(uri, same, i, spans[i])))
    return next(spoken, indices[at]) if len(rivals) > 1 else indices[at]


def _stream(container: InputContainer, index: int) -> AudioStream:
    return next(stream for stream in container.streams.audio if stream.index == index)


def _nothing(uri: str, container: InputContainer) -> Rejected:
    if unread(container.streams.audio):
        return absent(Reason.NO_AUDIO, uri, container.streams.audio)
    why = "the audio stream is empty" if container.streams.audio else "no audio stream"
    return Rejected(Reason.NO_AUDIO, f"{shown(uri)}: {why}")


def _read_through(uri: str, same: Unchanged, limits: Limits | None) -> dict[int, Span]:
    admit = None if limits is None else lambda claimed: limits.check(uri, claimed, same.size)
    with open_container(uri, same, admit) as container:
        spans = {stream.index: Span() for stream in container.streams.audio}
        for index, _, _ in timed_packets(container, spans) if spans else ():
            if limits is not None:
                limits.check_span(uri, spans[index])
    return spans


def _ranked(container: InputContainer, spans: Mapping[int, Span]) -> list[AudioStream]:
    usable = [s for s in container.streams.audio if is_read(s) and s.index in spans and spans[s.index].count]
    return sorted(usable, key=lambda s: (*_class(s, spans), not s.disposition & Disposition.default, s.index))


def _class(stream: AudioStream, spans: Mapping[int, Span]) -> tuple[bool, bool]:
    """Whether it is made for few, and whether it covers a part only."""
    span, longest = spans[stream.index], max(s.duration for s in spans.values())
    return bool(stream.disposition & _FOR_FEW), bool(span.jump) or span.duration < _WHOLE * longest


def _siblings(chosen: AudioStream, streams: Sequence[AudioStream], spans: Mapping[int, Span]) -> Iterator[AudioStream]:
    """The other streams that are channels of the same recording."""
    if _form(chosen)[1] != 1:
        return
    for stream in streams:
        if stream.index == chosen.index or stream.index not in spans or _form(stream) != _form(chosen):
            continue
        one, other = spans[chosen.index], spans[stream.index]
        if other.count and not other.jump and abs(one.start - other.start) + abs(one.end - other.end) <= _ALIKE:
            yield stream


def _form(stream: AudioStream) -> tuple[str, int, int, str | None, int]:
    context = stream.codec_context
    if context is None:
        return "", 0, 0, None, 0
    language = stream.metadata.get("language")
    marks = stream.disposition & _FOR_FEW
    return context.name, context.channels, context.sample_rate, None if language in _UNKNOWN else language, int(marks)


def _carries_sound(uri: str, same: Unchanged, index: int, span: Span) -> bool:
    """Whether enough of a stream is louder than a muted input; read no further than it takes to know."""
    enough = min(_ENOUGH, _ENOUGH_SHARE * span.duration)
    heard, samples_of = 0.0, Samples()
    with open_container(uri, same) as container:
        stream = _stream(container, index)
        for frame in decoded_frames(packets_of(container, stream), stream):
            assert isinstance(frame, AudioFrame)
            loudest = float(as_floats(samples_of(frame)).var(axis=1).max(initial=0.0))
            heard += frame.samples / max(1, frame.sample_rate) if np.sqrt(loudest) > _AUDIBLE**0.5 else 0.0
            if heard >= enough:
                return True
    return False

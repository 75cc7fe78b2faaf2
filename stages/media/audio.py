"""Sound on the clock of the pictures: 16 kHz mono, sample i at i / 16000 s of media time.

Time stamps decide where sound lies, not the order of arrival: a stream that starts late is padded, samples before
media time 0 are cut, gaps and broken packets are silence, and what overlaps is dropped. A packet is moved only if
its stamp is off by more than 2 ms (`_TOLERANCE`), because Matroska rounds stamps to 1 ms and each move is a click.
Where rate, layout or format change, a new stretch begins, on the same clock.

Which stream is read is a matter of `stages.media.soundtrack`; how its channels become one, of `stages.media.mixing`.
Decoding, mixing and resampling (swresample) stream packet by packet: beside the result, memory holds some seconds of
source audio, whatever the length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, product, zip_longest

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Media, Turn
from visavis.schemas.uris import shown
from visavis.stages.media.file_identity import Unchanged
from visavis.stages.media.mixing import Piece, Samples, as_floats, blocks, mixed, weights_of, without_offset
from visavis.stages.media.opening import decoded_frames, open_container, packets_of, time_origin
from visavis.stages.media.soundtrack import heard_streams

_TOLERANCE = 0.002  # seconds
_LONGEST_GAP = 600.0  # seconds; more is a broken time stamp, which must not fill the memory with silence
_HIGHEST_RATE = 1_000_000  # Hz; more is a broken header, and a tenth of a second would fill the memory
_MOST_SAMPLES = 1 << 23  # a second, of all channels; five seconds are held
_MOST_HELD = 256 << 20  # bytes of packets
_BLOCK = 48_000  # samples of silence at a time
_TOGETHER = SAMPLE_RATE // 2  # samples of several streams mixed at a time

Timed = tuple[float | None, AudioFrame]


def sound_of(media: Media, frames: int) -> np.ndarray:
    """What is heard with a probed file's pictures: `read_audio` of the streams that ingest chose."""
    return read_audio(media.sound, frames, media.audio_streams, media.sound_witness, media.audio_left_out)


def read_audio(
    uri: str,
    frames: int | None = None,
    streams: Sequence[int] = (),
    witness: str = "",
    left_out: Sequence[int] = (),
) -> np.ndarray:
    """The sound of a file, as people hear it.

    Args:
        uri: path or any fsspec URL.
        frames: length in frames of the 25 fps grid; the end is cut or padded with silence.
        streams: indices of the streams that are heard together; none: those that `stages.media.soundtrack` names.
        left_out: channels of the stream that are not heard, where streams are given.
        witness: what the file was when it was ingested, if that is known (`stages.media.file_identity`).

    Returns:
        float32 [N] in −1…1 at 16 kHz, from media time 0; N = frames · 640 where `frames` is given.

    Raises:
        Rejected: NO_AUDIO (no such stream), UNREADABLE (no file, nothing in it decodes, its time stamps jump, or its
            rate is absurd), CHANGED.
    """
    wanted = None if frames is None else frames * SAMPLES_PER_FRAME
    same = Unchanged(uri, witness)
    indices = streams
    if not streams:
        indices, left_out = heard_streams(uri, same)
    with open_container(uri, same) as container:
        pieces = _together(container, [s for s in container.streams.audio if s.index in indices], left_out)
        try:
            first = next(pieces, None)
            if first is None:
                raise Rejected(Reason.UNREADABLE, f"{shown(uri)}: no sound decodes")
            return _collect(chain([first], pieces), wanted)
        except _Broken as error:
            raise Rejected(Reason.UNREADABLE, f"{shown(uri)}: {error}") from error


def read_channels(media: Media, seconds: float) -> Iterator[np.ndarray]:
    """The first seconds of a probed file's sound as it is stored: float32 [C, N] in −1…1, piece by piece.

    Raises:
        Rejected: as `read_audio`.
    """
    same = Unchanged(media.sound, media.sound_witness)
    with open_container(media.sound, same) as container:
        stream = next((s for s in container.streams.audio if s.index in media.audio_streams), None)
        samples_of, form, left = Samples(), None, seconds
        for _, frame in _timed(container, stream, packets_of(container, stream)) if stream else ():
            form = form or _form(frame)
            if left <= 0 or _form(frame) != form:
                return
            left -= frame.samples / max(frame.sample_rate, 1)
            yield as_floats(samples_of(frame))


class _Broken(Exception):
    pass


def _together(
    container: InputContainer, streams: Sequence[AudioStream], left_out: Sequence[int] = ()
) -> Iterator[np.ndarray]:
    """Mono float32 pieces at 16 kHz, from media time 0; several streams are mixed like channels of one."""
    if len(streams) == 1:
        yield from _heard(_timed(container, streams[0], packets_of(container, streams[0])), left_out)
        return
    packets = _apart(container, streams)
    each = [_heard(_timed(container, stream, packets[stream.index])) for stream in streams]
    weights = np.full(len(each), 1 / len(each), np.float32)
    yield from mixed(_side_by_side(each), SAMPLE_RATE, weights)  # type: ignore[misc]  # there is no silence in it


def _apart(container: InputContainer, streams: Sequence[AudioStream]) -> dict[int, Iterator[Packet]]:
    """The packets of each stream, read once. Memory holds what the file has of one before the next of the other."""
    waiting: dict[int, deque[Packet]] = {stream.index: deque() for stream in streams}
    packets, held = packets_of(container, *streams), 0

    def of(index: int) -> Iterator[Packet]:
        nonlocal held
        while True:
            while not waiting[index]:
                packet = next(packets, None)
                if packet is None:
                    return
                waiting[packet.stream.index].append(packet)
                held += packet.size
                if held > _MOST_HELD:
                    raise _Broken("what is heard together lies too far apart in the file")
            packet = waiting[index].popleft()
            held -= packet.size
            yield packet

    return {stream.index: of(stream.index) for stream in streams}


def _side_by_side(each: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Pieces [C, N] of mono ones, as long as the longest."""
    even = [blocks((piece[None] for piece in pieces), _TOGETHER) for pieces in each]
    for parts in zip_longest(*even, fillvalue=np.zeros((1, 0), np.float32)):
        sound = [part[0] for part in parts if not isinstance(part, int)]
        longest = max(map(len, sound))
        yield np.stack([np.pad(part, (0, longest - len(part))) for part in sound])


def _timed(container: InputContainer, stream: AudioStream, packets: Iterator[Packet]) -> Iterator[Timed]:
    """(seconds of media time or None, frame); packets that do not decode are skipped."""
    origin = time_origin(container)
    for frame in decoded_frames(packets, stream):
        assert isinstance(frame, AudioFrame)
        yield (None if frame.time is None else frame.time - origin), frame


def _heard(source: Iterable[Timed], left_out: Sequence[int] = ()) -> Iterator[np.ndarray]:
    """Mono float32 pieces at 16 kHz without gaps or overlaps, the first sample at media time 0."""
    done = 0
    for _, stretch in groupby(source, lambda timed: _form(timed[1])):
        for piece in _of_one_form(stretch, done / SAMPLE_RATE, left_out):
            done += len(piece)
            yield piece


def _form(frame: AudioFrame) -> tuple[int, str, int, str]:
    return frame.sample_rate, frame.layout.name, frame.layout.nb_channels, frame.format.name


def _of_one_form(stretch: Iterator[Timed], begin: float, left_out: Sequence[int]) -> Iterator[np.ndarray]:
    first = next(stretch)
    rate, weights = first[1].sample_rate, weights_of(first[1].layout, left_out)
    channels = first[1].layout.nb_channels
    if not 0 < rate <= _HIGHEST_RATE or rate * channels > _MOST_SAMPLES:
        raise _Broken(f"a sample rate of {rate} Hz, {channels} channels")
    placed = _contiguous(chain([first], stretch), rate, round(begin * rate))
    return _resampled(_filled(without_offset(mixed(placed, rate, weights), rate)), rate)


def _contiguous(source: Iterable[Timed], rate: int, position: int) -> Iterator[Piece]:
    """Sound [C, N] at the source's rate as it is stored, and silence where there is none, from a sample on."""
    samples_of = Samples()
    for time, frame in source:
        piece = samples_of(frame)
        start = position if time is None else round(time * rate)
        if abs(start - position) <= _TOLERANCE * rate:
            start = position
        if start - position > _LONGEST_GAP * rate:
            raise _Broken(f"{(start - position) / rate:.0f} s of sound are missing at {position / rate:.1f} s")
        if start > position:
            yield start - position
        piece = piece[:, max(0, position - start) :]
        position = max(position, start) + piece.shape[1]
        if piece.shape[1]:
            yield piece


def _filled(pieces: Iterable[Piece]) -> Iterator[np.ndarray]:
    """Silence as samples."""
    for piece in pieces:
        if isinstance(piece, int):
            yield from (np.zeros(min(_BLOCK, piece - done), np.float32) for done in range(0, piece, _BLOCK))
        else:
            yield piece


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
        if piece.any():  # memory is taken by what is heard, not by a claim of hours
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

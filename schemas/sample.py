"""One training sample, and how it lies in a shard.

A sample is the group of tar members that share a key (which has no dots):

    avatar.motion.npy  [T, D] float32      user.motion.npy  [T, D] float32
    avatar.audio.flac  16 kHz mono         user.audio.flac  16 kHz mono
    state.npy          [T] uint8           bit 0 avatar speaks, bit 1 user speaks: turns
                                           bit 2 avatar, bit 3 user makes a back-channel
    valid.npy          [T, 2] bool         avatar, user
    reference.npy      [D] float32         the avatar's reference motion
    meta.json          SampleMeta

A pair adds chosen.motion.npy and rejected.motion.npy, [T, D] float32, and pair.json (PairRecord).
The JSON members have all their fields in every sample, each of one type; `schemas.plain` says how.
Every number is finite, on frames that are not valid, too. Nothing is pickled, ever.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile
from pydantic import BaseModel, ConfigDict, Field, field_validator

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError
from visavis.schemas.face_rows import Figures
from visavis.schemas.labels import Event, parse_event
from visavis.schemas.names import CodecId, ItemId, Text
from visavis.schemas.pairs import PairRecord
from visavis.schemas.plain import Words, dump_record, load_record
from visavis.schemas.untrusted import bounded, parsing
from visavis.schemas.voice_rows import VoiceFigures

LONGEST_WINDOW = 15_000
"""Frames of a sample: ten minutes. More is refused before it is decoded."""

AVATAR_SPEAKS, USER_SPEAKS = 1, 2
"""Bits of `state`: who has a turn."""
_AUDIO_BLOCK = 60 * SAMPLE_RATE
_ARRAY_HEADER = 1024  # bytes; ours have 118
_WINDOW_MEMBERS = (
    *("avatar.motion.npy", "user.motion.npy", "avatar.audio.flac", "user.audio.flac"),
    *("state.npy", "valid.npy", "reference.npy", "meta.json"),
)
_PAIR_MEMBERS = ("chosen.motion.npy", "rejected.motion.npy")
_MEMBER_OF = {
    **{name: name for name in ("state", "valid", "reference")},
    **{
        name: f"{name.removesuffix('_motion')}.motion"
        for name in ("avatar_motion", "user_motion", "chosen", "rejected")
    },
}


class SampleMeta(BaseModel):
    """What a sample is and where it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    conversation: ItemId
    avatar: Text
    user: Text
    start: int = Field(ge=0, le=2**48)  # frame of the conversation's grid
    label: WindowClass
    expressiveness: float
    weight: float = Field(ge=0, le=1)  # probability to be kept when an epoch draws from its class
    binding: float
    codec: CodecId
    avatar_figures: Figures | None = None  # how well the two can be seen; None where nobody measured
    user_figures: Figures | None = None
    avatar_voice: VoiceFigures | None = None  # how their tracks were had, and what is left of the other voice in them
    user_voice: VoiceFigures | None = None
    labels: Words | None = None  # what happens in it (`schemas.labels`), by name; None where nobody looked
    events: Words | None = None  # each as LABEL:FIRST-END, frames of the window, in order
    avatar_blinks_min: float | None = None  # of the whole conversation; None where blinks cannot be told
    user_blinks_min: float | None = None

    @field_validator("events")
    @classmethod
    def _are_events(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in value or ():
            parse_event(text)
        return value

    @property
    def happened(self) -> tuple[Event, ...]:
        """`events`, parsed."""
        return tuple(parse_event(text) for text in self.events or ())


@dataclass(frozen=True)
class Sample:
    """A decoded sample. Audio is float32 in −1…1, [T · 640]."""

    key: str
    avatar_motion: np.ndarray
    user_motion: np.ndarray
    avatar_audio: np.ndarray
    user_audio: np.ndarray
    state: np.ndarray
    valid: np.ndarray
    reference: np.ndarray
    meta: SampleMeta
    chosen: np.ndarray | None = None
    rejected: np.ndarray | None = None
    pair: PairRecord | None = None


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """Members of a sample by extension, in the order in which they are written."""
    members = {
        "avatar.motion.npy": encode_array(sample.avatar_motion.astype(np.float32)),
        "user.motion.npy": encode_array(sample.user_motion.astype(np.float32)),
        "avatar.audio.flac": encode_audio(sample.avatar_audio),
        "user.audio.flac": encode_audio(sample.user_audio),
        "state.npy": encode_array(sample.state.astype(np.uint8)),
        "valid.npy": encode_array(sample.valid.astype(np.bool_)),
        "reference.npy": encode_array(sample.reference.astype(np.float32)),
        "meta.json": dump_record(sample.meta),
    }
    if sample.pair is not None and sample.chosen is not None and sample.rejected is not None:
        return encode_pair(members, sample.chosen, sample.rejected, sample.pair)
    return members


def encode_pair(
    members: Mapping[str, bytes], chosen_TD: np.ndarray, rejected_TD: np.ndarray, record: PairRecord
) -> dict[str, bytes]:
    """Members of a pair from those of its window, which are not encoded anew, in the order of `encode_sample`."""
    return {name: members[name] for name in _WINDOW_MEMBERS} | {
        "chosen.motion.npy": encode_array(chosen_TD.astype(np.float32)),
        "rejected.motion.npy": encode_array(rejected_TD.astype(np.float32)),
        "pair.json": dump_record(record),
    }


def decode_sample(key: str, members: Mapping[str, bytes]) -> Sample:
    """The sample behind tar members, whoever wrote them. What they claim is checked before it is decoded.

    Raises:
        DatasetError: a member is missing, unreadable, has numbers that are not finite, or a shape that disagrees with
            the others.
    """
    pair = "pair.json" in members
    for name in (*_WINDOW_MEMBERS, *(_PAIR_MEMBERS if pair else ())):
        if name not in members:
            raise DatasetError(f"sample {key}: member {name} is missing")
    with parsing(lambda why: DatasetError(f"sample {key}: {why}")):
        sample = _decoded(key, members, load_record(members["pair.json"], PairRecord) if pair else None)
    _check_finite(sample)
    return sample


def _decoded(key: str, members: Mapping[str, bytes], pair: PairRecord | None) -> Sample:
    motion = decode_array(members["avatar.motion.npy"])
    if motion.ndim != 2 or not motion.size:
        raise ValueError(f"avatar.motion is {motion.dtype} {motion.shape}, expected float32 [T, D]")
    bounded(len(motion), LONGEST_WINDOW, "frames")
    arrays = {
        "avatar_motion": motion,
        "user_motion": decode_array(members["user.motion.npy"]),
        "state": decode_array(members["state.npy"]),
        "valid": decode_array(members["valid.npy"]),
        "reference": decode_array(members["reference.npy"]),
    }
    if pair:
        arrays |= {side: decode_array(members[f"{side}.motion.npy"]) for side in ("chosen", "rejected")}
    _check_shapes(arrays)
    length = len(motion) * SAMPLES_PER_FRAME
    return Sample(
        key=key,
        avatar_audio=_decode_voice(members["avatar.audio.flac"], "avatar.audio", length),
        user_audio=_decode_voice(members["user.audio.flac"], "user.audio", length),
        meta=load_record(members["meta.json"], SampleMeta),
        pair=pair,
        **arrays,
    )


def _check_shapes(arrays: Mapping[str, np.ndarray]) -> None:
    frames, dims = arrays["avatar_motion"].shape
    motion = ((frames, dims), np.float32)
    expected = {
        **dict.fromkeys(("avatar_motion", "user_motion", "chosen", "rejected"), motion),
        "state": ((frames,), np.uint8),
        "valid": ((frames, 2), np.bool_),
        "reference": ((dims,), np.float32),
    }
    for name, array in arrays.items():
        shape, dtype = expected[name]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{_MEMBER_OF[name]} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")


def _decode_voice(data: bytes, name: str, length: int) -> np.ndarray:
    try:
        audio = decode_audio(data, length=length)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if len(audio) != length:
        raise ValueError(f"{name}: audio of {len(audio)} samples, expected {length}")
    return audio


def _check_finite(s: Sample) -> None:
    arrays = {"avatar.motion": s.avatar_motion, "user.motion": s.user_motion, "reference": s.reference}
    if s.chosen is not None and s.rejected is not None:
        arrays |= {"chosen.motion": s.chosen, "rejected.motion": s.rejected}
    for name, array in arrays.items():
        if not math.isfinite(np.vdot(array, array)):  # one pass; it may overflow where all is finite
            count = int((~np.isfinite(array)).sum())
            if count:
                raise DatasetError(f"sample {s.key}: {name} has {count} of {array.size} numbers that are not finite")


def encode_array(array: np.ndarray) -> bytes:
    """An .npy file, version 1."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes) -> np.ndarray:
    """The array of an .npy file of version 1 or 2 that holds plain numbers and nothing else.

    Raises:
        ValueError: another version, no numbers, or not as many bytes as its header says.
        Exception: whatever NumPy raises on a header that is none (`schemas.untrusted.parsing`).
    """
    size = struct.calcsize("<8sI") if data[6:7] == b"\x02" else struct.calcsize("<8sH")
    if len(data) < size:
        raise ValueError("an .npy file ends within its header")
    first = size + int.from_bytes(data[8:size], "little")
    bounded(first, _ARRAY_HEADER, "bytes of an .npy header")
    dtype, shape, fortran = _array_header(data[:first])
    if math.prod(shape) * dtype.itemsize != len(data) - first:
        raise ValueError(f"an .npy file of {dtype} {shape} with {len(data) - first} bytes")
    array = np.frombuffer(data, dtype, math.prod(shape), first)
    return array.reshape(shape, order="F" if fortran else "C").copy()  # what frombuffer gives cannot be written to


@lru_cache(1024)
def _array_header(data: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """dtype, shape and whether in Fortran's order. A dataset has few headers, and parsing one takes longer than all
    the rest of an array."""
    file = io.BytesIO(data)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"an .npy file of version {version}")
    shape, fortran, dtype = read[version](file, max_header_size=_ARRAY_HEADER)
    if dtype.kind not in "biuf":
        raise ValueError(f"an .npy file of {dtype}, expected plain numbers")
    if any(length < 0 for length in shape):
        raise ValueError(f"an .npy file of shape {shape}")
    return dtype, shape, fortran


def encode_audio(audio: np.ndarray) -> bytes:
    """16-bit FLAC of mono float audio in −1…1 at 16 kHz; louder is clipped."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        for first in range(0, len(audio), _AUDIO_BLOCK):  # an hour at once would need 0.6 GB more
            block = audio[first : first + _AUDIO_BLOCK]
            file.write(np.clip(np.round(block * 32767.0), -32768, 32767).astype(np.int16))
    return buffer.getvalue()


def decode_audio(data: bytes, first: int = 0, count: int = -1, *, length: int | None = None) -> np.ndarray:
    """float32 mono in −1…1; the inverse of `encode_audio` up to 16-bit rounding.

    A header may claim any length: memory grows with what is decoded, not with what is claimed.

    Args:
        first, count: samples wanted; the rest is not decoded. count −1: to the end.
        length: that it has to have, which is seen before anything is decoded.

    Raises:
        ValueError: not FLAC, broken, of another rate or length.
    """
    if not data.startswith(b"fLaC"):  # libsndfile would open thirty other formats
        raise ValueError("audio is not FLAC")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_audio(file, length)
            if first:  # even a seek to where it is starts the decoder anew
                file.seek(first)
            return _pcm(file, file.frames - first if count < 0 else count) / np.float32(32767.0)
    except soundfile.LibsndfileError as error:  # its text has the address of the object that was read
        raise ValueError(f"audio: {error.error_string}") from error


def _check_audio(file: soundfile.SoundFile, length: int | None) -> None:
    if (file.format, file.samplerate, file.channels) != ("FLAC", SAMPLE_RATE, 1):
        found = f"{file.format}, {file.samplerate} Hz, {file.channels} channels"
        raise ValueError(f"audio is {found}, expected FLAC, {SAMPLE_RATE} Hz, mono")
    if length is not None and file.frames != length:
        raise ValueError(f"audio of {file.frames} samples, expected {length}")


def _pcm(file: soundfile.SoundFile, count: int) -> np.ndarray:
    """Up to `count` samples, int16."""
    parts = []
    while count > 0:
        part: np.ndarray = file.read(min(count, _AUDIO_BLOCK), dtype="int16")
        parts.append(part)
        count = count - len(part) if len(part) == _AUDIO_BLOCK else 0
    return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.zeros(0, np.int16)

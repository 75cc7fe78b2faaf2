"""What each layout gives of a person: motion, and the voice (`pipeline.plan.corpora` finds the files)."""

from __future__ import annotations

import numpy as np
import soundfile

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.coefficients import codec_name
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.recordings import CorpusLayout, RecordedPerson
from visavis.schemas.uris import file_name
from visavis.stages.corpora import dualtalk, seamless, unils, vico
from visavis.stages.corpora.coefficients import Taken
from visavis.stages.media.audio import read_audio
from visavis.stages.media.opening import judged, open_bytes, open_container

_PLAIN = {(form, SAMPLE_RATE, 1) for form in ("WAV", "WAVEX")}
_UNPACKED = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")  # what is packed goes to FFmpeg, as all else
_LOUDEST = 8.0  # of floating-point sound; 16-bit numbers that were not divided reach thousands
AV_TIME_BASE = 1_000_000
"""Ticks a second in which FFmpeg says how long a file is."""


def codec_of(layout: CorpusLayout, exp: int | None) -> str:
    """The codec of a layout's motion. exp: coefficients of expression; None: as it usually has them.

    Raises:
        UsageError: the layout has fewer.
    """
    if layout == "unils":
        if (exp or 0) > unils.EXPRESSION:
            raise UsageError(f"recording.exp={exp}: UniLSTalk has {unils.EXPRESSION} coefficients of expression")
        sizes = {"exp": exp or unils.EXPRESSION, "jaw": 3, "pose": 3, "eyes": 6}
        return codec_name("flame", sizes)
    if layout == "seamless":
        sizes = {"exp": exp or seamless.EXPRESSION, "pose": 3, "place": 3, "gaze": seamless.GAZE}
        return codec_name("seamless", sizes)
    if layout == "vico":
        if (exp or 0) > vico.EXPRESSION:
            raise UsageError(f"recording.exp={exp}: ViCo has {vico.EXPRESSION} coefficients of expression")
        return codec_name("3dmm", {"exp": exp or vico.EXPRESSION, "pose": 3, "place": 3})
    return codec_name("flame", {"exp": exp or dualtalk.EXPRESSION, "jaw": 3, "pose": 3})


def motion_of(layout: CorpusLayout, person: RecordedPerson, exp: int | None, clock: RecordedPerson) -> Taken:
    """
    Args:
        clock: whose sound tells how long the motion is: the person, or the other one.

    Raises:
        Rejected: UNREADABLE; NO_AUDIO, where nothing else tells the motion's rate.
    """
    if layout == "unils":
        return unils.read_code(person.motion, person.key, exp or unils.EXPRESSION)
    if layout in ("seamless", "vico"):
        if not clock.sound:
            raise Rejected(Reason.NO_AUDIO, f"{person.name}: without a voice nobody knows the rate of its motion")
        seconds = voice_seconds(layout, clock)
        if layout == "seamless":
            return seamless.read_movement(person.motion, seconds, exp or seamless.EXPRESSION)
        return vico.read_coefficients(person.motion, seconds, exp or vico.EXPRESSION)
    return dualtalk.read_flame(person.motion, exp or dualtalk.EXPRESSION)


def voice_seconds(layout: CorpusLayout, person: RecordedPerson) -> float:
    """How long a voice is, as its file says.

    Raises:
        Rejected: UNREADABLE, NO_AUDIO.
    """
    if layout == "unils":
        return unils.read_voice(person.sound, person.key).size / SAMPLE_RATE
    with open_container(person.sound) as container:
        for stream in container.streams.audio:
            if stream.duration is not None and stream.time_base is not None:
                return float(stream.duration * stream.time_base)
        if container.streams.audio and container.duration is not None:
            return container.duration / AV_TIME_BASE
    raise Rejected(Reason.NO_AUDIO, file_name(person.sound))


def voice_of(layout: CorpusLayout, person: RecordedPerson, frames: int) -> np.ndarray:
    """float32 [640 · frames] in −1…1 at 16 kHz, cut, or padded with silence. Silence, where nobody is heard. What goes
    a little beyond −1…1 is clipped when it is stored.

    Raises:
        Rejected: UNREADABLE, also of another scale, which clipping would leave as squares; NO_AUDIO.
    """
    if not person.sound:
        return np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
    if layout == "unils":
        heard = unils.read_voice(person.sound, person.key)[: frames * SAMPLES_PER_FRAME]
        heard = np.pad(heard, (0, frames * SAMPLES_PER_FRAME - len(heard)))
    else:
        plain = _plain_wav(person.sound, frames)
        heard = read_audio(person.sound, frames) if plain is None else plain
    if (most := float(np.abs(heard).max(initial=0))) > _LOUDEST:
        where = person.key or file_name(person.sound)
        raise Rejected(Reason.UNREADABLE, f"{where}: sound reaches {most:g}, and −1 to 1 is expected")
    return heard


def _plain_wav(uri: str, frames: int) -> np.ndarray | None:
    """A mono WAV at 16 kHz as it is, sample by sample, so that what is exported and imported stays what it was; None
    of any other file, which is decoded, mixed and resampled as a film's sound."""
    wanted = frames * SAMPLES_PER_FRAME
    with open_bytes(uri) as file, judged(uri, file):
        if file.read(4) != b"RIFF":  # libsndfile would open thirty other formats
            return None
        file.seek(0)
        with soundfile.SoundFile(file) as sound:
            if (sound.format, sound.samplerate, sound.channels) not in _PLAIN or sound.subtype not in _UNPACKED:
                return None
            if sound.subtype == "PCM_16":
                heard = sound.read(wanted, dtype="int16") / np.float32(32767.0)
            else:
                heard = sound.read(wanted, dtype="float32")
        if not np.isfinite(heard).all():
            raise ValueError("sound that is not finite")
    return np.pad(heard, (0, wanted - len(heard)))

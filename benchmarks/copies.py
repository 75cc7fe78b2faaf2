"""What happens to a conversation on its way: copies that are not the same bytes (`benchmarks.near_duplicates`)."""

from __future__ import annotations

import io
from collections.abc import Callable

import av
import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.filter import Graph
from scipy.signal import resample_poly

from visavis.schemas import SAMPLE_RATE

Tracks = tuple[np.ndarray, np.ndarray]
"""What each person says, float32 [N] at 16 kHz; their sum is what a film of both has."""

Copy = Callable[[Tracks, Tracks, np.random.Generator], Tracks]
"""Makes a copy; the second is another conversation."""

_ENCODERS = {"mp3": ("libmp3lame", "mp3", 24_000), "opus": ("libopus", "ogg", 12_000), "aac": ("aac", "mp4", 24_000)}
_FRAME = 1024  # samples of an encoder that does not mind


def mix(tracks: Tracks) -> np.ndarray:
    return tracks[0] + tracks[1]


def encoded(audio_N: np.ndarray, codec: str, bits: int = 0) -> np.ndarray:
    """Encoded and decoded again; bits: a second, none: few."""
    name, container, few = _ENCODERS[codec]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as writer:
        stream = writer.add_stream(name, rate=SAMPLE_RATE)
        assert isinstance(stream, AudioStream)
        stream.bit_rate, stream.layout = bits or few, "mono"
        fifo, format_ = AudioFifo(), "flt" if codec == "opus" else "fltp"
        sound = AudioFrame.from_ndarray(np.asarray(audio_N, np.float32)[None], format=format_, layout="mono")
        sound.sample_rate = SAMPLE_RATE
        fifo.write(sound)
        size = stream.codec_context.frame_size or _FRAME
        while (piece := fifo.read(size, partial=True)) is not None:
            writer.mux(stream.encode(piece))
        writer.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as reader:
        resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        pieces = [p.to_ndarray()[0] for frame in reader.decode(audio=0) for p in resampler.resample(frame)]
    return np.concatenate(pieces)


def mixed(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Copy:
    """A copy of the mix of both."""

    def copy(tracks: Tracks, other: Tracks, random: np.random.Generator) -> Tracks:
        audio_N = change(mix(tracks), random).astype(np.float32)
        return audio_N, np.zeros_like(audio_N)

    return copy


def re_encoded(audio_N: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return encoded(audio_N, str(random.choice([*_ENCODERS])))


def trimmed(audio_N: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Of five to twenty per cent at either end."""
    first, last = (random.uniform(0.05, 0.2, 2) * len(audio_N)).astype(int)
    return audio_N[first : len(audio_N) - last]


def faster(audio_N: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """By one per cent: as a tape, or with the pitch kept."""
    if random.random() < 0.5:
        return np.asarray(resample_poly(audio_N, 100, 101))
    return at_tempo(audio_N, 1.01)


def at_tempo(audio_N: np.ndarray, tempo: float) -> np.ndarray:
    """Faster at the same pitch."""
    graph = Graph()
    source = graph.add_abuffer(sample_rate=SAMPLE_RATE, format="flt", layout="mono", time_base=None)
    nodes = [source, graph.add("atempo", str(tempo)), graph.add("aformat", "flt"), graph.add("abuffersink")]
    graph.link_nodes(*nodes).configure()
    sound = AudioFrame.from_ndarray(np.asarray(audio_N, np.float32)[None], format="flt", layout="mono")
    sound.sample_rate = SAMPLE_RATE
    nodes[0].push(sound)
    nodes[0].push(None)
    pieces: list[np.ndarray] = []
    while True:
        try:
            frame = nodes[-1].pull()
            assert isinstance(frame, AudioFrame)
            pieces.append(frame.to_ndarray()[0])
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(pieces)


def noisy(audio_N: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """10 to 25 dB above white noise, fainter or louder than it was, clipped where it is too loud."""
    noise = np.sqrt(np.mean(audio_N**2)) * 10 ** (random.uniform(-25, -10) / 20)
    gain = 10 ** (random.uniform(-20, 10) / 20)
    return np.asarray(np.clip(gain * (audio_N + noise * random.standard_normal(len(audio_N))), -1, 1))


def cropped(audio_N: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Of the picture: the sound is encoded anew, well."""
    return encoded(audio_N, "aac", 96_000)


def of_telephone(audio_N: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.asarray(resample_poly(resample_poly(audio_N, 1, 2), 2, 1))


def louder(tracks: Tracks, other: Tracks, random: np.random.Generator) -> Tracks:
    """One of the two people, by 6 to 12 dB; and the tracks are swapped."""
    gains = random.permutation([1.0, 10 ** (random.uniform(6, 12) / 20)]).astype(np.float32)
    return gains[0] * tracks[1], gains[1] * tracks[0]


def titled(tracks: Tracks, other: Tracks, random: np.random.Generator) -> Tracks:
    """A quarter of something else before it."""
    first = int(random.uniform(0.1, 0.25) * len(tracks[0]))
    one, two = (np.concatenate([before[:first], track]) for before, track in zip(other, tracks, strict=True))
    return one, two


COPIES: dict[str, Copy] = {
    "re-encoded": mixed(re_encoded), "trimmed": mixed(trimmed), "faster": mixed(faster), "noisy": mixed(noisy),
    "cropped": mixed(cropped), "louder": louder, "8 kHz": mixed(of_telephone), "titled": titled,
}  # fmt: skip

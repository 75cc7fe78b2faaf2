"""Who speaks when in one mixed track, from networks that ship in wheels.

Three cues, each good at what the others are bad at:

    Silero VAD     where somebody speaks, its edges by the level of the sound; misses distant and quiet talkers
    segmentation   within 5 s: which frames share a voice, and overlap; knows nobody across chunks
    GE2E encoder   the same voice anywhere in the conversation, but blurred over its 1.6 s window

Voice windows are clustered in two (spherical k-means); then a two-state Viterbi path over frames and the two
centroids are refined in turn. A frame's evidence is its window's lead for one centroid plus the segmentation's
local voices, each of which follows the centroid that its frames vote for, weighted by how unanimous the vote is.
A split is believed only if the segmentation saw two voices too, or if the centroids lie far apart, so that a
monologue stays one voice; each side is then tried again, so that a third person shows.

Why not pyannote's SpeakerDiarization over the same two networks: told that there are two speakers it reached 9.9 %
DER over nine short two-person clips and 43 % on pyannote's own 30 s sample; this reaches 5.2 % and 6.6 % (no collar,
overlap counted; `python -m benchmarks.diarization`).

Shape suffixes: N samples, F frames of `STEP` samples, C chunks, K frames of a chunk, W voice windows, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view

from schemas import SAMPLE_RATE
from schemas.rows import Turn
from stages.embedded import VAD_STEP, SpeakerEncoder, load_segmentation, load_speaker_encoder, load_voice_activity
from stages.speech import HEARD, heard_spans, runs
from stages.viterbi import viterbi

STEP = 270  # samples between frames of the segmentation
CENTRE = 495  # sample in the middle of its first frame
CHUNK = 80_000  # samples it hears at once
CHUNK_FRAMES = 293
HOP = 30  # frames between chunks: 0.5 s
OVERLAP = 0.6  # activity of the second local voice above which both speak; stricter, since overlap is rare
WINDOW = SpeakerEncoder.window
WINDOW_HOP = 1600  # samples between voice windows
EMBEDDING = 256  # numbers that stand for the voice in a window
PURE = 0.6  # least share of speech in a voice window used for clustering
SWITCH = 10.0  # cost of a change of speaker on the Viterbi path, in frames of unanimous evidence
CERTAIN = 0.8  # activity from which the segmentation is believed where the VAD hears nothing, …
MISSED = 0.3  # … if it lasts as many seconds; less of either fills the pauses between turns
SNAP = 0.25  # seconds within which a turn's edge moves to the edge that was heard
AGREED = 0.25  # least share of a split's frames that the segmentation also gives to two voices
BALANCED = 0.15  # without that: least share of the quieter side, …
SHORT = 1.2  # … and seconds: what the distance of two centroids gains by chance is about this over their speech
SHORT_AGAIN = 1.8  # the same for a third person, who is less likely than a second
TRIABLE = 3.0  # seconds of speech below which no split is tried
ALONE = 0.8  # seconds below which a word between two pauses is embedded by itself, …
TOO_SHORT = 0.15  # … and below which that says nothing
REDUCED = 16  # numbers kept of an embedding for later stages
BATCH = 8  # the segmentation takes 10 MB for each; larger batches are no faster on a CPU
_PART = 500  # chunks looked at together: four minutes


@dataclass(frozen=True)
class Cues:
    """What the networks hear. speech_F bool; local_CK3, window_WE float32; pure_W: share of sure speech."""

    samples: int
    speech: np.ndarray
    local: np.ndarray
    window: np.ndarray
    pure: np.ndarray
    gain: float  # that the encoder hears the sound with
    starts: np.ndarray  # seconds at which speech is heard to begin, and to end
    ends: np.ndarray


@dataclass(frozen=True)
class Split:
    """Two sides of some speech. first_F: bool, the path is on side one. distance: of the unit centroids, 0…2.

    agreement: share of the smaller side's frames, in chunks that hear both, which the segmentation sets apart.
    """

    first: np.ndarray
    distance: float
    agreement: float


class Heard(NamedTuple):
    """What the ear makes of a track.

    turns: sorted by (start, speaker). believed: how many voices it is sure of, 0 without speech. voices: float16
    [W, E], E ≤ `REDUCED`: how the voice sounds around each tenth of a second, NaN where nobody speaks.
    """

    turns: list[Turn]
    believed: int
    voices: np.ndarray


class EmbeddedDiarizer:
    """float32 [N] at 16 kHz → turns, any number of speakers. Loads its networks when made."""

    def __init__(self, threshold: float, device: str = "cpu") -> None:
        self.threshold = threshold
        self.device = device
        self._activity = load_voice_activity()
        self._segmentation = load_segmentation(device)
        self._encoder = load_speaker_encoder(device)

    def __call__(self, audio_N: np.ndarray) -> list[Turn]:
        return self.listen(audio_N).turns

    def listen(self, audio_N: np.ndarray) -> Heard:
        """The best guess and its doubt: two voices wherever there is speech enough to split, believed or not."""
        cues = self.hear(audio_N)
        believed = self._voices(cues, cues.speech)
        voices = believed if len(believed) != 1 else self._sides(cues, cues.speech)
        if len(voices) == 2:
            voices = self._reheard(audio_N, cues, voices)
            both = spread(np.sort(cues.local, axis=2)[:, :, 1], len(cues.speech)) > OVERLAP
            voices = [voice | (both & cues.speech) for voice in voices]
        turns = (turn for i, voice_F in enumerate(voices) for turn in _turns(voice_F, i, cues))
        return Heard(sorted(turns, key=lambda t: (t.start, t.speaker)), len(believed), reduced(cues))

    @torch.inference_mode()
    def hear(self, audio_N: np.ndarray) -> Cues:
        """Run the three networks. Memory beyond the audio: about 60 MB per hour, and one batch."""
        frames = max(1, (len(audio_N) - CENTRE) // STEP + 1)
        vad = self._activity(audio_N)
        centres = np.minimum((np.arange(frames) * STEP + CENTRE) // VAD_STEP, len(vad) - 1)
        sure_F = vad[centres] > HEARD
        # Results go into arrays made beforehand: kept one by one among the networks' large temporaries, they would
        # pin the heap, which took 0.6 GB more for an hour.
        local = np.empty((max(1, -(-(len(audio_N) - CHUNK) // (HOP * STEP)) + 1), CHUNK_FRAMES, 3), np.float32)
        for part, waves in self._chunks(audio_N, len(local)):
            local[part] = self._segmentation(waves[:, None]).cpu().numpy()
        unsure_F = (spread(local.max(axis=2), frames) > CERTAIN) & ~sure_F
        speech_F = sure_F | _longer(unsure_F, MISSED)
        window = np.empty((len(audio_N) // WINDOW_HOP + 1, EMBEDDING), np.float32)
        gain = _gain(audio_N, vad)
        for part, mels in self._mels(audio_N, len(window), gain):
            window[part] = self._encoder(mels).cpu().numpy()
        width = WINDOW // STEP
        at_W = window_frames(len(window), frames)
        whole_W = (at_W >= width // 2) & (at_W < frames - width // 2)  # the others reach past the ends
        pure_W = _moving_mean(sure_F, width)[at_W] * whole_W
        edges = heard_spans(vad, audio_N)
        return Cues(len(audio_N), speech_F, local, window, pure_W, gain, edges[:, 0], edges[:, 1])

    def _chunks(self, audio_N: np.ndarray, count: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """(which of them, [B, 80000]) of the chunks."""
        for part in _batches(count):
            piece = _stretch(audio_N, part.start * HOP * STEP, (part.stop - 1) * HOP * STEP + CHUNK)
            waves = sliding_window_view(piece, CHUNK)[:: HOP * STEP].copy()
            yield part, torch.from_numpy(waves).to(self.device)

    def _mels(self, audio_N: np.ndarray, count: int, gain: float) -> Iterator[tuple[slice, torch.Tensor]]:
        """(which of them, spectrograms [B, 160, 40]) of windows centred on multiples of WINDOW_HOP."""
        encoder, step = self._encoder, WINDOW_HOP // 160
        margin = WINDOW // 2 + 200  # a spectrogram frame looks 200 samples to either side of its time
        for part in _batches(count):
            begin, end = (n * WINDOW_HOP - margin for n in (part.start, part.stop - 1))
            piece = _stretch(audio_N, begin, end + (encoder.frames - 1) * 160 + 400) * gain
            mel = encoder.mel(torch.from_numpy(piece).to(self.device))
            yield part, mel.unfold(0, encoder.frames, step).transpose(1, 2)

    def _voices(self, cues: Cues, part_F: np.ndarray) -> list[np.ndarray]:
        """Masks [F] of the voices in a part of the speech; empty without speech."""
        if not part_F.any():
            return []
        if part_F.sum() * STEP < TRIABLE * SAMPLE_RATE:
            return [part_F]
        split = divide(cues, part_F)
        sides = [part_F & split.first, part_F & ~split.first]
        whole = bool(part_F.sum() == cues.speech.sum())
        if not self._believed(split, sides, SHORT if whole else SHORT_AGAIN):
            return [part_F]
        return [voice for side in sides for voice in self._voices(cues, side)]

    def _sides(self, cues: Cues, part_F: np.ndarray) -> list[np.ndarray]:
        """The best split in two [F], whether believed or not; the part itself where there is too little speech."""
        if part_F.sum() * STEP < TRIABLE * SAMPLE_RATE:
            return [part_F]
        split = divide(cues, part_F)
        return [side for side in (part_F & split.first, part_F & ~split.first) if side.any()]

    @torch.inference_mode()
    def _reheard(self, audio_N: np.ndarray, cues: Cues, voices: list[np.ndarray]) -> list[np.ndarray]:
        """Short words between pauses go to the voice that they are closest to by themselves.

        A window of 1.6 s around them is full of what others say before and after.
        """
        first_F, second_F = (voice.copy() for voice in voices)
        at_W = window_frames(len(cues.window), len(first_F))
        side_W = _moving_mean(first_F.astype(np.float64) - second_F, WINDOW // STEP)[at_W]
        centroids = [
            _mean_direction(cues.window, np.maximum(sign * side_W - 0.3, 0) * (cues.pure > 0.3), cues.window[0])
            for sign in (1, -1)
        ]
        for begin, end in runs(first_F | second_F):
            seconds = (end - begin) * STEP / SAMPLE_RATE
            whose = first_F[begin:end]
            if TOO_SHORT < seconds < ALONE and (whose.all() or not whose.any()):
                edges = (edge * STEP + CENTRE - STEP // 2 for edge in (begin, end))
                embedding_E = self._embedded(audio_N[slice(*edges)] * cues.gain)
                first_F[begin:end] = embedding_E @ (centroids[0] - centroids[1]) > 0
                second_F[begin:end] = ~first_F[begin:end]
        return [first_F, second_F]

    def _embedded(self, word_N: np.ndarray) -> np.ndarray:
        """One embedding [E] of a sound shorter than a window, which is repeated to fill it."""
        filled = torch.from_numpy(np.resize(word_N, WINDOW + 400)).to(self.device)
        embedding: np.ndarray = self._encoder(self._encoder.mel(filled)[None, : self._encoder.frames]).cpu().numpy()[0]
        return embedding

    def _believed(self, split: Split, sides: list[np.ndarray], short: float) -> bool:
        first, second = (side.sum() * STEP / SAMPLE_RATE for side in sides)
        if split.agreement >= AGREED:
            return True
        far = split.distance >= self.threshold + short / (first + second)
        return bool(far and min(first, second) >= BALANCED * (first + second))


def reduced(cues: Cues) -> np.ndarray:
    """The voice windows [W, E] along the directions in which this conversation's voices differ most, NaN in silence."""
    heard_W = cues.speech[window_frames(len(cues.window), len(cues.speech))]
    points_WE = cues.window - cues.window[heard_W].mean(axis=0) if heard_W.any() else cues.window
    spread_EE = points_WE[heard_W].T @ points_WE[heard_W]
    directions_EE = np.linalg.eigh(spread_EE)[1][:, ::-1][:, :REDUCED]
    return np.where(heard_W[:, None], points_WE @ directions_EE, np.nan).astype(np.float16)


def divide(cues: Cues, part_F: np.ndarray, rounds: int = 6) -> Split:
    """Split the frames of `part_F` between the two voices that explain them best."""
    frames = len(part_F)
    at_W = window_frames(len(cues.window), frames)
    width = WINDOW // STEP
    pure_W = cues.pure * _moving_mean(part_F, width)[at_W] / np.maximum(_moving_mean(cues.speech, width)[at_W], 1e-9)
    used = pure_W > min(PURE, np.sort(pure_W)[-min(10, len(pure_W))] - 1e-9)
    centroids = _two_means(cues.window[used], pure_W[used])
    for _ in range(rounds):
        lead_W = cues.window @ (centroids[0] - centroids[1])
        lead_W /= max(float(np.abs(lead_W[used]).mean()), 1e-9)
        lead_F = np.interp(np.arange(frames), at_W, lead_W)
        evidence_F = (lead_F + _local_evidence(cues.local, np.where(part_F, lead_F, 0))) * part_F
        first_F = viterbi(evidence_F, SWITCH)
        side_W = _moving_mean(np.where(first_F, 1.0, -1.0) * part_F, width)[at_W]
        refined = np.stack(
            [
                _mean_direction(cues.window, np.maximum(sign * side_W - 0.3, 0) * used, old)
                for sign, old in zip((1, -1), centroids, strict=True)
            ]
        )
        if np.allclose(refined, centroids):
            break
        centroids = refined
    distance = float(np.linalg.norm(centroids[0] - centroids[1]))
    return Split(first_F, distance, _agreement(cues.local, first_F, part_F))


def _local_evidence(local_CK3: np.ndarray, lead_F: np.ndarray) -> np.ndarray:
    """What the segmentation says for side one [F], −1…1, when its local voices follow the lead of their frames."""
    lead_CK = chunked(lead_F, len(local_CK3))
    parts = (slice(first, first + _PART) for first in range(0, len(local_CK3), _PART))
    return spread(np.concatenate([_leading(local_CK3[part], lead_CK[part]) for part in parts]), len(lead_F))


def _leading(local_CK3: np.ndarray, lead_CK: np.ndarray) -> np.ndarray:
    """The evidence of each chunk [C, K]."""
    lead_CK1 = lead_CK[:, :, None]
    active = local_CK3 > HEARD
    alone = active & (active.sum(axis=2, keepdims=True) == 1)
    counted = np.where(alone.any(axis=1, keepdims=True), alone, active)
    vote_C3 = (lead_CK1 * counted).sum(axis=1)
    unanimous_C3 = np.abs(vote_C3) / np.maximum((np.abs(lead_CK1) * counted).sum(axis=1), 1e-9)
    side_C3 = np.sign(vote_C3)
    # Two voices of one chunk are two people: of those that vote alike, the fainter vote changes sides.
    order = np.argsort(-active.sum(axis=1), axis=1, kind="stable")[:, :2]
    rows = np.arange(len(side_C3))[:, None]
    votes_C2, sides_C2 = vote_C3[rows, order], side_C3[rows, order]
    heard_C2 = np.take_along_axis(active.any(axis=1), order, axis=1)
    alike = (sides_C2[:, 0] == sides_C2[:, 1]) & heard_C2[:, 1]
    larger = votes_C2.argmax(axis=1)
    side_C3[rows[alike], order[alike]] = np.where(np.arange(2) == larger[alike, None], 1.0, -1.0)
    heard_CK3 = local_CK3 * unanimous_C3[:, None]
    sides = [(heard_CK3 * (side_C3 == sign)[:, None]).max(axis=2) for sign in (1, -1)]
    leading: np.ndarray = sides[0] - sides[1]
    return leading


def _agreement(local_CK3: np.ndarray, first_F: np.ndarray, part_F: np.ndarray) -> float:
    active = local_CK3 > HEARD
    alone = active & (active.sum(axis=2, keepdims=True) == 1)
    on_first, on_second = (
        (alone * chunked(side_F, len(local_CK3))[:, :, None]).sum(axis=1)
        for side_F in (part_F & first_F, part_F & ~first_F)
    )
    smaller = np.minimum(on_first.sum(axis=1), on_second.sum(axis=1))
    both = smaller >= HOP  # half a second of each
    merged = np.maximum(on_first.sum(axis=1), on_second.sum(axis=1))  # frames explained by a single voice
    gained = np.maximum(on_first, on_second).sum(axis=1) - merged
    return float(gained[both].sum() / smaller[both].sum()) if both.any() else 0.0


def chunked(values_F: np.ndarray, chunks: int) -> np.ndarray:
    """[F] cut into the chunks of the segmentation [C, K], zeros past the end."""
    padded = np.pad(values_F, (0, max(0, (chunks - 1) * HOP + CHUNK_FRAMES - len(values_F))))
    return sliding_window_view(padded, CHUNK_FRAMES)[::HOP][:chunks]


def spread(values_CK: np.ndarray, frames: int) -> np.ndarray:
    """Mean over the chunks that cover each frame: the inverse of `chunked`, [F]."""
    size = max(frames, (len(values_CK) - 1) * HOP + CHUNK_FRAMES)
    total, count = np.zeros(size), np.zeros(size)
    for i, values in enumerate(values_CK):
        total[i * HOP : i * HOP + CHUNK_FRAMES] += values
        count[i * HOP : i * HOP + CHUNK_FRAMES] += 1
    return (total / np.maximum(count, 1))[:frames]


def window_frames(windows: int, frames: int) -> np.ndarray:
    """The frame in the middle of each voice window."""
    return np.clip(np.round((np.arange(windows) * WINDOW_HOP - CENTRE) / STEP).astype(int), 0, frames - 1)


def _two_means(points_WE: np.ndarray, weight_W: np.ndarray, starts: int = 24) -> np.ndarray:
    """Centroids [2, E] of weighted spherical 2-means, the best of several seeded starts."""
    rng = np.random.default_rng(0)
    best, best_score = points_WE[[0, 0]], -np.inf
    for start in range(starts):
        i = int(rng.integers(len(points_WE)))
        j = int((points_WE @ points_WE[i]).argmin()) if start % 2 else int(rng.integers(len(points_WE)))
        centroids = points_WE[[i, j]]
        for _ in range(30):
            side = (points_WE @ centroids.T).argmax(axis=1)
            moved = np.stack([_mean_direction(points_WE, weight_W * (side == k), centroids[k]) for k in (0, 1)])
            if np.allclose(moved, centroids):
                break
            centroids = moved
        score = float((weight_W * (points_WE @ centroids.T).max(axis=1)).sum())
        if score > best_score + 1e-9:
            best, best_score = centroids, score
    return best


def _batches(count: int) -> Iterator[slice]:
    for first in range(0, count, BATCH):
        yield slice(first, min(first + BATCH, count))


def _stretch(audio_N: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Samples begin … end − 1, silence outside the audio."""
    before, inside = max(0, -begin), audio_N[max(0, begin) : max(0, end)]
    return np.pad(inside, (before, end - begin - before - len(inside)))


def _mean_direction(points_WE: np.ndarray, weight_W: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    mean = weight_W @ points_WE
    norm = float(np.linalg.norm(mean))
    return mean / norm if norm > 1e-9 else otherwise


def _moving_mean(values_F: np.ndarray, width: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(np.pad(values_F.astype(np.float64), (width // 2, width - width // 2)))])
    return (total[width:] - total[:-width])[: len(values_F)] / width


def _gain(audio_N: np.ndarray, vad: np.ndarray) -> float:
    """Raises quiet speech to −30 dBFS, as in the encoder's training; loud speech stays."""
    power = sum(
        float(np.square(audio_N[i * VAD_STEP : (i + 1) * VAD_STEP]).mean()) for i in np.flatnonzero(vad > HEARD)
    ) / max(1, int((vad > HEARD).sum()))
    return max(1.0, 10 ** (-30 / 20) / power**0.5) if power else 1.0


def _longer(mask: np.ndarray, seconds: float) -> np.ndarray:
    """The runs of a mask that last at least so long."""
    kept = np.zeros_like(mask)
    for first, last in runs(mask):
        kept[first:last] = (last - first) * STEP >= seconds * SAMPLE_RATE
    return kept


def _turns(voice_F: np.ndarray, speaker: int, cues: Cues) -> Iterator[Turn]:
    half = CENTRE - STEP / 2
    for first, last in runs(voice_F):
        start, end = ((edge * STEP + half) / SAMPLE_RATE for edge in (first, last))
        start = _nearest(cues.starts, 0.0 if first == 0 else start)
        end = _nearest(cues.ends, min(end, cues.samples / SAMPLE_RATE))
        if end > start:
            yield Turn(speaker=speaker, start=start, end=min(end, cues.samples / SAMPLE_RATE))


def _nearest(edges: np.ndarray, time: float) -> float:
    if not len(edges):
        return time
    edge = float(edges[np.abs(edges - time).argmin()])
    return edge if abs(edge - time) <= SNAP else time

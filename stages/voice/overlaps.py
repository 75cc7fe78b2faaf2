"""Where two people speak at once: what a separation network makes of the mix there, as each participant's voice.

    windows_of   4 s of the mix around an overlap or several, at least a second of context on either side; long ones cut
    settle       scales of the two outputs by least squares, and what is left of the mix shared out: they sum to the mix
    is_crossed   which output is whose: by the sound of the voices, and by who is heard where only one speaks
    patches      all of it, ready to be laid over the turn masks with a crossfade

The trade-off: only overlaps are touched, so nothing is lost where one person speaks alone; how well two voices come
apart in an overlap is the network's affair. Sharing out the rest is the mixture consistency of Wisdom et al. 2019
(arXiv 1811.08521), weighted by the short-time power of the differentiated outputs: what an 8 kHz network leaves over
lies above 4 kHz, and hiss goes to whom it fits. With the true voices at 8 kHz in place of a network, those of eight
pairs come back with a median SI-SDR of 19 to 24 dB (`benchmarks.separation`).

Whose voice it is, is asked of half a second on either side too: an overlap of 0.2 s says too little by itself.

Shape suffixes: N samples, B windows, K samples of a part of the mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.optimize import nnls

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import turn_mask

if TYPE_CHECKING:
    from visavis.stages.models.networks import SpeakerEncoder
    from visavis.stages.voice.separator import Separator

WINDOW = 4 * SAMPLE_RATE
CONTEXT = SAMPLE_RATE  # least of it on either side of an overlap
SHORTEST = SAMPLE_RATE // 10  # samples; shorter overlaps are left to the masks
_BATCH = 8  # windows at a time: a GPU is busy, and memory bounded
_NEAR = SAMPLE_RATE // 2  # samples on either side that help to tell whose voice it is
_SMOOTH = SAMPLE_RATE // 50  # samples over which shares of the rest are smoothed
_HEARD_WEIGHT = 0.2  # of being heard where the other is silent, against the likeness of voices
_SPEECH_RMS = 10 ** (-30 / 20)  # of full scale, as the speaker encoder was trained
_LEAST_VOICE = SAMPLE_RATE // 2  # samples; less speech is no picture of a voice
_MOST_ALONE = 60 * SAMPLE_RATE
_MOST_VOICE = 20  # windows of 1.6 s that make the picture of a voice

Span = tuple[int, int]
"""Samples [first, last)."""

Pictures = tuple[np.ndarray, np.ndarray]
"""Of the participants' voices: float32 [256] each, see `picture`."""

NOBODY, ONE, OTHER, BOTH = range(4)
"""Who speaks: bit i is participant i."""


@dataclass(frozen=True)
class Window:
    """Samples [first, first + WINDOW) of the mix, and the overlaps or parts of one that are wanted of it."""

    first: int
    parts: tuple[Span, ...]


@dataclass(frozen=True)
class Patch:
    """Both voices at samples [first, first + K): voices_2K float32, and their weight_K against the masks, 0…1."""

    first: int
    voices: np.ndarray
    weight: np.ndarray

    @property
    def span(self) -> slice:
        """Where it lies in the mix."""
        return slice(self.first, self.first + len(self.weight))


@dataclass(frozen=True)
class Speech:
    """A mix_N, and the spans in which nobody, only participant 0, only 1, or both speak."""

    mix: np.ndarray
    spans: tuple[list[Span], ...]

    @classmethod
    def of(cls, mix_N: np.ndarray, turns: Sequence[Turn]) -> Speech:
        """By turns of participants 0 and 1."""
        return cls(mix_N, spans_by_state(turns, len(mix_N)))

    def alone(self, participant: int) -> np.ndarray:
        """What a participant says alone, the first minute of it joined, float32 [K]."""
        pieces, room = [np.zeros(0, np.float32)], _MOST_ALONE
        for first, last in self.spans[1 << participant]:
            pieces.append(self.mix[first : min(last, first + room)])
            room -= len(pieces[-1])
        return np.concatenate(pieces)


def spans_by_state(turns: Sequence[Turn], samples: int) -> tuple[list[Span], ...]:
    """Spans of [0, samples) by who speaks: NOBODY, ONE, OTHER, BOTH; each sorted, disjoint and as long as can be."""
    changes = [
        (min(max(0, round(edge * SAMPLE_RATE)), samples), turn.speaker, step)
        for turn in turns
        for edge, step in ((turn.start, 1), (turn.end, -1))
    ]
    spans: tuple[list[Span], ...] = ([], [], [], [])
    speaking, last = [0, 0], 0
    for position, speaker, step in [*sorted(changes), (samples, 0, 0)]:
        state = (speaking[0] > 0) | (speaking[1] > 0) << 1
        if position > last:
            joins = bool(spans[state]) and spans[state][-1][1] == last
            begin = spans[state].pop()[0] if joins else last
            spans[state].append((begin, position))
            last = position
        speaking[speaker] += step
    return spans


def windows_of(overlaps: Sequence[Span], samples: int) -> list[Window]:
    """Windows of one size, so that they make batches; overlaps that are close share one."""
    most = WINDOW - 2 * CONTEXT
    groups: list[list[Span]] = []
    for first, last in overlaps:
        for begin in range(first, last, most):
            part = (begin, min(begin + most, last))
            if groups and part[1] - groups[-1][0][0] <= most:
                groups[-1].append(part)
            else:
                groups.append([part])
    middles = ((group[0][0] + group[-1][1]) // 2 for group in groups)
    firsts = (max(0, min(middle - WINDOW // 2, samples - WINDOW)) for middle in middles)
    return [Window(first, tuple(group)) for first, group in zip(firsts, groups, strict=True)]


def patches(
    speech: Speech, pictures: Pictures, separator: Separator, encoder: SpeakerEncoder, fade: float
) -> list[Patch]:
    """Both voices wherever both speak for 0.1 s or more, sorted; no two meet.

    Args:
        pictures: of the participants' voices (`picture`).
        fade: seconds over which a patch comes and goes, outside of its overlap.
    """
    windows = windows_of([(a, b) for a, b in speech.spans[BOTH] if b - a >= SHORTEST], len(speech.mix))
    found: list[Patch] = []
    for first in range(0, len(windows), _BATCH):
        batch = windows[first : first + _BATCH]
        mixes_BN = np.stack([_stretch(speech.mix, window.first) for window in batch])
        for window, mix_N, voices_2N in zip(batch, mixes_BN, separator(mixes_BN), strict=True):
            settled_2N = settle(voices_2N, mix_N)
            for part in window.parts:
                crossed = is_crossed(settled_2N, window.first, part, speech, pictures, encoder)
                patch = _patch(settled_2N[::-1] if crossed else settled_2N, window.first, part, fade)
                if found and found[-1].span.stop > patch.first:
                    patch = _joined(found.pop(), patch)
                found.append(patch)
    return [_cut(patch, len(speech.mix)) for patch in found]


def settle(voices_2N: np.ndarray, mix_N: np.ndarray) -> np.ndarray:
    """Two outputs of any scale to voices that sum to the mix, float32 [2, N]."""
    gains, _ = nnls(voices_2N.T.astype(np.float64), mix_N.astype(np.float64))
    scaled_2N = voices_2N * gains[:, None]
    rest_N = mix_N - scaled_2N.sum(0)
    power_2N = uniform_filter1d(np.diff(scaled_2N, axis=1, prepend=0.0) ** 2, _SMOOTH, axis=1)
    total_N = power_2N.sum(0)
    share_N = np.divide(power_2N[0], total_N, out=np.full_like(total_N, 0.5), where=total_N > 0).clip(0, 1)
    one_N = (scaled_2N[0] + share_N * rest_N).astype(np.float32)
    return np.stack([one_N, mix_N - one_N])


def is_crossed(
    voices_2N: np.ndarray,
    first: int,
    part: Span,
    speech: Speech,
    pictures: Pictures,
    encoder: SpeakerEncoder,
) -> bool:
    """Whether output 0 is participant 1's voice.

    Args:
        voices_2N: a window's outputs, from sample `first` of the mix on.
    """
    near = (max(first, part[0] - _NEAR), min(first + voices_2N.shape[1], part[1] + _NEAR))
    heard = [picture(encoder, voice_N[near[0] - first : near[1] - first]) for voice_N in voices_2N]
    likeness = float((heard[0] - heard[1]) @ (pictures[0] - pictures[1]))
    presence = 0.0
    for participant, sign in ((0, 1.0), (1, -1.0)):
        spans = [(max(a, near[0]) - first, min(b, near[1]) - first) for a, b in speech.spans[1 << participant]]
        power_2 = sum((np.square(voices_2N[:, a:b]).sum(1) for a, b in spans if a < b), np.zeros(2))
        if power_2.any():
            presence += sign * float(power_2[0] - power_2[1]) / float(power_2.sum())
    return likeness + _HEARD_WEIGHT * presence < 0


def picture(encoder: SpeakerEncoder, voice_K: np.ndarray) -> np.ndarray:
    """What a voice sounds like, float32 [256] of unit length; zeros for less than half a second, or silence."""
    import torch

    rms = float(np.sqrt(np.square(voice_K).mean())) if len(voice_K) >= _LEAST_VOICE else 0.0
    if not rms:
        return np.zeros(256, np.float32)
    least = encoder.window + 240  # samples of a window's spectrogram
    if len(voice_K) < least:
        voice_K = np.tile(voice_K, -(-least // len(voice_K)))[:least]
    starts = np.linspace(0, len(voice_K) - least, min(_MOST_VOICE, 1 + 2 * (len(voice_K) - least) // least)).astype(int)
    with torch.inference_mode():
        pieces = (torch.from_numpy(voice_K[a : a + least] * np.float32(_SPEECH_RMS / rms)) for a in starts)
        mels = torch.stack([encoder.mel(piece.to(encoder.taper.device)) for piece in pieces])
        mean = encoder(mels).mean(0).cpu().numpy()
    unit: np.ndarray = mean / np.linalg.norm(mean)
    return unit


def _stretch(mix_N: np.ndarray, first: int) -> np.ndarray:
    """A window of the mix; silence beyond its end."""
    piece = mix_N[first : first + WINDOW]
    return np.pad(piece, (0, WINDOW - len(piece)))


def _patch(voices_2N: np.ndarray, offset: int, part: Span, fade: float) -> Patch:
    """A part of a window, whose first sample is `offset` of the mix, with as much around it as fades."""
    ramp = round(fade * SAMPLE_RATE)
    first, last = max(offset, part[0] - ramp), min(offset + voices_2N.shape[1], part[1] + ramp)
    inside = Turn(speaker=0, start=(part[0] - first) / SAMPLE_RATE, end=(part[1] - first) / SAMPLE_RATE)
    weight_K = turn_mask([inside], 0, -(-(last - first) // SAMPLES_PER_FRAME), fade)[: last - first]
    return Patch(first, voices_2N[:, first - offset : last - offset].copy(), weight_K)


def _joined(patch: Patch, later: Patch) -> Patch:
    """Two that meet as one, the later one faded in over the earlier."""
    shared = patch.span.stop - later.first
    rise = later.weight[:shared]
    voices = patch.voices[:, -shared:] * (1 - rise) + later.voices[:, :shared] * rise
    weight = patch.weight[-shared:] * (1 - rise) + rise
    return Patch(
        patch.first,
        np.concatenate([patch.voices[:, :-shared], voices, later.voices[:, shared:]], axis=1),
        np.concatenate([patch.weight[:-shared], weight, later.weight[shared:]]),
    )


def _cut(patch: Patch, samples: int) -> Patch:
    """Without what lies beyond the end of a mix shorter than a window."""
    room = samples - patch.first
    return replace(patch, voices=patch.voices[:, :room], weight=patch.weight[:room])

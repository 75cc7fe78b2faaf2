"""What is left of the other voice: separated tracks and their measured residuals against the truth.

    python -m benchmarks.separation [--quick] [--media FOLDER]

Mixes are made of the labelled two-person clips, whose people speak one after the other: what each says is known, and
is put together anew with overlaps. Weights of a separation network ship in no wheel, so stand-ins that know the truth
take its place, at 8 kHz as Conv-TasNet works, with scales and order drawn at random for each window:

    voices   the true voices: what is lost is lost by everything around the network
    mask     the ideal ratio mask (512 samples), about as good as Conv-TasNet on read speech
    noisy    the same with noise of 0.3 on the mask, as of a network that does not know the room
    leaky    each voice with the other at -10 dB

`residuals`: by how many dB the measured residual (`stages.voice.leakage`) is off the true one, over conversations.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.signal

from benchmarks.diarization import SIBLING, labelled_audio
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import read_audio, speech_state, turn_mask
from visavis.stages.separate import network_patches, patched, rehearsal
from visavis.stages.voice.leakage import frame_power, residual_of_mix, residual_of_tracks
from visavis.stages.voice.overlaps import BOTH, SHORTEST, WINDOW, Patch, Speech, Window, patches, picture, windows_of

if TYPE_CHECKING:
    from visavis.stages.models.networks import SpeakerEncoder

RATE = 8_000  # of the stand-ins
LEVEL = 0.05  # root mean square of each voice
FADE = 0.02
OVERLAPS = (0.2, 0.4, 0.8, 1.5)
LEAKS = (-10.0, -20.0, -30.0, -40.0)

Made = tuple[np.ndarray, list[Turn]]
"""Two people's voices apart, float32 [2, N] with N a whole number of frames, and their turns."""


def voice_pairs(media: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the two people of each clip say in which either speaks once, float32, all equally loud."""
    pairs = []
    for path, labels in labelled_audio(media).items():
        if not path.stem.endswith("_mix") or len(labels) != 2:
            continue
        audio_N = read_audio(str(path))
        said = [audio_N[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)] for start, end, _ in labels]
        one, other = (voice_N * np.float32(LEVEL / voice_N.std()) for voice_N in said)
        pairs.append((one, other))
    return pairs


def exchange(one_N: np.ndarray, other_N: np.ndarray, seconds: float, *, inside: bool) -> Made:
    """Both voices with one overlap: where the turn changes, or (`inside`) the other's last words amid a turn."""
    overlap = round(seconds * SAMPLE_RATE)
    said = [(0, 0, one_N), (1, len(one_N) - overlap, other_N)]
    if inside:
        cut = len(other_N) - overlap
        said[1:] = [(1, (len(one_N) - overlap) // 2, other_N[cut:]), (1, len(one_N), other_N[:cut])]
    return _laid_out(said)


def conversation(pairs: Sequence[tuple[np.ndarray, np.ndarray]], random: np.random.Generator) -> Made:
    """A minute of turns, pauses and overlaps; the two differ in level by up to 12 dB."""
    levels = 10 ** (random.uniform(-6, 6, 2) / 20)
    said, position = [], SAMPLE_RATE // 2
    for number, voice_N in enumerate(voice_N for pair in pairs for voice_N in pair):
        said.append((number % 2, position, voice_N * np.float32(levels[number % 2])))
        position += len(voice_N) + round(random.uniform(-1.2, 0.6) * SAMPLE_RATE)
    return _laid_out(said)


def _laid_out(said: Sequence[tuple[int, int, np.ndarray]]) -> Made:
    last = max(start + len(voice_N) for _, start, voice_N in said)
    voices_2N = np.zeros((2, -(-last // SAMPLES_PER_FRAME) * SAMPLES_PER_FRAME), np.float32)
    turns = []
    for speaker, start, voice_N in said:
        voices_2N[speaker, start : start + len(voice_N)] += voice_N
        turns.append(Turn(speaker=speaker, start=start / SAMPLE_RATE, end=(start + len(voice_N)) / SAMPLE_RATE))
    return voices_2N, turns


Parts = np.ndarray
"""float32 [2 outputs, 2 voices, N]: what a stand-in's outputs are made of."""


def as_it_is(voices_2N: np.ndarray) -> Parts:
    parts: Parts = np.eye(2, dtype=np.float32)[:, :, None] * voices_2N
    return parts


def leaky(voices_2N: np.ndarray) -> Parts:
    """Each with the other at -10 dB."""
    leak = 10 ** (-10 / 20)
    parts: Parts = np.array([[1, leak], [leak, 1]], np.float32)[:, :, None] * voices_2N
    return parts


def masked(voices_2N: np.ndarray, noise: float = 0.0) -> Parts:
    """Through the ideal ratio mask, with noise on it."""
    spectra = scipy.signal.stft(voices_2N, SAMPLE_RATE, nperseg=512)[2]
    power = np.abs(spectra) ** 2 + 1e-10
    mask = power[0] / power.sum(0)
    mask = np.clip(mask + noise * np.random.default_rng(0).standard_normal(mask.shape), 0, 1)
    parts = np.stack([mask, 1 - mask])[:, None] * spectra
    outputs: Parts = scipy.signal.istft(parts, SAMPLE_RATE, nperseg=512)[1][..., : voices_2N.shape[1]]
    return outputs.astype(np.float32)


def noisy(voices_2N: np.ndarray) -> Parts:
    return masked(voices_2N, 0.3)


STAND_INS: dict[str, Callable[[np.ndarray], Parts]] = {
    "voices": as_it_is,
    "mask": masked,
    "noisy": noisy,
    "leaky": leaky,
}


class StandIn:
    """A separator that knows the truth of a conversation and of its rehearsal. A `stages.voice.separator.Separator`."""

    def __init__(self, made: Made, spoil: Callable[[np.ndarray], Parts], seed: int = 0) -> None:
        voices_2N, turns = made
        self._random = np.random.default_rng(seed)
        self._spoil, self._known = spoil, list[tuple[np.ndarray, Parts]]()
        self.leak = np.zeros_like(voices_2N)
        """What the other voice adds to each participant's in overlaps, float32 [2, N]."""
        speech = Speech.of(voices_2N.sum(0), turns)
        for window, parts in self._learn(voices_2N, turns):
            for first, last in window.parts:
                inside = parts[:, :, first - window.first : last - window.first]
                self.leak[:, first:last] = inside[0, 1], inside[1, 0]
        list(self._learn(*rehearsal((speech.alone(0), speech.alone(1)))))

    def _learn(self, voices_2N: np.ndarray, turns: Sequence[Turn]) -> Iterator[tuple[Window, Parts]]:
        mix_N = voices_2N.sum(0)
        overlaps = [(a, b) for a, b in Speech.of(mix_N, turns).spans[BOTH] if b - a >= SHORTEST]
        for window in windows_of(overlaps, len(mix_N)):
            inside = slice(window.first, window.first + WINDOW)
            parts = self._spoil(_stretched(voices_2N[:, inside]))
            self._known.append((_stretched(mix_N[inside]), parts))
            yield window, parts

    def __call__(self, mixes_BN: np.ndarray) -> np.ndarray:
        return np.stack([self._voices(mix_N) for mix_N in mixes_BN])

    def _voices(self, mix_N: np.ndarray) -> np.ndarray:
        import torch
        from torchaudio.functional import resample

        # Not to the last bit: whoever reads a file takes its offset away, and with it what is slower than a voice.
        difference, parts = min(((np.abs(known - mix_N).max(), parts) for known, parts in self._known), key=_first)
        assert difference < LEVEL / 4, "a stand-in is asked about its own conversation"
        spoilt = torch.from_numpy(parts.sum(1))
        voices_2N = resample(resample(spoilt, SAMPLE_RATE, RATE), RATE, SAMPLE_RATE).numpy()[:, : len(mix_N)]
        scaled: np.ndarray = voices_2N * self._random.uniform(0.3, 3, (2, 1)).astype(np.float32)
        return scaled[self._random.permutation(2)]


def _first(pair: tuple[float, Parts]) -> float:
    return pair[0]


def _stretched(audio: np.ndarray) -> np.ndarray:
    return np.pad(audio, [(0, 0)] * (audio.ndim - 1) + [(0, WINDOW - audio.shape[-1])])


def si_sdr(found_N: np.ndarray, truth_N: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio, dB (Le Roux et al. 2019)."""
    found, truth = found_N.astype(np.float64), truth_N.astype(np.float64)
    target = truth * float(found @ truth) / float(truth @ truth)
    return float(10 * np.log10((target @ target) / max(1e-20, float((found - target) @ (found - target)))))


def decibels(other: np.ndarray, own: np.ndarray, turns: Sequence[Turn], participant: int) -> float:
    """The true residual: the other's voice in a track over its owner's, each while its person speaks."""
    frames = len(own) // SAMPLES_PER_FRAME
    spoken = [turn_mask(turns, person, frames, 0.0) > 0 for person in (1 - participant, participant)]
    heard, said = (float(np.square(voice[where]).mean()) for voice, where in zip((other, own), spoken, strict=True))
    return float(10 * np.log10(heard / said))


def separated(made: Made, stand_in: StandIn, encoder: SpeakerEncoder) -> Iterator[tuple[bool, tuple[float, float]]]:
    """For each patch: whether both voices went to whom they belong, and their SI-SDR."""
    voices_2N, turns = made
    speech = Speech.of(voices_2N.sum(0), turns)
    pictures = (picture(encoder, speech.alone(0)), picture(encoder, speech.alone(1)))
    for patch in patches(speech, pictures, stand_in, encoder, 0.0):
        truth_2N = voices_2N[:, patch.span]
        right = [si_sdr(found, truth) for found, truth in zip(patch.voices, truth_2N, strict=True)]
        crossed = [si_sdr(found, truth) for found, truth in zip(patch.voices, truth_2N[::-1], strict=True)]
        yield sum(right) > sum(crossed), (right[0], right[1])


def residuals_of_tracks(made: Made, leak_db: float, random: np.random.Generator) -> list[tuple[float, float]]:
    """(measured, true) of each participant, with a leak 5 ms late, noise, and three words that no turn tells of."""
    voices_2N, turns = made
    frames = voices_2N.shape[1] // SAMPLES_PER_FRAME
    leaks = 10 ** (leak_db / 20) * np.roll(voices_2N[::-1], SAMPLE_RATE // 200, axis=1)
    tracks = voices_2N + leaks + LEVEL * 10 ** (-50 / 20) * random.standard_normal(voices_2N.shape)
    state_T = speech_state(turns, frames)
    for participant in (0, 1):
        listens = np.flatnonzero(state_T == 2 - participant)
        word_K = voices_2N[participant, : 2 * SAMPLE_RATE][-round(0.4 * SAMPLE_RATE) :]
        for frame in random.choice(listens, 3):
            inside = tracks[participant, frame * SAMPLES_PER_FRAME :][: len(word_K)]
            inside += 0.3 * word_K[: len(inside)]
    found = residual_of_tracks([frame_power(track_N.astype(np.float32)) for track_N in tracks], state_T)
    true = [decibels(leaks[i], voices_2N[i], turns, i) for i in (0, 1)]
    return [(measured, truth) for measured, truth in zip(found, true, strict=True) if measured is not None]


def residuals_of_mix(
    made: Made, random: np.random.Generator, stand_in: StandIn | None = None, encoder: SpeakerEncoder | None = None
) -> list[tuple[float, float]]:
    """(measured, true) of each participant, by turn masks, and with a network in overlaps if there is one."""
    voices_2N, turns = made
    frames = voices_2N.shape[1] // SAMPLES_PER_FRAME
    mix_N = voices_2N.sum(0)
    laid, crosstalk = list[Patch](), None
    if stand_in and encoder:
        laid, crosstalk = network_patches(mix_N, turns, stand_in, encoder, FADE)
    gains, true = [], []
    for participant in (0, 1):
        mask_N = turn_mask(turns, participant, frames, FADE)
        for patch in laid:
            mask_N[patch.span] *= 1 - patch.weight
        gains.append(frame_power(mask_N))
        other_N = mask_N * voices_2N[1 - participant]
        if stand_in:
            other_N = other_N + stand_in.leak[participant]
        true.append(decibels(other_N, voices_2N[participant], turns, participant))
    power_T = frame_power((mix_N + LEVEL * 10 ** (-50 / 20) * random.standard_normal(len(mix_N))).astype(np.float32))
    state_T = speech_state(turns, frames)
    patched_T = patched(laid, frames) if laid else None
    found = residual_of_mix(power_T, gains, state_T, patched_T=patched_T, crosstalk=crosstalk)
    return [(measured, truth) for measured, truth in zip(found, true, strict=True) if measured is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three pairs of voices instead of eight")
    parser.add_argument(
        "--media", type=Path, default=SIBLING, help="folder with */*_mix.rttm and the audio beside them"
    )
    options = parser.parse_args()
    pairs = voice_pairs(options.media)[: 3 if options.quick else None]
    if not pairs:
        parser.exit(2, f"no labelled two-person clips under {options.media}\n")
    import torch

    from visavis.stages.models.networks import load_speaker_encoder

    torch.set_num_threads(1)  # as workers do
    encoder = load_speaker_encoder()
    overlaps = [row for name in STAND_INS for row in overlap_rows(name, pairs, encoder)]
    residuals = [*residual_rows(pairs, encoder)]
    worst = min(row["right"] for row in overlaps)
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    result = {"name": "separation", "right": worst, "overlaps": overlaps, "residuals": residuals}
    print(json.dumps(result | {"against": "known voices", "machine": machine}))


def overlap_rows(
    name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray]], encoder: SpeakerEncoder
) -> Iterator[dict[str, Any]]:
    """Overlaps of one kind and length each, over all pairs, both ways round."""
    for inside in (False, True):
        for seconds in OVERLAPS:
            found: list[tuple[bool, tuple[float, float]]] = []
            for seed, (one_N, other_N) in enumerate(p for pair in pairs for p in (pair, pair[::-1])):
                if min(len(one_N), len(other_N)) > (seconds + 1) * SAMPLE_RATE:
                    made = exchange(one_N, other_N, seconds, inside=inside)
                    found += separated(made, StandIn(made, STAND_INS[name], seed), encoder)
            row = {
                "stand_in": name,
                "overlap": f"{seconds} s {'inside a turn' if inside else 'between turns'}",
                "patches": len(found),
                "right": round(sum(right for right, _ in found) / len(found), 3),
                "si_sdr": round(float(np.median([value for _, both in found for value in both])), 1),
            }
            print("  ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr)
            yield row


def residual_rows(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], encoder: SpeakerEncoder, draws: int = 6
) -> Iterator[dict[str, Any]]:
    """Measured against true residuals, by how the tracks came about."""
    made = [conversation(pairs, np.random.default_rng(seed)) for seed in range(draws)]
    random = np.random.default_rng(0)
    cases = {
        f"own_track {leak:g} dB": [p for m in made for p in residuals_of_tracks(m, leak, random)] for leak in LEAKS
    }
    cases["mask"] = [pair for m in made for pair in residuals_of_mix(m, random)]
    for name, spoil in list(STAND_INS.items())[1:]:
        found = []
        for pair, seconds, inside in itertools.product(pairs, (0.4, 0.8), (False, True)):
            if min(map(len, pair)) > (seconds + 1) * SAMPLE_RATE:
                talk = exchange(pair[0], pair[1], seconds, inside=inside)
                found += residuals_of_mix(talk, random, StandIn(talk, spoil), encoder)
        cases[f"network ({name})"] = found
    for name, found in cases.items():
        measured, true = np.array(found).T
        error = measured - true
        row = {
            "how": name,
            "tracks": len(found),
            "true": round(float(np.median(true)), 1),
            "off": round(float(np.median(error)), 1),
            "off_5_95": [round(float(v), 1) for v in np.percentile(error, (5, 95))],
        }
        print("  ".join(f"{key} {value}" for key, value in row.items()), file=sys.stderr)
        yield row


if __name__ == "__main__":
    main()

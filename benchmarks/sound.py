"""What figures of sound say of labelled recordings, as they are and made worse.

    python -m benchmarks.sound [--media FOLDER] [--quick] [--windows]

Of each labelled speaker who says two seconds and more alone: DNSMOS of what is said alone, and the figures that a
build keeps of every track, of the recording as it is and with pink noise at 20, 10 and 0 dB below the speech, with the
loudest twentieth of the samples cut off, without what is above 3.4 kHz, and in a room (0.8 s until an echo is 60 dB
down). Rows are means over speakers; `worse` is the share of the speakers of whom OVRL says that it is worse than the
recording as it is. `--quick` hears every third recording. `--windows`: instead, how far a few windows are from all, a
second apart, and what they cost.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.signal import butter, fftconvolve, sosfiltfilt

from benchmarks.diarization import SIBLING, labelled_audio
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.rows import Turn
from visavis.stages.dnsmos import rated, said_alone
from visavis.stages.media.audio import read_audio, speech_state
from visavis.stages.models.dnsmos import WINDOW, Dnsmos
from visavis.stages.voice.leakage import frame_power
from visavis.stages.voice.sound import snr_of, track_sound

FIGURES = ("sig", "bak", "ovrl", "p808", "snr_db", "clipped", "bandwidth_hz", "level_db")
Worsened = Callable[[np.ndarray, np.ndarray], np.ndarray]


def noisy(audio_N: np.ndarray, speech_N: np.ndarray, snr_db: float) -> np.ndarray:
    """With pink noise, so many dB below the speech."""
    random = np.random.default_rng(7)
    spectrum = np.fft.rfft(random.standard_normal(len(audio_N)))
    spectrum /= np.sqrt(np.maximum(1, np.arange(len(spectrum))))
    noise_N = np.fft.irfft(spectrum, len(audio_N))
    gain = np.sqrt((speech_N**2).mean() / (noise_N**2).mean()) * 10 ** (-snr_db / 20)
    made_N: np.ndarray = (audio_N + gain * noise_N).astype(np.float32)
    return made_N


def clipped(audio_N: np.ndarray, speech_N: np.ndarray) -> np.ndarray:
    most = np.quantile(np.abs(speech_N), 0.95)
    made_N: np.ndarray = np.clip(audio_N, -most, most)
    return made_N


def narrow(audio_N: np.ndarray, speech_N: np.ndarray) -> np.ndarray:
    sos = butter(10, 3400, fs=SAMPLE_RATE, output="sos")
    made_N: np.ndarray = sosfiltfilt(sos, audio_N).astype(np.float32)
    return made_N


def in_a_room(audio_N: np.ndarray, speech_N: np.ndarray) -> np.ndarray:
    """Direct sound, and as much power again in an exponential tail."""
    t = np.arange(int(0.8 * SAMPLE_RATE)) / SAMPLE_RATE
    tail = np.random.default_rng(8).standard_normal(len(t)) * 10 ** (-3 * t / 0.8)
    tail[: SAMPLE_RATE // 200] = 0  # 5 ms
    tail /= np.sqrt((tail**2).sum())
    tail[0] = 1.0
    made_N: np.ndarray = fftconvolve(audio_N, tail)[: len(audio_N)].astype(np.float32)
    return made_N


CONDITIONS: dict[str, Worsened] = {
    "as it is": lambda audio_N, speech_N: audio_N,
    "noise, 20 dB": lambda audio_N, speech_N: noisy(audio_N, speech_N, 20),
    "noise, 10 dB": lambda audio_N, speech_N: noisy(audio_N, speech_N, 10),
    "noise, 0 dB": lambda audio_N, speech_N: noisy(audio_N, speech_N, 0),
    "clipped": clipped,
    "up to 3.4 kHz": narrow,
    "in a room": in_a_room,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=SIBLING)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--windows", action="store_true")
    options = parser.parse_args()
    recordings = list(recorded(options.media))[:: 3 if options.quick else 1]
    network = Dnsmos()
    found = windows(network, recordings) if options.windows else table(network, recordings)
    print(json.dumps({"name": "sound", **found, "machine": platform.platform()}))


def recorded(media: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sound of whole frames, float32 [N], and who of the first two labelled speakers speaks, [T]."""
    for path, labels in labelled_audio(media).items():
        audio_N = read_audio(str(path))
        audio_N = audio_N[: len(audio_N) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]
        names = sorted({name for _, _, name in labels})
        turns = [Turn(speaker=names.index(name), start=a, end=b) for a, b, name in labels if name in names[:2]]
        yield audio_N, speech_state(turns, len(audio_N) // SAMPLES_PER_FRAME)


def table(network: Dnsmos, recordings: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, object]:
    found: dict[str, list[list[float]]] = {name: [] for name in CONDITIONS}
    for audio_N, state_T in recordings:
        speech_N = audio_N[np.repeat(state_T > 0, SAMPLES_PER_FRAME)]
        for name, worsen in CONDITIONS.items():
            made_N = np.clip(worsen(audio_N, speech_N), -1, 1)
            found[name] += figures_of(network, made_N, state_T)
    values = {name: np.array(each, np.float64) for name, each in found.items()}
    place = FIGURES.index("ovrl")
    rows = []
    for name, each in values.items():
        means = [round(float(value), 4) for value in np.nanmean(each, axis=0)]
        worse = float((each[:, place] < values["as it is"][:, place]).mean())
        rows.append({"condition": name, **dict(zip(FIGURES, means, strict=True)), "worse": round(worse, 3)})
    return {"speakers": len(values["as it is"]), "rows": rows}


def figures_of(network: Dnsmos, audio_N: np.ndarray, state_T: np.ndarray) -> list[list[float]]:
    """Of each speaker who says enough alone, `FIGURES`."""
    power_T, found = frame_power(audio_N), []
    for person in (0, 1):
        mos = rated(network, said_alone(audio_N, state_T, person), 2)
        if mos.ovrl is None:
            continue
        mask_N = np.repeat(state_T >> person & 1, SAMPLES_PER_FRAME)
        sound, snr_db = track_sound(audio_N * mask_N), snr_of(power_T, state_T, person)
        known = {**mos.model_dump(), **sound._asdict(), "snr_db": snr_db}
        found.append([np.nan if known[name] is None else float(known[name]) for name in FIGURES])
    return found


def windows(network: Dnsmos, recordings: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, object]:
    """OVRL of a few windows against all, of recordings of 25 s and more; CPU seconds."""
    off: dict[int, list[float]] = {1: [], 2: [], 3: [], 4: [], 6: [], 8: []}
    seconds, rated_windows, heard = 0.0, 0, 0.0
    for audio_N, _ in recordings:
        if len(audio_N) < 25 * SAMPLE_RATE:
            continue
        began = time.process_time()
        starts = range(0, len(audio_N) - WINDOW + 1, SAMPLE_RATE)
        ovrl = np.array([network(audio_N[first : first + WINDOW]).ovrl for first in starts])
        seconds, rated_windows = seconds + time.process_time() - began, rated_windows + len(ovrl)
        heard += len(audio_N) / SAMPLE_RATE
        for count, errors in off.items():
            errors.append(float(ovrl[np.linspace(0, len(ovrl) - 1, count).round().astype(int)].mean() - ovrl.mean()))
    rms = {count: round(float(np.sqrt(np.mean(np.square(errors)))), 3) for count, errors in off.items()}
    cost = {"window_s": round(seconds / rated_windows, 3), "minute_s": round(60 * seconds / heard, 2)}
    return {"recordings": len(off[1]), "off_by": rms, **cost}


if __name__ == "__main__":
    main()

"""A made ViCo: tables, voices and reconstructions, as its makers' code leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from scipy.io import savemat

from benchmarks.corpora import write_dualtalk

SECONDS, RATE = 6, 30
MOTION = (*range(80, 144), *range(224, 227), *range(254, 257))
"""Columns of `coeff` that are motion: expression, angles, place."""


def coefficients(frames: int, seed: int) -> np.ndarray:
    """`coeff` of a face that moves slowly, float32 [frames, 257]."""
    random = np.random.default_rng(seed)
    knots = random.standard_normal((frames // 8 + 2, 257)) * 0.3
    at = np.arange(frames) / 8
    return np.stack([np.interp(at, np.arange(len(knots)), column) for column in knots.T], axis=1).astype(np.float32)


def write_mat(path: Path, coeff: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"coeff": coeff, "transform_params": np.zeros((len(coeff), 5))}, do_compression=len(coeff) % 2 == 0)


def voices(folder: Path, count: int) -> list[np.ndarray]:
    """Speech of `count` speakers at 16 kHz."""
    write_dualtalk(folder, conversations=count, seconds=SECONDS)
    return [soundfile.read(path)[0] for path in sorted(folder.rglob("*_speaker1.wav"))]


def write_vico(folder: Path, sounds: list[np.ndarray], table: str = "RLD_data.csv") -> None:
    """One clip of each sound, by the whole corpus' table: clip n is of people n (the speaker) and n + 100; the last one
    is `test`, the others `train`."""
    (folder / "audios").mkdir(parents=True)
    rows = ["attitude,audio,listener,speaker,listener_id,speaker_id,data_split"]
    for number, sound in enumerate(sounds):
        audio, listener, speaker = f"film{number}_1_7", f"film{number}_l", f"film{number}_s"
        split = "test" if number == len(sounds) - 1 else "train"
        rows.append(f"neutral,{audio},{listener},{speaker},{number + 100},{number},{split}")
        soundfile.write(folder / "audios" / f"{audio}.wav", np.stack([sound, sound], axis=1), 16_000)
        for side, name in enumerate((speaker, listener)):
            write_mat(folder / "recons" / f"{name}.mat", coefficients(SECONDS * RATE, 10 * number + side))
    (folder / table).write_text("\n".join(rows) + "\n")

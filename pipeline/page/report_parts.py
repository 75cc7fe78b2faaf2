"""What several parts of a report share: scripts of data beside the page, codecs, and loudness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from visavis.pipeline.page.base import embedded
from visavis.pipeline.page.packed import packed
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.dyads import Codec


def put(folder: Path, name: str, data: Any) -> None:
    """A script in the page's `data` that is loaded by its name when it is wanted."""
    text = f'visavis.put("{name}", {embedded(data)});\n'
    (folder / "data" / f"{name}.js").write_text(text, encoding="utf-8")


def codec_data(codec: Codec) -> dict[str, Any]:
    """What decodes motion in the browser."""
    return {"basis": packed(codec.basis.T, 250), "mean": packed(codec.mean[:, None])}


def peaks(audio_N: np.ndarray) -> np.ndarray:
    """The loudest sample of each frame, uint8, on a scale on which quiet speech is still seen."""
    frames = len(audio_N) // SAMPLES_PER_FRAME
    peaks_T = np.abs(audio_N[: frames * SAMPLES_PER_FRAME]).reshape(frames, SAMPLES_PER_FRAME).max(axis=1, initial=0.0)
    return np.rint(np.sqrt(np.clip(peaks_T, 0, 1)) * 255).astype(np.uint8)

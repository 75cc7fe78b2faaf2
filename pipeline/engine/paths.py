"""Paths as they are typed → paths that mean the same to every process, whatever folder it was started in."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from visavis.schemas.config import BuildConfig
from visavis.schemas.pairs import PairsConfig

P = TypeVar("P", str, None, str | None)


def in_full(place: P) -> P:
    """A local path in full, `~` included; URLs stay."""
    if not place or "://" in place:
        return place
    return str(Path(place).expanduser().absolute())


def in_full_if_here(name: str) -> str:
    """The same for what may be a name on the model hub instead: then there is no such path."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def for_workers(config: BuildConfig) -> BuildConfig:
    """The same settings for workers, which have other current folders than the driver."""
    places = {
        "diarize": {"pipeline": in_full_if_here(config.diarize.pipeline)},
        "transcribe": {
            "model": in_full_if_here(config.transcribe.model),
            "folder": in_full(config.transcribe.folder),
            "alignment": {name: in_full_if_here(model) for name, model in config.transcribe.alignment.items()},
        },
        "faces": {"landmarker": in_full(config.faces.landmarker)},
        "separate": {"weights": in_full(config.separate.weights)},
        "faceprints": {"weights": in_full(config.faceprints.weights)},
        "encode": {"network": in_full(config.encode.network)},
    }
    sections = {name: getattr(config, name).model_copy(update=update) for name, update in places.items()}
    return config.model_copy(update=sections)


def pairs_for_workers(config: PairsConfig) -> PairsConfig:
    """`for_workers` for pairs."""
    places = ("encoder", "rejected_encoder", "rejected_checkpoint")  # who scores goes there by itself
    return config.model_copy(update={name: in_full(getattr(config, name)) for name in places})

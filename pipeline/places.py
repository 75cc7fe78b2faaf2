"""Paths as they are typed → paths that mean the same to every process, whatever folder it was started in."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from schemas.config import BuildConfig
from schemas.pairs import PairsConfig

P = TypeVar("P", str, None, str | None)


def absolute(place: P) -> P:
    """A local path in full, `~` included; URLs stay."""
    if not place or "://" in place or "::" in place:
        return place
    return str(Path(place).expanduser().absolute())


def absolute_if_here(name: str) -> str:
    """The same for what may be a name on the model hub instead: then there is no such path."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def located(config: BuildConfig) -> BuildConfig:
    """The same settings for workers, which have other current folders than the driver."""
    places = {
        "diarize": {"pipeline": absolute_if_here(config.diarize.pipeline)},
        "transcribe": {
            "model": absolute_if_here(config.transcribe.model),
            "folder": absolute(config.transcribe.folder),
            "alignment": {name: absolute_if_here(model) for name, model in config.transcribe.alignment.items()},
        },
        "faces": {"landmarker": absolute(config.faces.landmarker)},
        "separate": {"weights": absolute(config.separate.weights)},
        "encode": {"network": absolute(config.encode.network)},
    }
    sections = {name: getattr(config, name).model_copy(update=update) for name, update in places.items()}
    return config.model_copy(update=sections)


def located_pairs(config: PairsConfig) -> PairsConfig:
    """`located` for pairs."""
    places = {"encoder": absolute(config.encoder), "rejected_checkpoint": absolute(config.rejected_checkpoint)}
    return config.model_copy(update=places)

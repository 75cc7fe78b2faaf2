"""Settings of what tells people apart across conversations: prints of voices and faces, and splits by them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from visavis.schemas.markers import ByDigest
from visavis.schemas.section import Device, Section


class VoiceprintsConfig(Section):
    """Biometric data of the people in the videos, kept in the run's folder and never in a dataset."""

    enabled: bool = Field(False, description="whether voices are known again across conversations")
    device: Device = "auto"


class FaceprintsConfig(Section):
    """Biometric data of the people in the videos, kept in the run's folder and never in a dataset.

    The defaults of `mean` and `std` are those of networks that scale pixels themselves, as SFace's file does; ArcFace's
    want 127.5 for both.
    """

    weights: Annotated[str | None, ByDigest] = Field(
        None,
        description="a face recognition network in ONNX, a path or URL: [1, 3, S, S] → [1, E]; none: no faceprints",
    )
    weights_sha256: Annotated[str | None, ByDigest] = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="of that file; a URL needs it"
    )
    colour: Literal["rgb", "bgr"] = Field("rgb", description="order of the network's input channels")
    mean: float = Field(0.0, ge=0, le=255, description="the input is (pixel − mean) / std, of pixels 0…255")
    std: float = Field(1.0, gt=0, le=255, description="see mean")
    pictures: int = Field(12, ge=4, le=100, description="that are embedded of each participant, at most")


class SplitConfig(Section):
    """Who counts as one person when people are held out (`balance.val_share`)."""

    people: Literal["names", "voices", "faces", "both"] = Field(
        "names",
        description="names: as listed; voices, faces: who sounds or looks alike, whatever names say; both: by names and"
        " by whichever prints there are",
    )
    face_threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="cosine of two faceprints from which they are one person's; none: the corpus tells",
    )


def check_people(split: SplitConfig, voiceprints: VoiceprintsConfig, faceprints: FaceprintsConfig) -> None:
    """Raises ValueError where splits go by prints that nobody makes."""
    voices, faces = "voiceprints.enabled=true", "faceprints.weights"
    needs = {"voices": voices, "faces": faces, "both": f"{voices} or {faces}"}.get(split.people, "")
    there = {voices: voiceprints.enabled, faces: bool(faceprints.weights)}
    if needs and not any(there[setting] for setting in needs.split(" or ")):
        raise ValueError(f"split.people={split.people} needs {needs}")

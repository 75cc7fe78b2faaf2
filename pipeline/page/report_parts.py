"""What several parts of a report share: scripts of data beside the page, codecs, and loudness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from visavis.pipeline.page.base import embedded
from visavis.pipeline.page.packed import packed_over_time
from visavis.pipeline.view.puppet import Puppet, face_json, model_json
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.dyads import Codec
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.plain import to_json
from visavis.stages.face.heads import POSE_DIMS


def put(folder: Path, name: str, data: Any) -> None:
    """A script in the page's `data` that is loaded by its name when it is wanted."""
    text = f'visavis.put("{name}", {plainly(data)});\n'
    (folder / "data" / f"{name}.js").write_text(text, encoding="utf-8")


def plainly(data: Any) -> Markup:
    """Data for a page; numbers that are not finite, as files of others may have, become null."""
    try:
        return embedded(data)
    except ValueError:
        return embedded(json.loads(to_json(data)))


def put_codec(folder: Path, codec: Codec) -> None:
    """What decodes and draws the motion of everybody, in the browser."""
    put(folder, f"codec-{codec.id}", model_json(Puppet.of(codec, np.zeros((LANDMARKS, 3), np.float32))))


def put_faces(folder: Path, conversation: str, codec: Codec, neutral: Sequence[np.ndarray]) -> None:
    """Both people's faces at rest, for a conversation and for pairs of it."""
    if not (folder / "data" / f"f-{conversation}.js").exists():
        faces = [face_json(Puppet.of(codec, neutral_L3)) for neutral_L3 in neutral]
        put(folder, f"f-{conversation}", {"codec": codec.id, "faces": faces})


def packed_motion(motion_TD: np.ndarray) -> list[dict[str, Any]]:
    """Pose and expression, as finely as can be seen in a picture of some hundred pixels."""
    return [packed_over_time(motion_TD[:, :POSE_DIMS], 200), packed_over_time(motion_TD[:, POSE_DIMS:], 50)]


def peaks(audio_N: np.ndarray) -> np.ndarray:
    """The loudest sample of each frame, uint8, on a scale on which quiet speech is still seen."""
    frames = len(audio_N) // SAMPLES_PER_FRAME
    peaks_T = np.abs(audio_N[: frames * SAMPLES_PER_FRAME]).reshape(frames, SAMPLES_PER_FRAME).max(axis=1, initial=0.0)
    return np.rint(np.sqrt(np.clip(peaks_T, 0, 1)) * 255).astype(np.uint8)

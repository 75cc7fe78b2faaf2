"""A picture file as a portrait."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from visavis.pipeline.view.portrait import Portrait
from visavis.schemas.config import FacesConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.user_files import read_given
from visavis.schemas.untrusted import parsing

_MOST_BYTES = 32 << 20
_MOST_SIDE = 1280  # pixels; the face model works on less


def portrait_from(path: Path) -> Portrait:
    """The portrait that a picture makes: its largest face.

    Raises:
        UsageError: not a picture, or nobody in it.
    """
    from visavis.stages.faces import tracker_of

    data = read_given("--portrait", str(path), most=_MOST_BYTES)
    with parsing(lambda why: UsageError(f"--portrait {path}: not a picture that can be read ({why})")):
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ValueError("of no known kind")
    scale = min(1.0, _MOST_SIDE / max(bgr.shape[:2]))
    rgb = cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    faces_FL3 = tracker_of(FacesConfig()).landmarks(rgb, new_shot=True)
    if not len(faces_FL3):
        raise UsageError(f"--portrait {path}: no face is found in it")
    heights_F = np.ptp(faces_FL3[:, :, 1], axis=1)
    height, width = rgb.shape[:2]
    return Portrait.of(rgb, faces_FL3[int(heights_F.argmax())] * np.array([width, height, width], np.float32))

"""A picture that the avatar's motion moves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from visavis.pipeline.live.looking import LookingProcess
from visavis.pipeline.view.portrait import Portrait
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.user_files import read_given

_MOST_BYTES = 32 << 20
_MOST_SIDE = 1280  # pixels; the face model works on less


async def read_portrait(path: Path, looking: LookingProcess) -> Portrait:
    """The portrait that a picture makes.

    Raises:
        UsageError: not a picture, or nobody in it. One line.
    """
    data = read_given("--portrait", str(path), most=_MOST_BYTES)
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise UsageError(f"--portrait {path}: not a picture that can be read")
    scale = min(1.0, _MOST_SIDE / max(bgr.shape[:2]))
    rgb = cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    faces_FL3 = await looking.landmarks(rgb)
    if not len(faces_FL3):
        raise UsageError(f"--portrait {path}: no face is found in it")
    height, width = rgb.shape[:2]
    return Portrait.of(rgb, faces_FL3[0] * np.array([width, height, width], np.float32))

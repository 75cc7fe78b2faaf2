"""A picture that the avatar's motion moves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from visavis.pipeline.live.server import Portrait
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.user_files import read_given
from visavis.stages.faces import FaceTracker

_MOST_BYTES = 32 << 20
_SIDE = 512


def read_portrait(path: Path, tracker: FaceTracker) -> Portrait:
    """A picture about its face, square and of the avatar's size, and where its landmarks are.

    Raises:
        UsageError: not a picture, or nobody in it. One line.
    """
    data = read_given("--portrait", str(path), most=_MOST_BYTES)
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise UsageError(f"--portrait {path}: not a picture that can be read")
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    faces_FL3 = tracker.landmarks(rgb, new_shot=True)
    if not len(faces_FL3):
        raise UsageError(f"--portrait {path}: no face is found in it")
    height, width = rgb.shape[:2]
    points_L3 = faces_FL3[0] * np.array([width, height, width], np.float32)
    low_2, high_2 = points_L3[:, :2].min(axis=0), points_L3[:, :2].max(axis=0)
    side = 2.0 * float((high_2 - low_2).max())
    corner_2 = (low_2 + high_2) / 2 - side * np.array([0.5, 0.52])
    scale = _SIDE / side
    move = np.array([[scale, 0, -scale * corner_2[0]], [0, scale, -scale * corner_2[1]]])
    cut = cv2.warpAffine(bgr, move, (_SIDE, _SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    placed_L3 = (points_L3 - [*corner_2, 0]) * scale
    ok, picture = cv2.imencode(".jpg", cut, [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert ok
    return Portrait(picture.tobytes(), "image/jpeg", {"landmarks": placed_L3.round(3).tolist(), "side": _SIDE})

"""`movement` of Seamless Interaction (arXiv 2506.22554): coefficients that its authors fitted, beside each video.

    movement:expression [T, 128], alignment_head_rotation [T, 3], alignment_translation [T, 3], gaze_encodings [T, 2],
    movement:is_valid [T] or [T, 1]

They are documented at 30 a second, and some files hold others. A file has no time stamps: how many frames there are
for the length of the voice says which rate it is, and frame n is at (n + ½) / rate. On our grid a value lies between
its two neighbours in time; it is valid where both are. `smplh`, the body, some of it at 240 Hz, is not read.
"""

from __future__ import annotations

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.uris import file_name
from visavis.stages.corpora.coefficients import LARGEST_ARRAY, Taken, expression_of, table_of
from visavis.stages.media.npz import read_members
from visavis.stages.media.opening import judged, open_bytes

EXPRESSION = 128
GAZE = 2
_NAMES = ("expression", "alignment_head_rotation", "alignment_translation", "gaze_encodings", "is_valid")
_RATES = (25.0, 30_000 / 1001, 30.0, 60.0, 120.0, 240.0)
_WITHIN = 0.02


def read_movement(uri: str, seconds: float, exp: int) -> Taken:
    """Motion of one person on the 25 fps grid.

    Args:
        seconds: of the voice beside it.

    Raises:
        Rejected: UNREADABLE, also where the frames fit no rate.
    """
    name = file_name(uri)
    with open_bytes(uri) as file, judged(uri, file):
        found = read_members(file, tuple(f"movement:{each}" for each in _NAMES), LARGEST_ARRAY)
    if found is None:
        raise Rejected(Reason.NO_MOTION, f"{name}: no movement:expression in it")
    exp_TE, turn_T3, place_T3, gaze_T2, valid_T = found
    parts = {
        "exp": expression_of(exp_TE, exp, name),
        "pose": table_of(turn_T3, "alignment_head_rotation", name, 3, 3),
        "place": table_of(place_T3, "alignment_translation", name, 3, 3),
        "gaze": table_of(gaze_T2, "gaze_encodings", name, GAZE, GAZE),
    }
    valid_T = valid_T.reshape(-1) > 0.5
    frames = Taken(parts, valid_T).frames(name)
    rate = rate_of(frames, seconds, name)
    return Taken(*on_grid(parts, valid_T, rate))


def rate_of(frames: int, seconds: float, name: str) -> float:
    """Frames a second, of the rates that there are the nearest.

    Raises:
        Rejected: UNREADABLE, none is within 2 %.
    """
    found = frames / max(seconds, 1e-9)
    nearest = min(_RATES, key=lambda rate: abs(rate - found) / rate)
    if abs(nearest - found) > _WITHIN * nearest:
        raise Rejected(Reason.UNREADABLE, f"{name}: {frames} frames beside {seconds:.2f} s of sound fit no rate")
    return nearest


def on_grid(parts: dict[str, np.ndarray], valid_S: np.ndarray, rate: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parts [S, …] at a rate to parts and valid on the grid of 25 a second.

    What is not valid may hold anything, numbers that are none, too: it becomes 0 before and stays invalid after.
    """
    frames = int(len(valid_S) / rate * FPS + 1e-6)
    at_T = np.clip((np.arange(frames) + 0.5) / FPS * rate - 0.5, 0, len(valid_S) - 1)
    before_T = np.floor(at_T + 1e-9).astype(np.int64)
    after_T = np.minimum(before_T + 1, len(valid_S) - 1)
    share_T = np.clip(at_T - before_T, 0, 1)
    exact_T = share_T < 1e-9
    made = {}
    for name, part in parts.items():
        clean = np.where(valid_S[:, None], part, 0).astype(np.float64)
        made[name] = clean[before_T] * (1 - share_T)[:, None] + clean[after_T] * share_T[:, None]
    return made, valid_S[before_T] & (valid_S[after_T] | exact_T)

"""`movement` of Seamless Interaction (arXiv 2506.22554): coefficients that its authors fitted, beside each video.

    movement:expression [T, 128], alignment_head_rotation [T, 3], alignment_translation [T, 3], gaze_encodings [T, 2],
    movement:is_valid [T] or [T, 1]

They are documented at 30 a second, and some files hold others: the length of the voice says which. `smplh`, the body,
some of it at 240 Hz, is not read.
"""

from __future__ import annotations

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.uris import file_name
from visavis.stages.corpora.coefficients import LARGEST_ARRAY, Taken, expression_of, table_of
from visavis.stages.corpora.grid import on_grid, rate_of
from visavis.stages.media.npz import read_members
from visavis.stages.media.opening import judged, open_bytes

EXPRESSION = 128
GAZE = 2
_NAMES = ("expression", "alignment_head_rotation", "alignment_translation", "gaze_encodings", "is_valid")
RATES = (25.0, 30_000 / 1001, 30.0, 60.0, 120.0, 240.0)
WITHIN = 0.02


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
    rate = rate_of(frames, seconds, name, RATES, WITHIN)
    return Taken(*on_grid(parts, valid_T, rate))

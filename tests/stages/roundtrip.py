"""How far landmarks that went through a codec are from those that went in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visavis.schemas.dyads import Codec, Motion
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.rows import Binding
from visavis.stages.bind import seen_by_piece
from visavis.stages.face.codec import decode_motion
from visavis.stages.face.heads import canonical_face

LEFT_EYE, RIGHT_EYE = 33, 263  # outer corners


def round_trip(codec: Codec, binding: Binding, faces: Sequence[FaceTracks], motion: Motion) -> float:
    """Mean distance of landmarks, all three axes, in percent of the distance between the outer corners of the eyes of
    the neutral face (the irises are about 0.7 of that apart).

    Both are held in face widths of the picture; only the person's place in it, which no motion tells, is put back.
    """
    ordered = sorted(faces, key=lambda f: (f.piece.media, f.piece.first))
    truth = [seen.landmarks() for seen in seen_by_piece(binding, ordered, motion.participant)]
    true_VL3 = np.concatenate(truth).astype(np.float64) * (1, -1, -1)
    decoded_VL3 = decode_motion(codec, motion.motion[motion.valid], motion.neutral).astype(np.float64)
    # One scale (pixels in a face width) and one place for the whole clip.
    centred, drawn = (points - points.mean(axis=(0, 1)) for points in (true_VL3, decoded_VL3))
    pixels = float((centred[..., :2] * drawn[..., :2]).sum() / (drawn[..., :2] ** 2).sum())
    depth = (decoded_VL3 * pixels - true_VL3).mean(axis=1, keepdims=True) * (0, 0, 1)  # no motion tells it
    offset = (decoded_VL3 * pixels - true_VL3).mean(axis=(0, 1))
    apart_VL3 = decoded_VL3 * pixels - true_VL3 - offset * (1, 1, 0) - depth
    width = np.ptp(canonical_face()[:, 0])
    eyes = np.linalg.norm(motion.neutral[LEFT_EYE] - motion.neutral[RIGHT_EYE]) / width * pixels
    return float(100 * np.linalg.norm(apart_VL3, axis=2).mean() / eyes)

"""From a picture to the motion in it, for a person who sits down and begins: no calibration, no look ahead.

The neutral face, which a build takes from a whole conversation, is the median of what was seen so far; so it begins as
the first face, and settles. Place and size are relative to their median over the last half minute.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from visavis.schemas.dyads import Codec
from visavis.schemas.errors import UsageError
from visavis.schemas.face_rows import LANDMARKS
from visavis.stages.face.codec import decode_motion, encode_linear
from visavis.stages.face.heads import POSE_DIMS, Heads, canonical_face
from visavis.stages.faces import FaceTracker

_EVERY = 5  # pictures; those in between hardly differ
_FACES = 128  # of which the neutral is the median, evenly spaced over the session
_PLACES = 150  # half a minute of every fifth picture
_QUICKEST = 0.05  # share of the way to a new neutral that a picture goes; the first pictures go more
_MOST_OFF = 12.0  # deviations of the training data; more is no face


@dataclass(frozen=True)
class Seen:
    """A face in a picture. motion_D: in the codec's units. rest_D: as it usually is. points_L3: for the page."""

    motion_D: np.ndarray
    rest_D: np.ndarray
    points_L3: np.ndarray


class Neutral:
    """What a face is like at rest: the median of frames that are evenly spaced over all that was seen."""

    def __init__(self) -> None:
        self._step, self._pictures = 1, 0
        self._seen: dict[int, np.ndarray] = {}
        self._median_K: np.ndarray | None = None
        self._now_K = np.zeros(0)

    def add(self, values_K: np.ndarray) -> np.ndarray:
        """One picture's values; the neutral that is known by now."""
        n = self._pictures
        self._pictures += 1
        if n % self._step == 0:
            self._seen[n] = values_K.astype(np.float32)
            if len(self._seen) > _FACES:
                self._step *= 2
                self._seen = {n: seen for n, seen in self._seen.items() if n % self._step == 0}
        if self._median_K is None:
            self._median_K = self._now_K = values_K
        # The median of many faces costs milliseconds: often at first, where it changes, and every second later.
        elif n < 25 or n % 25 == 0:
            self._median_K = np.median(np.stack(list(self._seen.values())), axis=0).astype(np.float64)
        self._now_K = self._now_K + max(_QUICKEST, 1 / (n + 1)) * (self._median_K - self._now_K)
        return self._now_K


class Eyes:
    """Pictures of one session in, motion out. Calls are in the order of the pictures.

    Args:
        mean_D, std_D: of the motion in training; what is impossibly far from it is cut off.
    """

    def __init__(self, codec: Codec, tracker: FaceTracker, mean_D: np.ndarray, std_D: np.ndarray) -> None:
        self._codec, self._tracker = codec, tracker
        self._low_D, self._high_D = mean_D - _MOST_OFF * std_D, mean_D + _MOST_OFF * std_D
        self._neutral, self._angles = Neutral(), Neutral()
        self._places: deque[np.ndarray] = deque(maxlen=_PLACES)
        self._place_3 = np.zeros(3)
        self._pictures = 0
        self._rest_E = encode_linear(codec, np.zeros((1, codec.given)), -codec.mean[None].astype(np.float64))[0]

    def look(self, jpeg: bytes) -> Seen | None:
        """The nearest face in a picture; None where there is none, or no picture."""
        bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        return None if bgr is None else self.see(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))

    def see(self, rgb_HW3: np.ndarray) -> Seen | None:
        """As `look`, of a picture in RGB."""
        faces_FL3 = self._tracker.landmarks(rgb_HW3, new_shot=self._pictures == 0)
        scores_FB = self._tracker.blendshapes
        self._pictures += 1
        if not len(faces_FL3) or not np.isfinite(faces_FL3).all():
            return None
        nearest = int(np.argmax(np.ptp(faces_FL3[:, :, 0], axis=1)))
        width, height = rgb_HW3.shape[1], rgb_HW3.shape[0]
        pixels_1L3 = faces_FL3[nearest : nearest + 1] * np.array([width, height, width], np.float32)
        given_1G = np.zeros((1, 0))
        if self._codec.kind == "blendshapes":
            assert scores_FB is not None
            given_1G = scores_FB[nearest : nearest + 1].astype(np.float64)
        return self._motion(pixels_1L3, given_1G)

    def _motion(self, pixels_1L3: np.ndarray, given_1G: np.ndarray) -> Seen:
        head = Heads.of(pixels_1L3)
        face_1K = head.faces(pixels_1L3).reshape(1, -1)
        angles_3 = head.angles()[0]
        neutral_K = self._neutral.add(np.concatenate([face_1K[0], given_1G[0]]))
        own_1K, own_1G = neutral_K[None, : LANDMARKS * 3], neutral_K[None, LANDMARKS * 3 :]
        code_E = encode_linear(self._codec, given_1G - own_1G, face_1K - own_1K - self._codec.mean)[0]
        rest_D = np.concatenate([self._angles.add(angles_3), np.zeros(POSE_DIMS - 3), self._rest_E])
        motion_D = np.concatenate([angles_3, self._moved(head), code_E])
        motion_D = np.clip(motion_D, self._low_D, self._high_D)
        points_L3 = decode_motion(self._codec, motion_D[None].astype(np.float32), own_1K.reshape(LANDMARKS, 3))[0]
        return Seen(motion_D, rest_D, points_L3)

    def _moved(self, head: Heads) -> np.ndarray:
        """Place and size against their median: see `Heads.pose`."""
        origin_2, scale = head.origin_V3[0, :2], head.scale_V[0]
        if self._pictures % _EVERY == 1 or not self._places:
            self._places.append(np.array([*origin_2, scale]))
            target_3 = np.median(np.stack(self._places), axis=0)
            ease = max(2 * _QUICKEST, 1 / len(self._places))
            self._place_3 = self._place_3 + ease * (target_3 - self._place_3)
        width = np.ptp(canonical_face()[:, 0]) * self._place_3[2]
        return np.array([*(origin_2 - self._place_3[:2]) / width, np.log(scale / self._place_3[2])])


def check_codec(codec: Codec, *, has_landmarker: bool) -> None:
    """See that a camera's pictures can be coded by it.

    Raises:
        UsageError: they cannot. One line.
    """
    if codec.kind == "network":
        raise UsageError(
            f"codec {codec.id} takes motion from a network's code, which is not made live; train on"
            " motion.kind=landmark-pca or blendshapes for `visavis live`"
        )
    if codec.kind == "blendshapes" and not has_landmarker:
        raise UsageError(
            f"codec {codec.id} needs blendshapes: add --landmarker FILE, a .task file that"
            " `visavis assets fetch face-landmarker` gets"
        )

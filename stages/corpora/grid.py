"""Motion at a corpus' own rate, brought to the grid of 25 frames a second by time.

Files of coefficients have no time stamps: how many frames there are for the length of the sound says which rate it is,
and frame n is at (n + ½) / rate. On our grid a value lies between its two neighbours in time.

Shape suffixes: S frames at the corpus' rate, T frames on the grid, D columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from visavis.schemas import FPS
from visavis.schemas.errors import Reason, Rejected

_NEAR = 1e-9  # frames


class Between(NamedTuple):
    """Of each frame of the grid: int64 [T], the frames before and after it, and float64 [T], how far it is from the
    one to the other, 0 to 1."""

    before_T: np.ndarray
    after_T: np.ndarray
    share_T: np.ndarray

    @property
    def exact_T(self) -> np.ndarray:
        """bool [T]: it is the frame before it."""
        return self.share_T == 0

    def straight(self, values_SD: np.ndarray) -> np.ndarray:
        """Values on the straight lines between their neighbours, float64 [T, D]."""
        values_SD = values_SD.astype(np.float64)
        share_T1 = self.share_T[:, None]
        return np.asarray(values_SD[self.before_T] * (1 - share_T1) + values_SD[self.after_T] * share_T1)


def rate_of(frames: int, seconds: float, name: str, rates: Sequence[float], within: float, few: int = 0) -> float:
    """Frames a second, of `rates` the nearest.

    Raises:
        Rejected: UNREADABLE, none is as near as `within`, a share of it, or as `few` frames.
    """
    found = frames / max(seconds, 1e-9)
    nearest = min(rates, key=lambda rate: abs(rate - found) / rate)
    if abs(nearest * seconds - frames) > max(within * nearest * seconds, few):
        raise Rejected(Reason.UNREADABLE, f"{name}: {frames} frames beside {seconds:.2f} s of sound fit no rate")
    return nearest


def between(frames: int, rate: float) -> Between:
    """Where the grid lies among `frames` frames, of which there is one or more."""
    grid = int(frames / rate * FPS + 1e-6)
    at_T = np.clip((np.arange(grid) + 0.5) / FPS * rate - 0.5, 0, frames - 1)
    before_T = np.floor(at_T + _NEAR).astype(np.int64)
    share_T = np.where(at_T - before_T < _NEAR, 0.0, at_T - before_T)
    return Between(before_T, np.minimum(before_T + 1, frames - 1), share_T)


def on_grid(parts: dict[str, np.ndarray], valid_S: np.ndarray, rate: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Parts [S, …] at a rate to parts and valid on the grid; valid where both neighbours are.

    What is not valid may hold anything, numbers that are none, too: it becomes 0 before and stays invalid after.
    """
    grid = between(len(valid_S), rate)
    made = {name: grid.straight(np.where(valid_S[:, None], part, 0)) for name, part in parts.items()}
    return made, valid_S[grid.before_T] & (valid_S[grid.after_T] | grid.exact_T)


def turned(angles_S3: np.ndarray, grid: Between) -> np.ndarray:
    """Euler angles about x, y and z, rad, of rotations Rz·Ry·Rx, on the grid, float64 [T, 3].

    Between two frames the rotation goes on at a constant speed about one axis (spherical linear interpolation); a frame
    of the grid that is one of theirs has its angles as they are. One rotation has many angles: those nearest to the
    straight line between the neighbours are taken, so that nothing jumps by a turn, or by half a turn beyond ±90° of y.
    """
    straight_T3 = grid.straight(angles_S3)
    if len(angles_S3) < 2:
        return straight_T3
    way = Slerp(np.arange(len(angles_S3)), Rotation.from_euler("xyz", angles_S3.astype(np.float64)))
    one_T3 = way(np.minimum(grid.before_T + grid.share_T, len(angles_S3) - 1)).as_euler("xyz", suppress_warnings=True)
    other_T3 = one_T3 * (1, -1, 1) + np.pi
    around_CT3 = np.stack([one_T3, other_T3])
    near_CT3 = around_CT3 + 2 * np.pi * np.round((straight_T3 - around_CT3) / (2 * np.pi))
    nearest_T = np.abs(near_CT3 - straight_T3).sum(axis=2).argmin(axis=0)
    return np.where(grid.exact_T[:, None], straight_T3, near_CT3[nearest_T, np.arange(len(nearest_T))])

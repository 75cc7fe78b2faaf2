"""Reactivity: how well an avatar's motion, whoever made it, fits the reaction that the corpus predicts of its user.

    from visavis.schemas.dyads import WindowClass
    from visavis.stages.pairing.reactivity import reactivity
    from visavis.stages.pairing.reference_statistics import learn_from
    from visavis.training.dataset import Dataset

    data = Dataset("runs/mine/dataset")
    reference = learn_from(data, WindowClass.LISTENING)  # what recorded listeners of the corpus do
    windows = [...]  # samples of that class, of any split
    found = reactivity(windows, motion_WTD, data.manifest.motion, reference)
    found.total  # [W]; around 0 is motion that has nothing to do with its user

It is what the gate of pairs compares two motions by, and the score of pairs whose maker brings no scorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.schemas.manifest import MotionSpec
from visavis.schemas.sample import Sample
from visavis.stages.pairing.measurements import Expected, ReferenceStatistics, Windows, normalised


@dataclass(frozen=True)
class Reactivity:
    """Of each window, float64 [W].

    lagged: correlation, −1…1, of the motion with the reaction that the user's motion predicts at each lag. event: with
    the response to the ends of the user's phrases, −1…1; NaN where no phrase ends in time. total: their sum, −2…2;
    lagged alone where there is no event. Motion that holds still has 0 of each.
    """

    lagged: np.ndarray
    event: np.ndarray

    @property
    def total(self) -> np.ndarray:
        return np.asarray(self.lagged + np.nan_to_num(self.event, nan=0.0))


def reactivity(
    samples: Sequence[Sample], motion_WTD: np.ndarray, motion: MotionSpec, reference: ReferenceStatistics
) -> Reactivity:
    """How motions of an avatar fit their users.

    Args:
        samples: windows of one class; all of the same length T.
        motion_WTD: the avatar's motion in these windows, [W, T, D] float32 in codec units as in a dataset:
            `sample.avatar_motion` is the recorded one.
        motion: of the dataset (`manifest.motion`).
        reference: learnt from windows of the same class (`reference_statistics.learn_from`); each window is judged by
            what other conversations taught.

    Raises:
        ValueError: motion of another shape, or with numbers that are not finite.
    """
    wanted = (len(samples), len(samples[0].state), motion.dim) if samples else (0, 0, 0)
    if not samples or motion_WTD.shape != wanted:
        raise ValueError(f"motion is {motion_WTD.shape}, expected {wanted} of {len(samples)} windows")
    if not np.isfinite(motion_WTD).all():
        raise ValueError("motion has numbers that are not finite")
    expected = Expected(Windows.of(samples, motion), reference)
    return reactivity_of(expected, normalised(motion_WTD, motion))


def reactivity_of(expected: Expected, motion_WTD: np.ndarray) -> Reactivity:
    """The same of normalised motion, where the reactions to be expected are at hand."""
    lagged, event = expected.fit(motion_WTD)
    return Reactivity(lagged, np.where(expected.event_W, event, np.nan))

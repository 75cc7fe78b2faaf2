"""Labels and a metric of your own: windows in which the avatar looks down, and how well a model does.

    visavis build configs/default.yaml talk.mp4 --out runs/mine --set shard.labeller=examples/own_labels.py:looks
    visavis build … --set 'balance.labels={looks_down: 3}'              # drawn three times as often
    visavis pairs runs/mine CHECKPOINT --out runs/pairs --set 'where.labels=[looks_down]'
    visavis evaluate CHECKPOINT runs/mine --metric examples/own_labels.py:down_degrees

Both are called with a batch of windows (`visavis.schemas.sample.Sample`), so a model of yours can take them at once, on
a GPU where there is one; load it where the file is loaded, once in each process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visavis.schemas.sample import Sample

PITCH = 0  # column of the motion: positive looks down
DOWN = np.deg2rad(8.0)


def looks(samples: Sequence[Sample]) -> list[list[str]]:
    """Labels of each window: small letters, digits and _, and none that there is already."""
    return [["looks_down"] if _pitch(sample, sample.avatar_motion) > DOWN else [] for sample in samples]


def down_degrees(samples: Sequence[Sample], motion_WTD: np.ndarray) -> np.ndarray:
    """A number for each window [W]: how far down the head looks; motion is in the codec's units. NaN does not count."""
    pairs = zip(samples, motion_WTD, strict=True)
    return np.array([np.rad2deg(_pitch(sample, motion_TD)) for sample, motion_TD in pairs])


def _pitch(sample: Sample, motion_TD: np.ndarray) -> float:
    """Mean over valid frames, against the person's reference."""
    seen_T = sample.valid[:, 0]
    return float(motion_TD[seen_T, PITCH].mean() - sample.reference[PITCH]) if seen_T.any() else float("nan")

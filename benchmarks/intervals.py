"""Rows over seeds: means, 95 % intervals, and how each row differs from the control at the same seeds.

Intervals are Student's t over seeds of training. Windows, their users and the noise of sampling are the same for all
rows and for the truth, so what is left between two rows at one seed is what was trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

Row = dict[str, Any]
JUDGED = ("recall", "gain")
"""Figures whose distance from the truth is held against the control's."""


def over_seeds(rows: Sequence[Row]) -> Row:
    """Mean of every figure, and half of its interval as `…_ci`; NaN with one seed."""
    row: Row = {}
    for key in rows[0]:
        values = np.array([each[key] for each in rows], float)
        row[key] = float(values.mean())
        row[f"{key}_ci"] = half_interval(values)
    return row


def against(rows: Sequence[Row], control: Sequence[Row], truth: Row) -> Row:
    """`…_change`: mean difference from the control at the same seeds; `…_change_ci` half of its interval; `…_left`:
    error of the mean as a share of the control's.
    """
    found: Row = {}
    for key in (*JUDGED, "jaw", "alarms_min", "rpcc_expression"):
        changes = np.array([one[key] - other[key] for one, other in zip(rows, control, strict=True)])
        found[f"{key}_change"] = float(changes.mean())
        found[f"{key}_change_ci"] = half_interval(changes)
    for key in JUDGED:
        made, before = (abs(float(np.mean([each[key] for each in side])) - truth[key]) for side in (rows, control))
        found[f"{key}_left"] = made / before if before else math.nan
    return found


def half_interval(values: np.ndarray) -> float:
    """Of the mean of values that are drawn independently, 95 %."""
    count = len(values)
    if count < 2:
        return math.nan
    return float(student.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count))

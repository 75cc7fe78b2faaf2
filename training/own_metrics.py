"""Metrics of a user's own: a number for each window, of what a model made and of what it is held against.

    def down_degrees(samples, motion):  # W `visavis.schemas.sample.Sample`; float32 [W, T, D] in codec units
        return np.degrees(motion[:, :, 0].mean(axis=1))  # [W]; NaN does not count

    visavis evaluate CHECKPOINT DATASET --metric mine.py:down_degrees

The same kind of function can score pairs (`visavis pairs --scorer`). Memory holds three sums of each row and class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.sample import Sample
from visavis.schemas.storage.user_function import UserFunction
from visavis.training.accumulators import standard_error

Key = tuple[str, str, str]
"""Metric, row, and class or "all"."""


class OwnMetrics:
    """Each function's values by row, class and seed."""

    def __init__(self, functions: Sequence[UserFunction], motion: MotionSpec) -> None:
        """Raises UsageError where two functions have one name, which would be one row of a table."""
        names = [function.name for function in functions]
        if len(set(names)) < len(names):
            raise UsageError(f"two metrics are called {max(names, key=names.count)}; rename one")
        self._functions = functions
        self._mean, self._std = (np.array(scale, np.float32) for scale in (motion.mean, motion.std))
        self._values: defaultdict[Key, list[list[np.ndarray]]] = defaultdict(list)

    def add(self, row: str, label: str, samples: Sequence[Sample], motions: Sequence[np.ndarray]) -> None:
        """Windows of a class. motions: by seed, [W, T, D], normalised.

        Raises:
            UsageError: a function raised something, or gave no number for each window.
        """
        units = [motion * self._std + self._mean for motion in motions]
        for function in self._functions:
            for seed, motion in enumerate(units):
                values = self._asked(function, samples, motion)
                for of in (label, "all"):
                    found = self._values[function.name, row, of]
                    found.extend([] for _ in range(seed + 1 - len(found)))
                    found[seed].append(values[np.isfinite(values)])

    def into(self, result: dict[str, Any]) -> None:
        """Put means over windows and seeds, their errors and spreads beside the figures of an evaluation.

        Raises:
            UsageError: a function has the name of a figure that is there.
        """
        for (name, row, of), seeds in self._values.items():
            if name in result["rows"][row][of]:
                raise UsageError(f"a metric of ours is called {name}; rename yours")
            known = [joined for values in seeds if len(joined := np.concatenate(values))]
            means = [values.mean() for values in known]
            errors = [standard_error(values) for values in known if len(values) > 1]
            result["rows"][row][of][name] = float(np.mean(means)) if means else None
            if of in result["standard_errors"].get(row, {}):
                result["standard_errors"][row][of][name] = float(np.mean(errors)) if errors else None
            if of in result["spread"].get(row, {}):
                result["spread"][row][of][name] = float(np.std(means, ddof=1)) if len(means) > 1 else None

    def _asked(self, function: UserFunction, samples: Sequence[Sample], motion_WTD: np.ndarray) -> np.ndarray:
        values = np.asarray(function(samples, motion_WTD))
        if values.shape != (len(samples),) or values.dtype.kind not in "biuf":
            found = f"{values.dtype} {list(values.shape)}"
            raise UsageError(f"{function.named} gave {found} for {len(samples)} windows, expected a number for each")
        return values.astype(np.float64)

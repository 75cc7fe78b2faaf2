"""What the two norms of flow matching do to a reaction that comes with probability p: exact, no network.

    python -m benchmarks.norms

One dimension: motion that is 0 or, with probability p, `size`, both with deviation `SPREAD`. The best velocity at
(x, t) is known: with L2 it leads to the mean of the motion given x, with L1 to its median (given x_t, nothing but x1 is
unknown of x1 − x0). Noise is carried along it, and what arrives nearer to `size` is counted. L2 gives p back; L1 makes
rare things rarer and frequent things more frequent. `size` is in deviations of the noise.
"""

from __future__ import annotations

import json
import platform

import numpy as np
from scipy.stats import norm

from benchmarks.processes import say

SIZES = (2.0, 4.0)
SPREAD = 0.3
SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
STEPS = 10
PATHS = 20_000
"""Quantiles of the noise, not random draws: the paths of one dimension never cross."""


def main() -> None:
    rows = [
        {"size": size, "p": p, **{kind: round(arrived(p, size, kind), 3) for kind in ("l2", "l1")}}
        for size in SIZES
        for p in SHARES
    ]
    for row in rows:
        say("  ".join(f"{key} {value}" for key, value in row.items()))
    print(json.dumps({"name": "norms", "steps": STEPS, "rows": rows, "against": "p", "machine": platform.machine()}))


def arrived(p: float, size: float, kind: str) -> float:
    """Share of the paths that end at the reaction."""
    x = norm.ppf((np.arange(PATHS) + 0.5) / PATHS)
    for step in range(STEPS):
        t = step / STEPS
        x = x + (_expected(x, t, p, size, kind) - x) / (1 - t) / STEPS
    return float((x > size / 2).mean())


def _expected(x: np.ndarray, t: float, p: float, size: float, kind: str) -> np.ndarray:
    """Mean or median of the motion given x_t: a mixture of two Gaussians."""
    variance = (t * SPREAD) ** 2 + (1 - t) ** 2
    means = np.array([0.0, size])[:, None]
    log_weights = np.log([[1 - p], [p]]) - (x - t * means) ** 2 / (2 * variance)
    weights = np.exp(log_weights - log_weights.max(axis=0))
    weights = weights / weights.sum(axis=0)
    centres = means + t * SPREAD**2 / variance * (x - t * means)
    if kind == "l2":
        return np.asarray((weights * centres).sum(axis=0))
    deviation = SPREAD * (1 - t) / np.sqrt(variance)
    low, high = centres.min(axis=0) - 1, centres.max(axis=0) + 1
    for _ in range(40):  # bisection
        middle = (low + high) / 2
        below = (weights * norm.cdf(middle, centres, deviation)).sum(axis=0) < 0.5
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)


if __name__ == "__main__":
    main()

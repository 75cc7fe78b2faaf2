"""Time that passes while somebody looks: a suspended process does not hold the time that it slept against others.

`fg` after Ctrl-Z, a job that its scheduler suspended, a machine that swaps: the clock has moved on, and whoever
measured a limit by it would now find everybody late.
"""

from __future__ import annotations

import time

_LAPSE = 10.0  # seconds between two looks after which this process itself must have stood still


class Stopwatch:
    """Seconds since it was made, without the time in which nobody looked at any stopwatch for more than 10 s."""

    _looked = time.monotonic()  # of all of them: who looks at one is awake
    _lost = 0.0  # seconds that this process stood still so far

    def __init__(self) -> None:
        self._began = self.now()

    def seconds(self) -> float:
        return self.now() - self._began

    @classmethod
    def now(cls) -> float:
        """Seconds since some moment, without those in which this process stood still."""
        now = time.monotonic()
        lapse = now - cls._looked
        if lapse > _LAPSE:
            cls._lost += lapse
        cls._looked = now
        return now - cls._lost

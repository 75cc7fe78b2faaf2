"""What a piece of a test takes, seen also in a test process that held more before."""

from __future__ import annotations

from pathlib import Path

import pytest

from visavis.pipeline.engine.memory import peak_mb


def peak_from_now() -> float:
    """Let `peak_mb` count from here on; what it is now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system cannot forget the most that a process held")
    return peak_mb()

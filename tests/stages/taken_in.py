"""What a worker makes of each file named on stdin, one line of JSON per file; memory and time are limited."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from tests.stages.worker import peak_mb
from visavis.schemas.config import IngestConfig
from visavis.schemas.errors import Rejected
from visavis.schemas.rows import Source
from visavis.stages.ingest import IngestStage
from visavis.stages.media.audio import sound_of
from visavis.stages.media.video import frames_on_grid

MEMORY = 4 << 30  # bytes of address space
FRAMES = 400  # of pictures looked at


def outcome(path: Path) -> str:
    """`ok`, a reason, or what was raised that must not be."""
    try:
        [conversation] = IngestStage(IngestConfig(min_duration=0.2)).process(Source(uris=(str(path),)))
        sound = sound_of(conversation.media[0], conversation.frames)
        assert np.isfinite(sound).all()
        for first in (0, conversation.frames * 2 // 3):
            last = min(conversation.frames, first + FRAMES)
            assert len(list(frames_on_grid(str(path), first, last, max_side=320))) == last - first
    except Rejected as rejected:
        return rejected.reason.value
    except Exception as error:  # noqa: BLE001  # it is what is looked for
        return f"{type(error).__name__}: {error}"
    return "ok"


def main() -> None:
    """Report on each file."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        began = time.perf_counter()
        found = {"file": path.name, "outcome": outcome(path), "seconds": time.perf_counter() - began}
        found["peak_mb"] = peak_mb()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

"""Whatever happened to a file on its way, it is taken in or rejected: no crash, no other error, no more than its share.

`HYPOTHESIS_PROFILE=nightly` damages many more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.scale import NIGHTLY
from tests.stages.test_containers import Recording

pytestmark = pytest.mark.slow

SEEDS = range(60 if NIGHTLY else 1)
HARMED = 12 if NIGHTLY else 5  # files by one seed and kind of recording
MEMORY_MB, SECONDS = 900, 20
KINDS = [
    Recording("mp4", "libx264", "aac"),
    Recording("mkv", "libx264", "libopus"),
    Recording("ts", "libx264", "mp2"),
    Recording("avi", "mpeg4", "libmp3lame"),
    Recording("webm", "libvpx-vp9", "libvorbis"),
    Recording("flv", "libx264", "aac"),
    Recording("mov", "mjpeg", "pcm_f32le"),
    Recording("mpg", "mpeg2video", "mp2"),
    Recording("ogv", "libtheora", "flac"),
    Recording("wmv", "wmv2", "wmav2"),
]


def harm(data: bytes, rng: np.random.Generator) -> bytes:
    """The same with a few bytes changed, a part lost, doubled or overwritten, or the end missing."""
    harmed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        # Half of the time where the header is: it is small, and says how large everything else is.
        limit = len(harmed) if rng.random() < 0.5 else min(len(harmed), 2000)
        at, length = int(rng.integers(limit)), int(rng.integers(1, 400))
        match rng.integers(6):
            case 0:
                harmed[at] ^= 1 << int(rng.integers(8))
            case 1:
                harmed[at : at + 8] = rng.bytes(8)
            case 2:
                del harmed[at : at + length]
            case 3:
                harmed[at:at] = harmed[at : at + length]
            case 4:
                harmed[at : at + length] = bytes([int(rng.choice([0, 255]))]) * length
            case _:
                if at > 100:
                    del harmed[at:]
    return bytes(harmed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {kind.form: kind.possible().write(folder / f"clip.{kind.form}").read_bytes() for kind in KINDS}


def report_on(paths: list[Path]) -> Iterator[dict[str, object]]:
    """What a worker says of each; a worker that died is named with the file it died of."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.stages.taken_in"],
        input="".join(f"{path}\n" for path in paths),
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    yield from reports
    if len(reports) < len(paths):
        yield {"file": paths[len(reports)].name, "outcome": f"died: {done.returncode}", "seconds": 0, "peak_mb": 0}
    elif done.stderr:
        yield {"file": "", "outcome": f"chatter: {done.stderr[:200]}", "seconds": 0, "peak_mb": 0}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_file_is_taken_in_or_rejected(seed: int, whole: dict[str, bytes], tmp_path: Path) -> None:
    from visavis.schemas.errors import Reason

    paths = []
    for number, (form, data) in enumerate(whole.items()):
        rng = np.random.default_rng([seed, number])
        for i in range(HARMED):
            paths.append(tmp_path / f"{i:02d}.{form}")
            paths[-1].write_bytes(harm(data, rng))
    wrong = [
        report
        for report in report_on(paths)
        if report["outcome"] not in {"ok", *(reason.value for reason in Reason)}
        or float(str(report["seconds"])) > SECONDS
        or float(str(report["peak_mb"])) > MEMORY_MB
    ]
    assert wrong == []

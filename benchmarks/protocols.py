"""What it costs to score a test set of DualTalk's size by a public protocol, beside the same in one process.

    python -m benchmarks.protocols [--sequences 1066] [--protocol dualtalk]

Sequences are random walks of 25 s in FLAME's 56 columns: k-means, most of the work, takes its time on them. It is held
against `score` of so few sequences that it stays in one process, times their number. Memory is what all processes hold
at once, shared pages counted once (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time

import numpy as np
import psutil

from benchmarks.processes import pss
from visavis.training.protocols.clips import Clip
from visavis.training.protocols.score import PROTOCOLS, score

PARTS = {"exp": slice(0, 50), "jaw": slice(50, 53), "pose": slice(53, 56)}
FRAMES = 625
ALONE = 40  # sequences that one process scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=1066)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="dualtalk")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    clips = [made(random) for _ in range(options.sequences)]
    alone_s = timed(options.protocol, clips[:ALONE]) / min(ALONE, len(clips)) * len(clips)
    most, over = [0], threading.Event()
    watching = threading.Thread(target=watch, args=(most, over))
    watching.start()
    seconds = timed(options.protocol, clips)
    over.set()
    watching.join()
    result = {
        "name": "protocols",
        "protocol": options.protocol,
        "sequences": len(clips),
        "seconds": round(seconds, 1),
        "one_process_s": round(alone_s, 1),
        "ratio": round(seconds / alone_s, 2),
        "peak_mb": most[0] >> 20,
        "of_it_motion_mb": sum(x.nbytes for c in clips for x in (c.truth, c.user, c.generated)) >> 20,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def made(random: np.random.Generator) -> Clip:
    truth, user, generated = (
        (0.01 * np.cumsum(random.standard_normal((FRAMES, 56)), axis=0)).astype(np.float32) for _ in range(3)
    )
    return Clip(truth, user, generated, listening=random.random(FRAMES) < 0.5)


def timed(protocol: str, clips: list[Clip]) -> float:
    began = time.perf_counter()
    score(protocol, clips, PARTS)  # type: ignore[arg-type]
    return time.perf_counter() - began


def watch(most: list[int], over: threading.Event) -> None:
    """Bytes of this process and those that it began, the most that was seen."""
    own = psutil.Process()
    while not over.wait(0.5):
        most[0] = max(most[0], sum(map(pss, (own, *own.children(recursive=True)))))


if __name__ == "__main__":
    main()

"""How fast the avatar is drawn on one core, and how much less a bare warp costs.

    python -m benchmarks.avatar [--quick]

portrait  a picture that motion moves, 512 × 512: `pipeline.view.avatar`
mesh      a face without a portrait
bare      the floor: one `cv2.remap` of a picture of the same size, with a map that is there

Frames a second of CPU time, so that a machine's other work does not count. The face is painted, as in the tests; its
motion is drawn at random, smooth, and different in each frame.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from benchmarks.processes import say
from tests.view.faces import codec, neutral_face, portrait
from visavis.pipeline.view.avatar import Avatar
from visavis.pipeline.view.puppet import Puppet

SIZE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 frames instead of 500")
    frames = 50 if parser.parse_args().quick else 500
    cv2.setNumThreads(1)
    moving_TD = np.cumsum(np.random.default_rng(0).normal(0, 0.02, (frames, 9)), axis=0)
    picture = portrait()
    avatars = {
        "portrait": Avatar(Puppet.carrying(codec(), picture)),
        "mesh": Avatar(Puppet.of(codec(), neutral_face())),
    }
    speed = {name: rate(partial(draw, avatar, moving_TD), frames) for name, avatar in avatars.items()}
    v, u = np.mgrid[:SIZE, :SIZE].astype(np.float32) + 0.3
    speed["bare"] = rate(lambda _: cv2.remap(picture.picture_SS3, u, v, cv2.INTER_LINEAR), frames)
    for name, fps in speed.items():
        say(f"{name}  {fps:.1f} frames a second of one core")
    result = {
        "name": "avatar",
        "ratio": round(speed["portrait"] / 25, 3),
        "rows": [{"what": name, "fps": round(fps, 1)} for name, fps in speed.items()],
        "against": "25 frames a second at 512 × 512 on one core",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def draw(avatar: Avatar, motion_TD: np.ndarray, n: int) -> None:
    avatar.draw(avatar.puppet.points(motion_TD[n : n + 1])[0], SIZE)


def rate(work: Callable[[int], object], frames: int) -> float:
    work(0)
    began = time.process_time()
    for n in range(frames):
        work(n)
    return frames / (time.process_time() - began)


if __name__ == "__main__":
    main()

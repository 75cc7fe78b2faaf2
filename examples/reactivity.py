"""How well do avatars fit their users? Scores motion in an array by what recorded listeners of a dataset do.

python examples/reactivity.py runs/demo/build/dataset                    # recorded motion, and another window's
python examples/reactivity.py runs/demo/build/dataset motion.npy         # yours: [W, T, D] of these windows
"""

import sys
from itertools import islice

import numpy as np

from visavis.schemas.dyads import WindowClass
from visavis.stages.pairing.reactivity import reactivity
from visavis.stages.pairing.reference_statistics import learn_from
from visavis.training.dataset import Dataset

if __name__ == "__main__":
    data = Dataset(sys.argv[1])
    reference = learn_from(data, WindowClass.LISTENING)  # reads up to 1,024 training windows
    windows = list(islice(data.samples("train", WindowClass.LISTENING), 256))
    recorded = np.stack([window.avatar_motion for window in windows])
    motions = {"recorded": recorded, "another window's": np.roll(recorded, len(windows) // 2, axis=0)}
    if len(sys.argv) > 2:
        motions["yours"] = np.load(sys.argv[2])
    for name, motion_WTD in motions.items():
        found = reactivity(windows, motion_WTD, data.manifest.motion, reference)
        print(f"{name:16} lagged {found.lagged.mean():+.3f}  event {np.nanmean(found.event):+.3f}"
              f"  total {found.total.mean():+.3f}, above 0 in {(found.total > 0).mean():.0%}")  # fmt: skip

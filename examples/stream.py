"""A checkpoint as a live listener: the user's voice and motion come in, the avatar's motion goes out, 0.4 s at a time.

    python examples/stream.py runs/demo/base/checkpoint.safetensors runs/demo/build/dataset motion.npy [KEY]

A window of the dataset stands for microphone, camera and the avatar's own voice. Half-way the state is saved and
restored, as when a session moves to another machine: the motion goes on exactly as it would have.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.sampler import Stream
from visavis.training.session import load_stream, save_stream

path, folder, out, *keys = sys.argv[1:]
torch.set_num_threads(1)  # what one session of a small model needs is too little to share
checkpoint = load_checkpoint(Path(path), whole=False)
model = load_model(checkpoint)
windows = (s for split in ("val", "train") for s in Dataset(folder).samples(split))
window = next((s for s in windows if s.key in keys or not keys), None)
if window is None:
    sys.exit(f"{folder} has no window {keys[0]}")


def tensor(array):
    """A batch of one session."""
    return torch.from_numpy(array)[None]


# In a service `reference` is a frame of the avatar at rest; here it is the window's.
stream = Stream(model, tensor(window.reference), checkpoint.config.sampler, keys=[window.key])
frames, given, blocks = len(window.user_motion), 0, []
while stream.state.done < frames:
    heard = min(frames, given + stream.needs)  # the first block waits for the look-ahead, too
    sound = slice(given * SAMPLES_PER_FRAME, heard * SAMPLES_PER_FRAME)
    began = time.perf_counter()
    block = stream.step(
        tensor(window.avatar_audio[sound]),
        tensor(window.user_audio[sound]),
        tensor(window.user_motion[given:heard]),
        last=heard == frames,
    )
    took, given = time.perf_counter() - began, heard
    blocks.append(block[0].numpy())  # [10, D] in the codec's units: docs/formats/dataset.md decodes it
    print(f"{stream.state.done / 25:4.1f} s: {len(blocks[-1])} frames in {1000 * took:.0f} ms")
    if len(blocks) == 2:
        state = save_stream(stream)  # bytes, nothing pickled
        stream = load_stream(state, model)
motion = np.concatenate(blocks)
np.save(out, motion)
print(f"{window.key}: {motion.shape} in {out}, beside the recorded {window.avatar_motion.shape}")

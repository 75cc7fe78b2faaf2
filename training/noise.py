"""Noise of blocks: a function of (seed, key of the session, number of the block) alone.

Drawn by Philox, a counter-based generator: the key is a digest of seed and session, the counter the block's number. So
noise does not depend on what else is in a batch, and a session carries no random state.

Making a generator for each session and block took 70 µs on a core of two; one generator that is given each session's
key in turn takes 11 µs, of which 8 are the numbers themselves (320 of them), and gives the same bits.

Shape suffixes: S sessions, T frames, D motion dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from visavis.training.shapes import STD


class NoiseSource:
    """Standard normal noise of one set of sessions. Not for several threads at once."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._bits = np.random.Philox(key=0)
        self._normal = np.random.Generator(self._bits)
        self._fresh = self._bits.state  # a dict of our own, with an empty buffer

    def key_of(self, session: str) -> np.ndarray:
        """What `draw` takes for a session, uint64 [2]; whoever draws often keeps it."""
        return np.frombuffer(hashlib.sha256(f"{self._seed}/{session}".encode()).digest()[:16], dtype="<u8")

    def draw(self, keys: Sequence[np.ndarray | None], blocks: Sequence[int], frames: int, dim: int) -> STD:
        """Noise of one block of each session, [S, T, D] float32 on the CPU; zeros where a key is None.

        Shorter blocks are beginnings of longer ones.
        """
        noise_STD = np.zeros((len(keys), frames, dim), np.float32)
        for key, block, noise_TD in zip(keys, blocks, noise_STD, strict=True):
            if key is not None:
                counter = np.array([0, 0, 0, block], np.uint64)
                self._bits.state = self._fresh | {"state": {"counter": counter, "key": key}}
                self._normal.standard_normal(dtype=np.float32, out=noise_TD)
        return torch.from_numpy(noise_STD)


def noise(seed: int, keys: Sequence[str], block: int, frames: int, dim: int) -> STD:
    """Standard normal noise of one block of each session, [S, T, D] float32 on the CPU."""
    source = NoiseSource(seed)
    return source.draw([source.key_of(key) for key in keys], [block] * len(keys), frames, dim)

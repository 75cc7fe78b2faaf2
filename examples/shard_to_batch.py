"""From shards to batches in plain PyTorch: no import of ours, only the format (docs/formats/dataset.md).

    python examples/shard_to_batch.py runs/demo/build/dataset

Classes are mixed as the manifest's plan says, and each sample is kept with its weight. Workers share the shards.
"""

import io
import itertools
import json
import random
import sys
import tarfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Windows(IterableDataset):
    """Endless training windows: motion normalised [T, D], sound [T · 640], who is seen [T, 2]."""

    def __init__(self, folder, seed=0):
        self.folder, self.seed = folder, seed
        self.manifest = json.loads(Path(folder, "manifest.json").read_text("utf-8"))
        self.mean, self.std = (torch.tensor(self.manifest["motion"][name]) for name in ("mean", "std"))

    def __iter__(self):
        worker = get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        train = [shard for shard in self.manifest["shards"] if shard["split"] == "train"]
        by_class = {label: [s for s in train if s["label"] == label] for label in {s["label"] for s in train}}
        shares = {label: share for label, share in self.manifest["plan"]["mixture"].items() if label in by_class}
        streams = {label: self.of_class(by_class[label], rng) for label, share in shares.items() if share}
        while True:
            yield next(streams[rng.choices(list(streams), [shares[label] for label in streams])[0]])

    def of_class(self, shards, rng):
        while True:
            for shard in rng.sample(shards, len(shards)):
                with tarfile.open(f"{self.folder}/{shard['path']}") as tar:
                    for _, members in itertools.groupby(tar, lambda member: member.name.partition(".")[0]):
                        parts = {m.name.partition(".")[2]: tar.extractfile(m).read() for m in members}
                        if rng.random() < json.loads(parts["meta.json"])["weight"]:
                            yield self.decoded(parts)

    def decoded(self, parts):
        arrays = {name: np.load(io.BytesIO(data)) for name, data in parts.items() if name.endswith(".npy")}
        sounds = {name: soundfile.read(io.BytesIO(parts[name]), dtype="float32")[0] for name in parts if "flac" in name}
        sample = {name.rpartition(".")[0]: torch.from_numpy(value) for name, value in (arrays | sounds).items()}
        return sample | {name: (sample[name] - self.mean) / self.std for name in sample if "motion" in name}


if __name__ == "__main__":
    loader = DataLoader(Windows(sys.argv[1]), batch_size=16, num_workers=2)
    batch = next(iter(loader))
    for name, tensor in sorted(batch.items()):
        print(f"{name:14} {str(tensor.dtype).removeprefix('torch.'):8} {list(tensor.shape)}")

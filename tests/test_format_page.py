"""`docs/formats/dataset.md` is true: its code runs on a copied dataset without us, and it names every field."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from tests.stages.test_shard import write_dataset
from visavis.schemas.face_rows import Figures
from visavis.schemas.manifest import (
    AudioSpec,
    BalancePlan,
    FileEntry,
    Histogram,
    Manifest,
    MotionColumn,
    MotionSpec,
    PairsInfo,
    ShardEntry,
)
from visavis.schemas.pairs import PairRecord
from visavis.schemas.plain import load_record
from visavis.schemas.sample import SampleMeta
from visavis.schemas.sampling import Sampling
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoiceFigures
from visavis.schemas.windows_config import ShardConfig
from visavis.stages.face.codec import decode_motion
from visavis.stages.face.decode import avatar_of, conversation_of, read_codec, read_faces
from visavis.training.dataset import Dataset

PAGE = (Path(__file__).parent.parent / "docs" / "formats" / "dataset.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
KINDS: tuple[type[BaseModel], ...] = (
    *(
        Manifest,
        ShardEntry,
        FileEntry,
        MotionSpec,
        MotionColumn,
        BalancePlan,
        PairsInfo,
        Histogram,
        AudioSpec,
        Sampling,
    ),
    *(SampleMeta, Figures, VoiceFigures, PairRecord),
)
FOREIGN = [block for block in BLOCKS if "visavis." not in block]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_dataset(folder := tmp_path_factory.mktemp("page") / "run", ShardConfig(max_samples=5))
    return folder.rename(folder.with_name("moved"))


@pytest.fixture
def copied(dataset: Path, tmp_path: Path) -> Path:
    """A folder with `dataset/` in it; what built that is gone."""
    shutil.copytree(dataset, tmp_path / "dataset")
    return tmp_path


def run(folder: Path, *blocks: str, isolated: bool = True) -> None:
    (folder / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    subprocess.run([sys.executable, *(["-I"] if isolated else []), "page.py"], cwd=folder, check=True, timeout=120)


@pytest.mark.slow
def test_the_page_reads_mixes_and_decodes_what_was_copied(copied: Path) -> None:
    """Every sample of every shard, and both people's landmarks, are what ours are."""
    store, dataset = Store(f"{copied}/dataset"), Dataset(f"{copied}/dataset")
    codec = read_codec(store, dataset.manifest)
    assert codec is not None
    after = """
import sys
assert not [name for name in sys.modules if name.startswith("visavis")]
made = {"batch": batch.numpy()}
for shard in manifest["shards"]:
    for s in samples(folder, shard):
        for user, name in enumerate(("avatar.motion.npy", "user.motion.npy")):
            decoder = decoder_of(folder, manifest, shard, s["key"], user=bool(user))
            made[f"{s['key']}/{name}"] = landmarks(s[name].numpy(), *decoder)
        made |= {f"{s['key']}/{name}": s[name].numpy() for name in s if name.endswith(("audio.flac", "state.npy"))}
        made[f"{s['key']}/meta"] = np.array(json.dumps(s["meta.json"]))
np.savez("made.npz", **made)
"""
    run(copied, *FOREIGN, after)
    made = np.load(copied / "made.npz")
    count = 0
    for entry in dataset.manifest.shards:
        faces = read_faces(store, entry)
        for key, members in dataset.shard(entry):
            sample, neutral = dataset.decode(key, members), faces[conversation_of(key)].neutral
            avatar = avatar_of(key)
            for name, motion, person in (
                ("avatar.motion.npy", sample.avatar_motion, avatar),
                ("user.motion.npy", sample.user_motion, 1 - avatar),
            ):
                ours = decode_motion(codec, motion, neutral[person])
                np.testing.assert_allclose(made[f"{key}/{name}"], ours, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(made[f"{key}/user.audio.flac"], sample.user_audio, atol=5e-5)
            np.testing.assert_array_equal(made[f"{key}/state.npy"], sample.state)
            assert load_record(str(made[f"{key}/meta"]).encode(), SampleMeta) == sample.meta
            count += 1
    assert count == sum(entry.samples for entry in dataset.manifest.shards)
    assert made["batch"].shape == (8, dataset.manifest.window, dataset.manifest.motion.dim)


@pytest.mark.slow
def test_the_page_keeps_the_mixture_and_the_weights(copied: Path) -> None:
    path = copied / "dataset" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["plan"]["mixture"] = {"listening": 0.25, "overlap": 0.1, "silence": 0.0, "speaking": 0.65}
    path.write_text(json.dumps(manifest))
    after = """
seen = [(s["meta.json"]["label"], s["key"]) for s in itertools.islice(drawn, 1500)]
json.dump(seen, open("seen.json", "w"))
"""
    run(copied, *FOREIGN[:2], after)
    seen = [tuple(each) for each in json.loads((copied / "seen.json").read_text())]
    labels, keys = Counter(label for label, _ in seen), Counter(key for _, key in seen)
    assert labels["listening"] / len(seen) == pytest.approx(0.25 / 0.9, abs=0.04)  # there is no overlap to draw
    listening = [s for s in Dataset(f"{copied}/dataset").samples("train") if s.meta.label == "listening"]
    total = sum(s.meta.weight for s in listening)
    for sample in listening:
        assert keys[sample.key] / labels["listening"] == pytest.approx(sample.meta.weight / total, abs=0.06)


@pytest.mark.slow
def test_the_page_with_ours_gives_the_same(copied: Path) -> None:
    after = "np.testing.assert_allclose(points, ours, rtol=1e-5, atol=1e-5)"
    run(copied, *BLOCKS, after, isolated=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_names_every_field(kind: type[BaseModel]) -> None:
    said = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", PAGE)}
    assert set(kind.model_fields) <= said

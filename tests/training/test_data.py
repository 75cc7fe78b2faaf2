"""The loader: manifest first, the plan's mixture, the same order every time, bad samples named."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.dyads import WindowClass
from schemas.errors import DatasetError, UsageError
from schemas.manifest import MANIFEST_NAME, dump_manifest
from tests.training.synthetic import DIM, sample, write_dataset
from training.data import Dataset, Loader, class_mixture, prefetch

LISTENING, SPEAKING, SILENCE = WindowClass.LISTENING, WindowClass.SPEAKING, WindowClass.SILENCE


def keys(loader: Loader, batches: int) -> list[str]:
    return [key for batch, _ in islice(iter(loader), batches) for key in batch.keys]


def label(key: str) -> str:
    return key.split("-")[0]


def test_a_batch_holds_what_was_written(windows: Path):
    batch, _ = next(iter(Loader(Dataset(str(windows)), 4)))
    written = sample(int(batch.keys[0].split("-")[1]), WindowClass(label(batch.keys[0])))
    np.testing.assert_array_equal(batch.avatar_motion[0], written.avatar_motion)
    np.testing.assert_array_equal(batch.user_motion[0], written.user_motion)
    np.testing.assert_allclose(batch.user_audio[0], written.user_audio, atol=1e-4)
    assert batch.avatar_audio.shape == (4, 50 * 640)
    assert batch.valid.shape == (4, 50, 2)
    assert batch.valid.dtype == torch.bool
    assert batch.reference.shape == (4, DIM)
    assert batch.chosen is None


def test_pairs_bring_both_sides(pairs: Path):
    batch, _ = next(iter(Loader(Dataset(str(pairs)), 4)))
    assert batch.chosen is not None
    assert batch.rejected is not None
    torch.testing.assert_close(batch.chosen, batch.avatar_motion)
    assert not torch.equal(batch.chosen, batch.rejected)


def test_classes_are_mixed_by_the_plan_however_many_samples_they_have(tmp_path: Path):
    counts = {SPEAKING: 12, LISTENING: 3, SILENCE: 1}
    folder = write_dataset(tmp_path, counts, mixture={SPEAKING: 0.3, LISTENING: 0.6, SILENCE: 0.1})
    drawn = Counter(label(key) for key in keys(Loader(Dataset(str(folder)), 10), 10))
    assert drawn == {"speaking": 30, "listening": 60, "silence": 10}


def test_an_absent_class_leaves_its_share_to_the_others(tmp_path: Path):
    folder = write_dataset(
        tmp_path, {SPEAKING: 2, LISTENING: 2, SILENCE: 0}, mixture={SPEAKING: 0.2, LISTENING: 0.6, SILENCE: 0.2}
    )
    mixture = class_mixture(Dataset(str(folder)).manifest, "train")
    assert mixture == pytest.approx({LISTENING: 0.75, SPEAKING: 0.25})


def test_fewer_samples_than_a_batch_are_repeated(tmp_path: Path):
    folder = write_dataset(tmp_path, {LISTENING: 3})
    drawn = keys(Loader(Dataset(str(folder)), 8), 3)
    assert len(drawn) == 24
    assert set(Counter(drawn).values()) == {8}  # every epoch visits each sample once


def test_the_order_depends_on_the_seed_and_nothing_else(tmp_path: Path):
    data = Dataset(str(write_dataset(tmp_path, {LISTENING: 12, SPEAKING: 12}, shards=3)))
    first = keys(Loader(data, 4, seed=1), 12)
    assert first == keys(Loader(data, 4, seed=1), 12)
    assert first != keys(Loader(data, 4, seed=2), 12)
    listening = [key for key in first if label(key) == "listening"]
    assert sorted(listening[:12]) == sorted(set(listening))  # an epoch is a permutation
    assert listening[:12] != listening[12:24]  # and every epoch another


def test_weights_thin_an_epoch(tmp_path: Path):
    data = Dataset(str(write_dataset(tmp_path, {LISTENING: 40}, weight=0.5, frames=10)))
    loader = Loader(data, 1)
    epochs = Counter()
    for _, state in islice(iter(loader), 400):
        epochs[state["listening"][1]] += 1
    whole = [count for epoch, count in epochs.items() if epoch < max(epochs)]
    assert np.mean(whole) == pytest.approx(20, abs=3)
    assert len(set(whole)) > 1


def test_a_weight_of_zero_everywhere_is_an_error_and_not_a_hang(tmp_path: Path):
    loader = Loader(Dataset(str(write_dataset(tmp_path, {LISTENING: 2}, weight=0.0, frames=10))), 1)
    with pytest.raises(DatasetError, match="listening has a weight above 0"):
        keys(loader, 1)


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_loader_goes_on_where_its_state_says(tmp_path: Path, stop: int):
    folder = write_dataset(tmp_path, {LISTENING: 5, SPEAKING: 7}, shards=2, weight=0.7, frames=10)
    data = Dataset(str(folder))
    whole = keys(Loader(data, 4), 12)
    *_, (_, state) = islice(iter(Loader(data, 4)), stop)
    assert keys(Loader(data, 4, state=state), 12 - stop) == whole[4 * stop :]


def spoil(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
    if key in ("listening-00001", "listening-00003"):
        return members | {"user.audio.flac": b"not audio"}
    return members


def test_a_corrupt_sample_is_skipped_counted_and_named(tmp_path: Path):
    data = Dataset(str(write_dataset(tmp_path, {LISTENING: 6}, damage=spoil, frames=10)))
    loader = Loader(data, 2, max_bad=2)
    assert set(keys(loader, 20)) == {f"listening-0000{i}" for i in (0, 2, 4, 5)}
    assert set(loader.bad) == {"listening-00001", "listening-00003"}
    with pytest.raises(DatasetError, match=r"2 unreadable samples .* sample listening-0000[13]"):
        keys(Loader(data, 2, max_bad=1), 20)


def test_a_class_of_corrupt_samples_only_is_an_error_and_not_a_hang(tmp_path: Path):
    def all_bad(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        return {name: data for name, data in members.items() if name != "state.npy"}

    data = Dataset(str(write_dataset(tmp_path, {LISTENING: 1}, damage=all_bad, frames=10)))
    with pytest.raises(DatasetError, match="in a row were unreadable"):
        keys(Loader(data, 2, max_bad=5), 1)


def test_a_sample_of_another_codec_does_not_get_in(tmp_path: Path):
    folder = write_dataset(tmp_path, {LISTENING: 2}, frames=10, codec="other")
    manifest = Dataset(str(folder)).manifest
    motion = manifest.motion.model_copy(update={"codec": "synthetic"})
    (folder / MANIFEST_NAME).write_bytes(dump_manifest(manifest.model_copy(update={"motion": motion})))
    with pytest.raises(DatasetError, match="codec, frames, dimensions"):
        keys(Loader(Dataset(str(folder)), 1), 1)


def test_what_does_not_match_the_manifest_is_refused(tmp_path: Path):
    folder = write_dataset(tmp_path / "a", {LISTENING: 2}, frames=10)
    shard = folder / "train-listening-00000.tar"
    data = bytearray(shard.read_bytes())
    data[2000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match=r"train-listening-00000.tar is not the one .*sha256"):
        keys(Loader(Dataset(str(folder)), 1), 1)
    shard.unlink()
    with pytest.raises(DatasetError, match="missing"):
        keys(Loader(Dataset(str(folder)), 1), 1)
    (folder / MANIFEST_NAME).write_text('{"schema_version": 99}')
    with pytest.raises(DatasetError, match="schema version 99"):
        Dataset(str(folder))


def test_no_manifest_is_wrong_use(tmp_path: Path):
    with pytest.raises(UsageError, match=r"not a dataset: cannot read its manifest.json"):
        Dataset(str(tmp_path))


def test_datasets_may_lie_behind_any_url(tmp_path: Path):
    folder = write_dataset(tmp_path, {LISTENING: 3}, frames=10)
    by_url = Dataset(f"file://{folder}")
    assert keys(Loader(by_url, 2), 3) == keys(Loader(Dataset(str(folder)), 2), 3)


def test_prefetching_changes_nothing_and_passes_errors_on():
    assert list(islice(prefetch(iter(range(10_000))), 50)) == list(range(50))

    def broken():
        yield 1
        raise DatasetError("broken shard")

    ahead = prefetch(broken())
    assert next(ahead) == 1
    with pytest.raises(DatasetError, match="broken shard"):
        next(ahead)

"""The loader: manifest first, the plan's mixture, the same order every time, bad samples named."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.synthetic import DIM, sample, write_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.manifest import MANIFEST_NAME, ShardEntry, dump_manifest
from visavis.training.dataset import Dataset, class_mixture
from visavis.training.epochs import spans
from visavis.training.loader import Loader, prefetch

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


@pytest.mark.slow
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


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    world_size=st.integers(1, 40),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 99),
)
def test_ranks_share_an_epoch_and_no_sample_is_left_or_taken_twice(
    sizes: list[int], world_size: int, seed: int, epoch: int
):
    shards = [
        ShardEntry(path=f"s-{i}.tar", split="train", label=LISTENING, samples=n, bytes=512 * n, sha256="0" * 64)
        for i, n in enumerate(sizes)
    ]
    parts = [list(spans(shards, seed, epoch, rank, world_size)) for rank in range(world_size)]
    looked_at = Counter((span.entry.path, i) for part in parts for span in part for i in range(span.first, span.last))
    assert looked_at == Counter((entry.path, i) for entry in shards for i in range(entry.samples))
    counts = [part[-1].end if part else 0 for part in parts]
    assert sum(counts) == sum(sizes)
    assert max(counts) - min(counts) <= 1
    for part in parts:
        assert [0, *(span.end for span in part)][: len(part)] == [span.start for span in part]
        assert all(span.last - span.first == span.entry.samples for span in part[1:-1])  # whole shards in between


def by_epoch(loader: Loader, epochs: int) -> list[list[str]]:
    """Keys in the order in which a loader of batches of one, of one class, draws them."""
    drawn: list[list[str]] = [[] for _ in range(epochs)]
    for batch, state in loader:
        epoch = state["listening"][1]
        if epoch >= epochs:
            return drawn
        drawn[epoch] += batch.keys
    raise AssertionError("a loader does not end")


@pytest.fixture(scope="module")
def thinned(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """The same samples with weights of 1 and of 0.6, in three shards."""
    folders = {weight: tmp_path_factory.mktemp("thinned") for weight in (1.0, 0.6)}
    return [
        Dataset(str(write_dataset(folder, {LISTENING: 11}, shards=3, weight=weight, frames=1)))
        for weight, folder in folders.items()
    ]


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(world_size=st.integers(1, 14), seed=st.integers(0, 99))
def test_all_ranks_together_see_in_an_epoch_what_one_alone_would(thinned: list[Dataset], world_size: int, seed: int):
    for data in thinned:
        alone = by_epoch(Loader(data, 1, seed=seed), 3)
        ranks = [
            by_epoch(Loader(data, 1, seed=seed, rank=rank, world_size=world_size), 3) for rank in range(world_size)
        ]
        for epoch, expected in enumerate(alone):
            assert sorted(key for rank in ranks for key in rank[epoch]) == sorted(expected)
        if data is thinned[0]:
            assert [len(set(keys)) for keys in alone] == [11, 11, 11]


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(world_size=st.integers(1, 14), rank=st.integers(0, 13), stop=st.integers(1, 11), seed=st.integers(0, 9))
def test_any_rank_goes_on_where_its_state_says(
    thinned: list[Dataset], world_size: int, rank: int, stop: int, seed: int
):
    place = {"seed": seed, "rank": rank % world_size, "world_size": world_size}
    for data in thinned:
        whole = keys(Loader(data, 2, **place), 12)
        *_, (_, state) = islice(iter(Loader(data, 2, **place)), stop)
        state = json.loads(json.dumps(state))  # as a checkpoint keeps it
        assert keys(Loader(data, 2, **place, state=state), 12 - stop) == whole[2 * stop :]


def test_every_rank_mixes_the_classes_by_the_plan(tmp_path: Path):
    counts = {SPEAKING: 12, LISTENING: 3, SILENCE: 1}
    folder = write_dataset(tmp_path, counts, mixture={SPEAKING: 0.3, LISTENING: 0.6, SILENCE: 0.1}, frames=1)
    for rank in range(4):
        loader = Loader(Dataset(str(folder)), 10, rank=rank, world_size=4)
        assert Counter(map(label, keys(loader, 10))) == {"speaking": 30, "listening": 60, "silence": 10}


def test_a_rank_opens_its_own_shards_and_at_most_two_that_it_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = str(write_dataset(tmp_path, {LISTENING: 24}, shards=12, frames=1))
    opened_by: dict[Dataset, list[str]] = {}
    fetch = Dataset.fetch
    monkeypatch.setattr(Dataset, "fetch", lambda self, entry: opened_by[self].append(entry.path) or fetch(self, entry))
    for rank in range(5):
        data = Dataset(folder)  # one for each: the last one's reader may still be at it
        opened = opened_by[data] = []
        loader = iter(Loader(data, 1, rank=rank, world_size=5))
        while next(loader)[1]["listening"][1] == 0:
            pass
        own = [span.entry.path for span in spans(data.manifest.of("train"), 0, 0, rank, 5)]
        assert opened[: len(own)] == own
        assert len(own) <= 12 / 5 + 2
        assert len(opened) <= len(own) + 2  # of the next epoch: the one just begun, and the one read ahead


def spoil(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
    if key in ("listening-00001", "listening-00003"):
        return members | {"user.audio.flac": b"not audio"}
    return members


def test_a_corrupt_sample_is_skipped_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = Dataset(str(write_dataset(tmp_path, {LISTENING: 6}, damage=spoil, frames=10)))
    loader = Loader(data, 2, max_bad=2)
    assert set(keys(loader, 20)) == {f"listening-0000{i}" for i in (0, 2, 4, 5)}
    assert set(loader.bad) == {"listening-00001", "listening-00003"}
    assert sorted(caplog.messages) == [  # each is told once, however often it is met
        f"left out: sample listening-0000{i}: user.audio: audio is not FLAC" for i in (1, 3)
    ]
    with pytest.raises(DatasetError, match=r"2 unreadable samples .* sample listening-0000[13]"):
        keys(Loader(data, 2, max_bad=1), 20)


def test_corrupt_samples_stay_counted_when_a_run_goes_on(tmp_path: Path):
    data = Dataset(str(write_dataset(tmp_path, {LISTENING: 6}, damage=spoil, frames=10)))
    loader = Loader(data, 1, max_bad=2)
    for _ in loader:
        if len(loader.bad) == 2:
            break
    state = json.loads(json.dumps(loader.state()))
    again = Loader(data, 1, max_bad=2, state=state)
    assert again.bad == loader.bad
    keys(again, 20)  # the same two are met again, and are no more than two
    assert again.bad == loader.bad
    with pytest.raises(DatasetError, match="2 unreadable samples"):
        keys(Loader(data, 1, max_bad=1, state=state), 20)


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
    assert list(prefetch([1, None, 3], depth=1)) == [1, None, 3]  # and ends where its source does

    def broken():
        yield 1
        raise DatasetError("broken shard")

    ahead = prefetch(broken())
    assert next(ahead) == 1
    with pytest.raises(DatasetError, match="broken shard"):
        next(ahead)

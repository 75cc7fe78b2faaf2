"""The loader, verify and given files on a web server that is away, slow to recover, or breaks off."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.webserver import Behaviour, Host, closed_port, web
from tests.training.synthetic import write_dataset
from visavis.pipeline.cli.verify import verify_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError, RunFailed, UsageError
from visavis.schemas.storage import faults
from visavis.schemas.storage.user_files import read_given
from visavis.schemas.train import FeatureConfig
from visavis.training.dataset import Dataset
from visavis.training.encoder import load_encoder

SHARD = "/train-listening-00001.tar"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A dataset's files."""
    monkeypatch.setattr(faults, "WAITS", (0.01, 0.02))
    monkeypatch.setattr(faults, "ITEM_WAITS", (0.01, 0.02))
    monkeypatch.setattr(faults, "_AWAY", {})
    folder = write_dataset(tmp_path / "windows", {WindowClass.LISTENING: 6}, shards=2, frames=5)
    with web() as running:
        running.files = {f"/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        yield running


def shard_of(dataset: Dataset) -> bytes:
    return dataset.fetch(next(entry for entry in dataset.manifest.shards if SHARD.endswith(entry.path)))


@pytest.mark.parametrize("behaviour", [Behaviour(status=503, times=2), Behaviour(cut=0.5, times=2)], ids=["503", "cut"])
def test_what_passes_is_waited_for(host: Host, behaviour: Behaviour, caplog: pytest.LogCaptureFixture) -> None:
    host.behaviour[SHARD] = behaviour
    with caplog.at_level(logging.WARNING):
        assert shard_of(Dataset(host.address)) == host.files[SHARD]
    assert [f"{host.address}{SHARD} cannot be read" in line for line in caplog.messages] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(status=404), "is missing"),
        (Behaviour(status=500), r"cannot be read \(the server answers 500"),
        (Behaviour(status=403), r"cannot be read \(the server answers 403"),
        (Behaviour(cut=0.5), r"cannot be read \(the connection broke"),
    ],
    ids=["404", "500", "403", "cut"],
)
def test_what_does_not_is_told(host: Host, behaviour: Behaviour, said: str) -> None:
    host.behaviour[SHARD] = behaviour
    with pytest.raises(DatasetError, match=f"shard {SHARD[1:]} {said}"):
        shard_of(Dataset(host.address))


def test_a_dataset_whose_server_is_away_is_not_called_none(host: Host) -> None:
    with pytest.raises(DatasetError, match=r"Connection refused.*try again"):
        Dataset(f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(UsageError, match=r"is not a dataset: .*404"):
        Dataset(f"{host.address}/elsewhere")


def test_verify_reads_what_cannot_be_listed(host: Host) -> None:
    assert verify_dataset(host.address) == []
    host.behaviour[SHARD] = Behaviour(cut=0.5)
    (finding,) = verify_dataset(host.address)
    assert "the connection broke before the end" in finding


def test_a_given_file_is_wrong_use_only_where_it_is_not_there(host: Host) -> None:
    host.files["/net.pt"] = b"weights"
    host.behaviour["/net.pt"] = Behaviour(status=500, times=1)
    digest = hashlib.sha256(b"weights").hexdigest()
    assert read_given("x.weights", f"{host.address}/net.pt", digest) == b"weights"
    with pytest.raises(UsageError, match=r"x\.weights: .*404 Not Found\); fetch it"):
        read_given("x.weights", f"{host.address}/absent.pt", digest, remedy="fetch it")
    away = f"http://127.0.0.1:{closed_port()}/w.safetensors"
    with pytest.raises(RunFailed, match=r"features\.weights: .*cannot be read now \(Connection refused"):
        load_encoder(FeatureConfig(kind="wav2vec2", weights=away, weights_sha256=digest), "cpu")
    with pytest.raises(RunFailed, match=r"x\.weights: .*Connection refused"):
        read_given("x.weights", away, digest)


def test_a_server_is_not_asked_for_what_nobody_can_tell_from_another_file(host: Host) -> None:
    url = f"{host.address.replace('://', '://me:secret@')}/net.pt?signature=secret"
    features = FeatureConfig(kind="wav2vec2", weights=url)
    for setting, read in {
        "x.weights": lambda: read_given("x.weights", url),
        "features.weights": lambda: load_encoder(features, "cpu"),
    }.items():
        with pytest.raises(UsageError, match=rf"give its sha256, too \({setting}_sha256\)") as caught:
            read()
        assert "secret" not in str(caught.value)
    assert not host.asked


@pytest.mark.slow
@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(), Behaviour(ranges=False), Behaviour(ranges=False, length=False)],
    ids=["in parts", "whole", "of no told length"],
)
def test_a_server_that_sends_more_than_anybody_needs_is_cut_off(host: Host, behaviour: Behaviour) -> None:
    host.files["/net.pt"] = bytes(20 << 20)
    host.behaviour["/net.pt"] = behaviour
    with pytest.raises(UsageError, match=r"x\.weights: .*net\.pt"):
        read_given("x.weights", f"{host.address}/net.pt", "0" * 64, most=2 << 20)

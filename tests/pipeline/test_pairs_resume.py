"""Pairs stopped or killed on the way and resumed: the same bytes as without. `benchmarks.pairs` kills 2,048 windows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.pairs import killed_and_resumed, untrained
from tests.training.conftest import SMALL
from tests.training.synthetic import write_dataset
from visavis.pipeline.engine.executor import Executor, local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.plan.pairs import build_pairs
from visavis.pipeline.plan.pairs_order import PairsRequest
from visavis.pipeline.state.ledger import Outcome
from visavis.schemas.dyads import WindowClass
from visavis.schemas.pairs import GateConfig, PairsConfig
from visavis.schemas.train import FeatureConfig, SamplerConfig, TrainConfig
from visavis.training.dataset import Dataset

OPEN = GateConfig(min_reactivity_margin=-10, max_jerk_ratio=1e9, max_off_manifold=1e9)
CONFIG = PairsConfig(sampler=SamplerConfig(steps=1, guidance="none"), gate=OPEN, unit=4, batch=3, device="cpu")


@contextmanager
def stopped_engine(stages: Stages, root: str) -> Iterator[Executor]:
    """Somebody presses Ctrl-C after three shards."""
    with local_engine(stages, root) as executor:
        wait, done = executor.wait, 0

        def waited(seconds: float = 1.0) -> list[Outcome]:
            nonlocal done
            done += 1
            if done > 3:
                raise KeyboardInterrupt
            return wait()

        executor.wait = waited  # type: ignore[method-assign]
        yield executor


@pytest.mark.nightly("Ctrl-C between shards; a kill is below")
def test_stopped_and_resumed_only_the_rest_is_made(tmp_path: Path) -> None:
    source = write_dataset(tmp_path / "source", {WindowClass.LISTENING: 24})
    checkpoint = tmp_path / "checkpoint.safetensors"
    untrained(checkpoint, TrainConfig(model=SMALL, features=FeatureConfig(n_mels=4)), Dataset(str(source)))
    arguments = PairsRequest(str(source), str(checkpoint), CONFIG), str(tmp_path / "run")
    quiet = Reporter(Console(file=io.StringIO()))
    with pytest.raises(KeyboardInterrupt):
        build_pairs(*arguments, stopped_engine, quiet)
    assert not (tmp_path / "run" / "dataset" / "manifest.json").exists()
    assert build_pairs(*arguments, local_engine, quiet).processed == 3  # of six shards


@pytest.mark.slow
def test_killed_and_resumed_it_writes_the_same_bytes(tmp_path: Path) -> None:
    found = killed_and_resumed(tmp_path, windows=96, kills=1)
    assert found["byte_identical"]
    assert found["done_before"] > 0
    assert found["killed_kept"] == 96

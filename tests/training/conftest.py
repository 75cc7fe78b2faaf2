"""Fixtures: a small dataset with a known rule, and a model whose every weight matters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.synthetic import SPEC, write_dataset
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.train import FeatureConfig, Mask, ModelConfig, OptimConfig, SamplerConfig, TrainConfig
from visavis.training.model import Listener, build_model
from visavis.training.sampler import Stream
from visavis.training.train import train

SMALL = ModelConfig(width=32, depth=3, heads=2, encoder_width=16, encoder_heads=2, block=5, look_ahead=2, context=12)


def small_model(mask: Mask = "block", seed: int = 0, **changes: int) -> Listener:
    """A model with random weights everywhere: as initialised, its output is zero whatever goes in."""
    model = build_model(SMALL.model_copy(update={"mask": mask, **changes}), FeatureConfig(n_mels=8), SPEC, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.15 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def blocks(stream: Stream, x: dict[str, torch.Tensor], count: int, *, remember: bool = False) -> torch.Tensor:
    """The next blocks of a stream that is given these conditions from its first frame on, [S, T, D]."""
    made = []
    for _ in range(count):
        given, end = stream.state.given, stream.state.given + stream.needs
        samples = slice(given * SAMPLES_PER_FRAME, end * SAMPLES_PER_FRAME)
        voices = x["avatar_audio"][:, samples], x["user_audio"][:, samples]
        made.append(stream.step(*voices, x["user_motion"][:, given:end], last=end > x["user_motion"].shape[1]))
        if remember:
            stream.remember()
    return torch.cat(made, dim=1)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are so small that threads would wait for each other, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_config() -> TrainConfig:
    """A run of a few seconds."""
    return TrainConfig(
        model=SMALL.model_copy(update={"block": 10}),
        features=FeatureConfig(n_mels=8),
        optim=OptimConfig(lr=2e-3, batch=4, steps=6, warmup=2, ema=0.9),
        sampler=SamplerConfig(steps=2, guidance="none"),
        device="cpu",
        log_every=1,
        checkpoint_every=3,
        val_batches=1,
    )


@pytest.fixture(scope="session")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("windows"), val=2)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("pairs"), pairs=True)


@pytest.fixture(scope="session")
def trained(windows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        model=ModelConfig(width=32, depth=2, heads=2, encoder_width=16, encoder_heads=2),
        optim=OptimConfig(lr=2e-3, batch=4, steps=3, warmup=2, ema=0.9),
        device="cpu",
        checkpoint_every=100,
    )
    return train(str(windows), tmp_path_factory.mktemp("trained"), config)

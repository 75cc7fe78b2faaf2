"""How pairs are sampled is settled once for a run, kept when it is resumed, and told in the manifest."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.stages.test_pairs import CONFIG, save_model
from tests.training.conftest import small_model
from tests.training.synthetic import write_dataset
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.pairs import build_pairs
from visavis.pipeline.plan.pairs_order import PairsRequest
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.sampling import Sampling
from visavis.schemas.storage.store import Store
from visavis.stages.pairing import candidates
from visavis.stages.pairing.agreement import agreed
from visavis.training.dataset import Dataset
from visavis.training.loader import collate
from visavis.training.sampler import rollout

OPEN = CONFIG.model_copy(update={"batch": None, "shortfall_share": 0.0})
OWN = Sampling(device="cpu", precision="float32", batch=64, graphs=False)


@pytest.fixture(scope="module")
def request_(tmp_path_factory: pytest.TempPathFactory) -> PairsRequest:
    folder = tmp_path_factory.mktemp("source")
    source = write_dataset(folder / "windows", {WindowClass.LISTENING: 6})
    checkpoint = save_model(small_model(depth=2), folder / "checkpoint.safetensors")
    return PairsRequest(str(source), str(checkpoint), OPEN)


def build(request: PairsRequest, out: Path, limit: int | None = None, **settings: object) -> Dataset:
    config = request.config.model_copy(update=settings)
    request = PairsRequest(request.dataset, request.checkpoint, config, limit)
    return Dataset(build_pairs(request, str(out), local_engine, Reporter(Console(file=io.StringIO()))).dataset)


def told(pairs: Dataset) -> tuple[Sampling, ...]:
    assert pairs.manifest.pairs is not None
    return pairs.manifest.pairs.sampling


def settled_as(monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
    """A machine that settles something else, as one with other free memory does."""
    monkeypatch.setattr(candidates, "settle", lambda *_, **__: OWN.model_copy(update=settings))


@pytest.mark.slow
def test_a_cpu_samples_in_float32_and_the_manifest_says_so(request_: PairsRequest, tmp_path: Path) -> None:
    """To the bit what one rollout of these windows gives."""
    made = build(request_, tmp_path, unit=100)
    assert told(made) == (OWN,)
    pairs = list(made.samples("train"))
    batch = collate(pairs)
    given = batch.avatar_audio, batch.user_audio, batch.user_motion, batch.reference
    expected = rollout(small_model(depth=2), *given, OPEN.sampler, batch.keys, "no_user")
    np.testing.assert_array_equal(np.stack([pair.rejected for pair in pairs if pair.rejected is not None]), expected)


@pytest.mark.slow
def test_another_precision_is_told_and_asks_for_another_folder(request_: PairsRequest, tmp_path: Path) -> None:
    made = build(request_, tmp_path, precision="bfloat16")
    assert told(made) == (OWN.model_copy(update={"precision": "bfloat16"}),)
    exact = next(iter(build(request_, tmp_path / "exact").samples("train")))
    rounded = next(pair for pair in made.samples("train") if pair.key == exact.key)
    assert exact.rejected is not None
    assert rounded.rejected is not None
    assert 0 < np.abs(exact.rejected - rounded.rejected).max() < 0.1 * np.abs(exact.rejected).max()
    with pytest.raises(UsageError, match="was built with precision=bfloat16 and now has auto"):
        build(request_, tmp_path)
    with pytest.raises(UsageError, match="was built with batch=None and now has 3"):
        build(request_, tmp_path, precision="bfloat16", batch=3)


@pytest.mark.slow
def test_resumed_with_other_free_memory_a_run_samples_as_it_began(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(request_, tmp_path / "whole", precision="auto")
    (record,) = (tmp_path / "whole" / "artifacts" / "sampling").iterdir()
    assert Sampling.model_validate_json(record.read_bytes()) == OWN
    settled_as(monkeypatch, batch=2, precision="bfloat16")
    again = build(request_, tmp_path / "again", limit=1)  # begins otherwise, and goes on so
    assert told(again) == (OWN.model_copy(update={"batch": 2, "precision": "bfloat16"}),)
    monkeypatch.undo()
    assert told(build(request_, tmp_path / "again", limit=6)) == told(again)
    settled_as(monkeypatch, batch=2, precision="bfloat16")
    for shard in Path(whole.location).rglob("*.tar"):
        shard.unlink()
    made = build(request_, tmp_path / "whole")
    assert told(made) == (OWN,)
    assert made.hash == whole.hash  # of the same bytes


@pytest.mark.slow
def test_resumed_on_a_machine_that_cannot_do_it_a_run_says_so(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled_as(monkeypatch, device="Card 9", precision="tf32")
    with pytest.raises(UsageError, match="precision tf32 needs a GPU that has it, and this is cpu"):
        build(request_, tmp_path)


def test_of_workers_that_begin_together_all_do_what_one_of_them_settled(tmp_path: Path) -> None:
    store, other = Store(str(tmp_path)), OWN.model_copy(update={"batch": 128})

    def meanwhile() -> Sampling:
        agreed(Store(str(tmp_path)), "artifacts/sampling/a.json", lambda: other)
        return OWN

    assert agreed(store, "artifacts/sampling/a.json", meanwhile) == other
    assert agreed(store, "artifacts/sampling/b.json", lambda: OWN) == OWN


@pytest.mark.parametrize("text", ["{}", "[", json.dumps(OWN.model_dump() | {"batch": 0}), "x" * (2 << 20)])
def test_a_record_that_is_none_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "sampling.json").write_text(text)
    with pytest.raises(UsageError, match=r"sampling\.json is not what a worker writes"):
        agreed(Store(str(tmp_path)), "sampling.json", lambda: OWN)


def test_memory_is_measured_on_a_gpu_only(request_: PairsRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for every way in which a window is sampled: with its user, and as the rejected motion."""
    asked: list[tuple[int, list[set[str]]]] = []

    def need_of(wanted, trial, frames, config) -> float:
        asked.append((frames, [set(drops) for _, drops in wanted]))
        return 1.0

    monkeypatch.setattr(candidates, "need_of", need_of)
    generator = candidates.Generator(OPEN, request_.checkpoint, 50)
    assert generator.sampling == OWN
    assert not asked
    monkeypatch.setattr(
        candidates, "settle", lambda config, device, *, on_gpu, usual, need: (need(OWN), OWN.model_copy())[1]
    )
    candidates.Generator(OPEN, request_.checkpoint, 50)
    assert asked == [(50, [{"full", "no_user"}])]
    assert torch.get_float32_matmul_precision() == "highest"

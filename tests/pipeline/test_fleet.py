"""How many workers machines hold. What they do there: test_run.py, test_cluster.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.fleet import _Fleet
from pipeline.machines import selects
from pipeline.task import Stages
from schemas.config import RunConfig, StageResources
from tests.pipeline.toy import STAGES

ON_GPU = StageResources(cpus=0, gpus=0.5)
LARGE = StageResources(cpus=4, memory_gb=8)
NVME = StageResources(labels={"disk": "nvme"})


@pytest.mark.parametrize(
    ("wanted", "value", "suits"),
    [
        ("H100", "H100", True),
        ("H100", "", False),
        ("!H100", "A100", True),
        ("!H100", "H100", False),
        ("in(H100, A100)", "A100", True),
        ("in(H100,A100)", "T4", False),
        ("!in(H100,A100)", "T4", True),
        ("!in(H100,A100)", "H100", False),
    ],
)
def test_labels_select_as_ray_has_it(wanted: str, value: str, suits: bool) -> None:
    assert selects(wanted, value) is suits


class FakeRay(SimpleNamespace):
    """Stands for a cluster of machines that are not here; nothing is started on it."""

    def nodes(self) -> list[dict[str, Any]]:
        gb = 1e9
        return [
            {"NodeID": "a", "Alive": True, "Resources": {"CPU": 6.0, "memory": 60 * gb}, "Labels": {"disk": "nvme"}},
            {"NodeID": "b", "Alive": True, "Resources": {"CPU": 6.0, "memory": 12 * gb}, "Labels": {}},
            {"NodeID": "c", "Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0, "memory": 60 * gb}, "Labels": {}},
            {"NodeID": "d", "Alive": False, "Resources": {"CPU": 64.0, "memory": 60 * gb}, "Labels": {}},
        ]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: Any) -> Any:
        return lambda kind: kind


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Any:
    import ray

    fake = FakeRay()
    for name in ("nodes", "put", "remote"):
        monkeypatch.setattr(ray, name, getattr(fake, name))

    def of(needs: StageResources) -> _Fleet:
        name = next(iter(STAGES))
        stages: Stages = {name: STAGES[name]}
        return _Fleet(RunConfig(resources={name: needs}), stages, "nowhere")

    return of


@pytest.mark.parametrize(
    ("needs", "most"),
    [
        (StageResources(), 13),
        (LARGE, 2),  # one each on a and b: their last two CPUs together hold no third
        (StageResources(memory_gb=10), 6 + 1 + 1),  # CPUs bound a and c, memory b
        (NVME, 6),
        (ON_GPU, 2),
        (StageResources(max_workers=40), 40),  # the cluster may grow
    ],
)
def test_a_pool_is_as_large_as_the_machines_have_places(fleet: Any, needs: StageResources, most: int) -> None:
    crew = fleet(needs)
    (pool,) = crew._pools
    assert crew._capacity(pool) == most

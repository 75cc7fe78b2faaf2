"""One of the processes of a run under test: trains once for each line of JSON on stdin, and answers with one.

Started once for many runs, because importing torch takes longer than the runs do.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from visavis.schemas.errors import VisavisError
from visavis.schemas.train import TrainConfig
from visavis.training.feed import Feed
from visavis.training.objective import Part
from visavis.training.train import train


@contextmanager
def fault(kind: str | None, at: int) -> Iterator[None]:
    """Something goes wrong in this process when it fetches its part number `at`."""
    fetch, count = Feed.next, 0

    def faulty(feed: Feed) -> Part:
        nonlocal count
        count += 1
        part = fetch(feed)
        if kind is None or count != at:
            return part
        if kind == "nan":
            part.windows.avatar_audio[1] = torch.nan
            return part
        if kind == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            return part
        if kind == "die":
            os._exit(9)
        raise ValueError("a bug of one process")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Feed, "next", faulty)
        yield


def answer(call: dict[str, Any]) -> dict[str, Any]:
    os.environ |= call["env"]
    broken = call["fault"] if call["fault_rank"] == int(os.environ["RANK"]) else None
    config = TrainConfig.model_validate(call["config"])
    more = call["more"] | ({"init": Path(call["more"]["init"])} if "init" in call["more"] else {})
    try:
        with fault(broken, call["fault_at"]):
            train(call["dataset"], Path(call["out"]), config, **more)
    except (VisavisError, KeyboardInterrupt, ValueError, RuntimeError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": None, "message": ""}


@dataclasses.dataclass
class Ranks:
    """Processes that train together when they are told to."""

    processes: list[subprocess.Popen[str]]

    def train(
        self,
        dataset: Path,
        out: Path,
        config: TrainConfig,
        *,
        fault: str | None = None,
        fault_rank: int = 1,
        fault_at: int = 0,
        **more: str,
    ) -> list[dict[str, Any]]:
        """What became of it in each process."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for rank, process in enumerate(self.processes):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(self.processes), "MASTER_PORT": port}
            call = {
                "env": {"MASTER_ADDR": "127.0.0.1", **{name: str(number) for name, number in numbers.items()}},
                "config": config.model_dump(mode="json"),
                "dataset": str(dataset),
                "out": str(out),
                "fault": fault,
                "fault_rank": fault_rank,
                "fault_at": fault_at,
                "more": more,
            }
            assert process.stdin is not None
            process.stdin.write(json.dumps(call) + "\n")
            process.stdin.flush()
        return [self._read(process) for process in self.processes]

    @staticmethod
    def _read(process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):  # gloo speaks up between
                found: dict[str, Any] = json.loads(line)
                return found
        return {"error": "died", "message": ""}


@contextmanager
def start_ranks(size: int) -> Iterator[Ranks]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.ranks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=root,
        )
        for _ in range(size)
    ]
    try:
        yield Ranks(processes)
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            process.wait(timeout=30)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()

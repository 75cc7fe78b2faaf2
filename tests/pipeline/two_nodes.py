"""A run over a cluster of two nodes, one of which is lost: the script of `test_cluster`.

It has a process of its own, as the cluster would be in the way of others, and says what happened in FOLDER/story.json
(on stdout Ray says that a node is gone).
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from tests.pipeline.toy import CountLetters, Letters, Text
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.engine.run import Run
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.lock import locked
from visavis.pipeline.state.tasks import Artifact, Task, artifact_path
from visavis.schemas.config import RunConfig, StageResources
from visavis.schemas.storage.store import Store

NODE = "VISAVIS_TEST_NODE"  # in the environment of a node's workers


class Where(CountLetters):
    """Tells, as its facts, on which node it ran, and leaves a mark there when it begins."""

    name = "where"

    def __init__(self, marks: str) -> None:
        super().__init__()
        self._marks = marks

    def process(self, item: Text) -> Iterator[Letters]:
        (Path(self._marks) / f"{self.name}-{item.text}-{os.environ[NODE]}").touch()
        time.sleep(0.5)
        yield from super().process(item)

    def facts(self, rows: Sequence[Letters]) -> str:
        return os.environ[NODE]


class WhereFast(Where):
    """For machines with a label."""

    name = "where_fast"


def main(folder: str) -> None:
    """Labelled work first, then work for all, under which a node is lost."""
    marks, root = Path(folder, "marks"), Path(folder, "run")
    marks.mkdir()
    stages = {stage.name: stage for stage in (Where(str(marks)), WhereFast(str(marks)))}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "env_vars": {NODE: "head"}})
    other = cluster.add_node(num_cpus=1, labels={"disk": "fast"}, env_vars={NODE: "other"})
    config = RunConfig(
        address=cluster.address, resources={"where_fast": StageResources(labels={"disk": "fast"}, max_workers=1)}
    )
    with locked(str(root)) as hold, ray_engine(config)(stages, str(root)) as executor:
        run = Run(str(root), executor, config, Reporter(), hold)
        fast = run.execute("where_fast", tasks("where_fast", 3), 3)

        lost: list[str] = []
        thread = threading.Thread(target=lambda: lost.extend(lose(cluster, other, marks, root)))
        thread.start()
        done = run.execute("where", tasks("where", 12), 12)
        thread.join()
        run.close()
    Path(folder, "story.json").write_text(
        json.dumps({"fast": told(root, fast), "done": told(root, done), "lost": lost})
    )
    ray.shutdown()
    cluster.shutdown()


def tasks(stage: str, count: int) -> list[Task]:
    return [
        Task(stage, f"k{n}", f"k{n}", artifact_path(stage, 1, "f", f"k{n}"), "f", inline={"text": f"k{n}"})
        for n in range(count)
    ]


def lose(cluster: Cluster, node: object, marks: Path, root: Path) -> list[str]:
    """Take a node away in the middle of its second task. Returns what it was at."""
    while True:
        begun = sorted(path.name.split("-")[1] for path in marks.glob("where-*-other"))
        made = [key for key in begun if (root / artifact_path("where", 1, "f", key)).exists()]
        if made and len(begun) > len(made):
            cluster.remove_node(node, allow_graceful=False)
            return [key for key in begun if key not in made]
        time.sleep(0.02)


def told(root: Path, done: Mapping[str, Artifact | None]) -> dict[str, list[tuple[str, int]]]:
    """Per item that ended ok, all rows that the ledger has of it: the node's name and the number of the try."""
    rows = [row for table in Ledger(Store(str(root))).tables() for row in table.to_pylist()]
    return {
        key: [(row["facts"], row["attempt"]) for row in rows if f"/{row['stage']}/" in made.path and row["key"] == key]
        for key, made in done.items()
        if made
    }


if __name__ == "__main__":
    from tests.pipeline import two_nodes  # by its name, so that workers find its classes

    two_nodes.main(sys.argv[1])

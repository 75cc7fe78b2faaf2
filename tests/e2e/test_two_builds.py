"""Two real builds at once into one folder, whose lock has failed: the dataset of one, and nothing lost of either."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bucket import BUCKET, S3Server
from tests.e2e.test_build import Built, files
from tests.e2e.test_faults import command
from tests.e2e.test_s3 import objects
from visavis.pipeline.cli.verify import verify_dataset
from visavis.pipeline.state.ledger import Ledger
from visavis.schemas.storage.store import Store

pytestmark = pytest.mark.nightly(
    "two whole builds that collide; tests/pipeline/test_two_runs.py has them of small stages"
)
KEPT = ("diarize", "faces", "bind", "separate")  # what takes longest; all else is made anew by both

UNLOCKED = """
import sys
from contextlib import nullcontext
from types import SimpleNamespace
from visavis.pipeline.plan import run_folder as folder

folder.locked = lambda *_: nullcontext(SimpleNamespace(check=lambda: None))
from visavis.pipeline.app import main
main()
"""


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_two_builds_at_once_make_the_dataset_of_one(
    server: S3Server, built: Built, dialogues: Path, tmp_path: Path, where: str
) -> None:
    root = str(tmp_path / "run") if where == "disk" else f"s3://{BUCKET}/two-builds"
    here, there = Store(str(built[0])), Store(root)
    for name in here.names("artifacts"):
        if name.startswith(KEPT):
            there.write(f"artifacts/{name}", here.read(f"artifacts/{name}"))
    words = [root if word == str(tmp_path / "run") else word for word in command(dialogues, tmp_path / "run", "local")]
    both = [
        subprocess.Popen([sys.executable, "-c", UNLOCKED, *words], stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [run.communicate(timeout=280)[1] for run in both]
    assert [run.returncode for run in both] == [0, 0], said
    assert objects(root, "dataset") == files(built[0] / "dataset")
    assert verify_dataset(f"{root}/dataset") == []
    assert set(there.names("artifacts")) == set(here.names("artifacts"))
    alone, twice = (Ledger(store).latest() for store in (here, there))
    assert {name: (row.status, row.fingerprint, row.inputs) for name, row in twice.items()} == {
        name: (row.status, row.fingerprint, row.inputs) for name, row in alone.items()
    }
    assert there.sweep() == 0

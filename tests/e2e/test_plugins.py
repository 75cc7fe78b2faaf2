"""A stage of a user's own in a real build: the example that counts blinks, in this process and on Ray."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.e2e.conftest import SMALL, sources_of
from visavis.pipeline.cli.status import read_status
from visavis.pipeline.demo.dialogue import read_truth
from visavis.pipeline.engine.executor import Engine, local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.outputs import read_outputs
from visavis.pipeline.plan.plugins import load
from visavis.pipeline.plan.replay import replay
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas import FPS
from visavis.schemas.config import BuildConfig, RunConfig
from visavis.schemas.errors import RunFailed, UsageError

pytestmark = pytest.mark.slow
Built = tuple[Path, BuildSummary]
EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin_blinks.py"


@pytest.fixture
def run(built: Built, tmp_path: Path) -> Path:
    """A finished build without a stage of anybody's own."""
    shutil.copytree(built[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of the example, for those who change it."""
    shutil.copy(EXAMPLE, tmp_path / "blinks.py")
    return tmp_path / "blinks.py"


def build(root: Path, code: Path, engine: Engine = local_engine, **settings: Any) -> Build:
    plugins = {"blinks": {"code": f"{code}:CountBlinks", "settings": settings}}
    config = BuildConfig.model_validate(SMALL | {"plugins": plugins})
    return Build(config, str(root), engine, Reporter(Console(file=io.StringIO())))


def files(root: Path, folder: str = "dataset") -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted((root / folder).rglob("*")) if p.is_file()}


def onsets(closed_T: np.ndarray) -> list[float]:
    """Seconds at which an eye closes by half."""
    shut_T = closed_T > 0.5
    return (np.flatnonzero(shut_T[1:] & ~shut_T[:-1]) / FPS).tolist()


def test_a_stage_of_ones_own_finds_what_is_there_and_is_a_stage_like_any_other(
    run: Path, code: Path, dialogues: Path
) -> None:
    sources, before = sources_of(dialogues), files(run)
    with pytest.raises(UsageError, match="was built with plugins=None and now has"):
        build(run, code).run(sources)
    assert build(run, code).remaining(sources) == {"blinks": 2}
    assert build(run, code).run(sources, reconfigure=True).processed == 2  # one for each conversation, and nothing else
    assert files(run) == before

    rows = dict(read_outputs(str(run), load(f"{code}:CountBlinks")[0]))
    assert len(rows) == 2
    truth = read_truth(dialogues / "together.truth.json")  # filmed twice, so of both
    blinked = sorted(onsets(np.array(person.blink)) for person in truth.participants)
    for blinks in rows.values():
        for real, found in zip(blinked, sorted(blinks.starts), strict=True):
            assert found == pytest.approx(real, abs=0.08)

    stages = read_status(str(run), "dataset")["stages"]
    assert list(stages).index("bind") + 1 == list(stages).index("blinks")
    assert stages["blinks"]["ok"] == 2
    again = replay(build(run, code), sources, "blinks", "together")
    assert (again["ledger"], again["rejected"], len(again["rows"])) == ("ok", None, 1)


def test_it_is_done_again_when_its_file_or_its_settings_change_and_not_else(
    run: Path, code: Path, dialogues: Path
) -> None:
    sources = sources_of(dialogues)
    assert build(run, code).run(sources, reconfigure=True).processed == 2
    moved = code.rename(code.with_name("moved.py"))
    assert build(run, moved).run(sources).processed == 0
    with pytest.raises(UsageError, match=r"was built with plugins\.blinks\.settings\.closed=0\.7 and now has 0\.5"):
        build(run, moved, closed=0.5).run(sources)
    assert build(run, moved, closed=0.5).run(sources, reconfigure=True).processed == 2
    moved.write_text(moved.read_text() + "\n# mended\n")
    assert build(run, moved, closed=0.5).run(sources).processed == 2


def test_workers_load_it_from_its_file_and_write_the_same_bytes(
    run: Path, code: Path, dialogues: Path, ray_cluster: None, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    build(run, code).run(sources_of(dialogues), reconfigure=True)
    build(other, code, ray_engine(RunConfig())).run(sources_of(dialogues), reconfigure=True)
    assert files(run, "artifacts/blinks") == files(other, "artifacts/blinks") != {}


def test_a_worker_that_has_not_the_file_says_so(run: Path, code: Path, dialogues: Path, ray_cluster: None) -> None:
    without = build(run, code, ray_engine(RunConfig()))
    code.unlink()
    with pytest.raises(RunFailed, match=r"blinks\.py: No such file or directory on \S+, and every machine"):
        without.run(sources_of(dialogues), reconfigure=True)


def test_what_it_rejects_is_left_out(run: Path, code: Path, dialogues: Path) -> None:
    text = code.read_text()
    reject = 'if len(item.faces) == 1:\n            raise Rejected(Reason.NOT_ALIVE, "a mask")\n        found = ['
    text = text.replace("found = [", reject)
    code.write_text(text.replace("import FPS\n", "import FPS\nfrom visavis.schemas.errors import Reason, Rejected\n"))
    summary = build(run, code).run(sources_of(dialogues), reconfigure=True)
    assert (summary.kept, summary.rejected) == (1, {"not_alive": 1})

"""A disk that is full or turns read-only while shards are written: told in one line, and a later run goes on."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import SMALL, build
from tests.e2e.test_build import Built, files
from visavis.pipeline.app import main
from visavis.pipeline.engine.run import Run
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.lock import holder
from visavis.schemas.storage.store import TEMPORARY, Store

Mount = Callable[..., None]
ROOM = 256 * 2**20
pytestmark = pytest.mark.slow


@pytest.fixture
def mount() -> Iterator[Mount]:
    """`mount WORDS… FOLDER`; what was mounted is unmounted in the end."""
    mounted: list[str] = []

    def run(*words: str) -> None:
        if not shutil.which("mount"):
            pytest.skip("there is no mount command")
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"disks cannot be mounted here: {done.stderr.strip()}")
        if "remount" not in " ".join(words):
            mounted.append(words[-1])

    yield run
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def disk(tmp_path: Path, mount: Mount) -> Path:
    """A disk of its own, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={ROOM}", "visavis-test", str(folder))
    return folder


def copy_without_shards(built: Built, root: Path) -> None:
    shutil.copytree(built[0], root)
    shutil.rmtree(root / "dataset")
    shutil.rmtree(root / "artifacts" / "shard")


def command(dialogues: Path, root: Path, engine: str) -> list[str]:
    """The command that makes `built`."""
    recipe = root.parent / "recipe.yaml"
    if not recipe.exists():
        recipe.write_text(json.dumps(SMALL))
    pair = [str(path) for path in sorted(dialogues.glob("apart_*.mp4"))]
    together = str(dialogues / "together.mp4")
    return ["build", str(recipe), together, "--pair", *pair, "--out", str(root), "--engine", engine]


def fails(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command, which must fail, says about it: the last line, after nothing but progress."""
    monkeypatch.setattr(sys, "argv", ["visavis", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    return one_line(said.err)


def one_line(stderr: str) -> str:
    *progress, last = stderr.splitlines()
    assert all("cached" in line or "at work" in line for line in progress)
    assert last.startswith("visavis: ")
    return last


def check_resume(built: Built, dialogues: Path, root: Path) -> None:
    """What was missing is done, once, and nothing else; nothing half-written is left."""
    made = list((root / "artifacts").glob("shard/*/*.safetensors"))
    shards = list(built[0].rglob("*.tar"))
    assert not (root / "dataset" / "manifest.json").exists()
    assert len(made) < len(shards)
    before = {path: path.stat().st_mtime_ns for path in made}
    again = build(dialogues, root)
    assert len(shards) - len(made) <= again.processed <= len(shards)  # rows that could not be written are made up for
    assert {path: path.stat().st_mtime_ns for path in made} == before
    assert files(root / "dataset") == files(built[0] / "dataset")
    assert not list(root.rglob(f"{TEMPORARY}*"))


def shrink(disk: Path, built: Built, mount: Mount) -> None:
    """Leave room for some of the shards, not for all."""
    largest = max(path.stat().st_size for path in built[0].rglob("*.tar"))
    mount("-o", f"remount,size={shutil.disk_usage(disk).used + largest + 100_000}", str(disk))


def test_a_disk_that_is_full(
    built: Built,
    dialogues: Path,
    disk: Path,
    mount: Mount,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = disk / "run"
    copy_without_shards(built, root)
    words = command(dialogues, root, "local")
    shrink(disk, built, mount)
    complaint = fails(words, capsys, monkeypatch)
    assert f"{root}/dataset/" in complaint
    assert "No space left on device; what was committed stays, run again" in complaint
    mount("-o", f"remount,size={ROOM}", str(disk))
    check_resume(built, dialogues, root)


@pytest.mark.nightly("a full disk under Ray's workers; above without Ray")
def test_a_disk_that_is_full_for_workers_on_ray(
    built: Built,
    dialogues: Path,
    disk: Path,
    mount: Mount,
    ray_cluster: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = disk / "run"
    copy_without_shards(built, root)
    words = command(dialogues, root, "ray")
    shrink(disk, built, mount)
    complaint = fails(words, capsys, monkeypatch)
    assert f"{root}/dataset/" in complaint
    assert "No space left on device; what was committed stays, run again" in complaint
    mount("-o", f"remount,size={ROOM}", str(disk))
    check_resume(built, dialogues, root)


def test_a_disk_without_a_byte_left(
    built: Built,
    dialogues: Path,
    disk: Path,
    mount: Mount,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even for the run's own books."""
    root = disk / "run"
    copy_without_shards(built, root)
    words = command(dialogues, root, "local")
    mount("-o", f"remount,size={shutil.disk_usage(disk).used}", str(disk))
    assert f"{root}/lock.json: No space left on device" in fails(words, capsys, monkeypatch)
    mount("-o", f"remount,size={ROOM}", str(disk))
    check_resume(built, dialogues, root)


def test_a_disk_that_turns_read_only(
    built: Built,
    dialogues: Path,
    tmp_path: Path,
    mount: Mount,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = tmp_path / "run"
    copy_without_shards(built, root)
    words = command(dialogues, root, "local")
    record = Run.record
    turned: list[str] = []

    def record_and_turn(run: Run, outcome: Outcome) -> None:
        record(run, outcome)
        if outcome.stage == "shard" and not turned:
            # A mount on top: the kernel turns no disk over on which a file is open for writing.
            mount("--bind", str(root), str(root))
            mount("-o", "remount,bind,ro", str(root))
            turned.append(outcome.key)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "record", record_and_turn)
        complaint = fails(words, capsys, monkeypatch)
    assert turned
    assert f"{root}/dataset/" in complaint
    assert "Read-only file system; what was committed stays, run again" in complaint
    from_its_start = fails(words, capsys, monkeypatch)
    assert f"{root}/lock.json: Read-only file system" in from_its_start
    mount("-o", "remount,bind,rw", str(root))
    (root / "lock.json").unlink()  # of a run that could not remove it; its process, this one, is alive
    check_resume(built, dialogues, root)


@pytest.mark.parametrize(
    "engine", ["local", pytest.param("ray", marks=pytest.mark.nightly("SIGTERM to a driver of Ray"))]
)
def test_a_run_that_is_asked_to_stop_commits_says_so_and_can_go_on(
    engine: str, built: Built, dialogues: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    run = subprocess.Popen(
        [sys.executable, "-m", "visavis", *command(dialogues, root, engine)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list((root / "artifacts").glob("faces/*/*.safetensors")):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    assert one_line(err) == "visavis: stopped; the same command resumes"
    assert "ingest" in {outcome.stage for outcome in Ledger(Store(str(root))).latest().values()}
    assert holder(Store(str(root))) is None
    assert not list(root.rglob(f"{TEMPORARY}*"))
    build(dialogues, root)
    assert files(root / "dataset") == files(built[0] / "dataset")

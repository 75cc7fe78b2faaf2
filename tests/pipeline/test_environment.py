"""What shells, schedulers and clusters leave in a process' environment, and the folder that it was started in."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from visavis.pipeline.app import main
from visavis.pipeline.engine import cluster as machines
from visavis.pipeline.engine.cluster import start_ray
from visavis.schemas.errors import UsageError

REPOSITORY = Path(__file__).parents[2]
BUILD = [sys.executable, "-m", "visavis", "build", str(REPOSITORY / "configs" / "default.yaml")]


def run(
    *words: str, cwd: Path = REPOSITORY, seconds: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run(
        words, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.fixture
def text_as_video(tmp_path: Path) -> Path:
    path = tmp_path / "text.mp4"
    path.write_text("this is not a video\n")
    return path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:8265", "the dashboard"),
        ("https://ray.example.com", "the dashboard"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("anyscale://cluster", "not known"),
        ("127.0.0.1", "neither auto nor host:port"),
        ("127.0.0.1:port", "neither auto nor host:port"),
        (":6379", "neither auto nor host:port"),
        ("[::1]:1", "Connection refused"),
        ("no.such.host.invalid:6379", "no Ray cluster at"),
    ],
)
def test_an_address_that_is_none_is_one_line_that_says_what_to_change(
    address: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # another test's cluster may be there
    monkeypatch.setenv("RAY_ADDRESS", address)
    for asked, remedy in ((None, "unset RAY_ADDRESS"), (address, "unset run.address")):
        with pytest.raises(UsageError) as refused:
            start_ray(asked)
        assert words in str(refused.value)
        assert remedy in str(refused.value)
        assert "\n" not in str(refused.value)


def test_whoever_fails_says_so_whatever_its_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong_use(**variables: str) -> str:
        with monkeypatch.context() as patch:
            for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["visavis", "train", "configs/train/tiny.yaml", str(tmp_path)])
            with pytest.raises(SystemExit) as ended:
                main()
        said = capsys.readouterr().err
        assert (ended.value.code, said.count("\n")) == (2, 1)
        return said.removeprefix("visavis: ")

    missing = f"{tmp_path} is not a dataset"
    assert wrong_use(RANK="3").startswith(missing)  # left behind by a scheduler: nobody else is there
    assert wrong_use(RANK="", WORLD_SIZE="").startswith(missing)
    assert wrong_use(WORLD_SIZE="8").startswith("WORLD_SIZE is 8 and RANK is not set")
    assert wrong_use(WORLD_SIZE="8", RANK="8").startswith("RANK is 8 and WORLD_SIZE 8")
    assert wrong_use(WORLD_SIZE="many").startswith("WORLD_SIZE is 'many'")
    alone = wrong_use(WORLD_SIZE="2", RANK="1")  # no MASTER_ADDR
    assert alone.startswith("rank 1 of 2: several processes are to train together")


@pytest.mark.slow
def test_a_rank_that_does_not_come_is_waited_for_aloud_and_can_be_stopped(tmp_path: Path) -> None:
    code = (
        "import sys, visavis.training.process_group as w; w._SAY_SECONDS = (1.0, 1.0)\n"
        "from visavis.training.__main__ import main; sys.exit(main())"
    )
    env = os.environ | {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    words = [sys.executable, "-c", code, "configs/train/tiny.yaml", str(tmp_path), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(words, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "waits for the others" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(20) == 130
    assert "rank 0 waits for the others of 2 at 127.0.0.1" in line
    assert rest == "training: rank 0 of 2: stopped before a checkpoint was written\n"


@pytest.mark.slow
def test_a_terminal_of_another_alphabet_is_no_reason_to_fail(text_as_video: Path, tmp_path: Path) -> None:
    done = run(
        *(*BUILD, str(text_as_video), "--dry-run", "--out", str(tmp_path / "run")),
        **{"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
    )
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)  # its last line
    assert "text.mp4" in done.stdout


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """`ray start` in a folder; ended with what it started, and nothing else is."""
    port = free_port()
    ray = str(Path(sys.executable).parent / "ray")
    words = [ray, "start", "--head", "--block", "--num-cpus=1", "--include-dashboard=false", f"--port={port}"]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as short:
        env = os.environ | {"RAY_TMPDIR": short, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_AUTH_MODE": "disabled"}
        process = subprocess.Popen(
            words, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if "Ray runtime started" in line:
                    break
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.stdout.read()
            process.wait(40)


@pytest.mark.nightly("a cluster that was started elsewhere, which Ray decides")
def test_a_cluster_and_a_driver_in_other_folders_build_in_one_place(text_as_video: Path, tmp_path: Path) -> None:
    """And what lies in the driver's folder under our names is not imported: Ray puts that folder first."""
    (one := tmp_path / "one").mkdir()
    (two := tmp_path / "two").mkdir()
    for name in ("schemas", "stages", "training", "pipeline", "configs", "benchmarks"):
        (two / name).mkdir()
        (two / name / "__init__.py").write_text("raise ImportError('a package of the user')\n")
    visavis = [str(Path(sys.executable).parent / "visavis"), "build", BUILD[-1]]
    with cluster(one) as address:
        words = [*visavis, str(text_as_video), "--out", "relative/run", "--address", address]
        done = run(*words, cwd=two, PYTHONPATH="", RAY_AUTH_MODE="disabled")
    assert done.returncode == 1, done.stderr
    assert "no conversation is left to train on (1 × unreadable)" in done.stderr
    assert list(one.iterdir()) == []
    assert {path.name for path in (two / "relative" / "run").iterdir()} >= {"run.json", "ledger"}


@pytest.mark.nightly("that a cluster starts where TMPDIR is long; the folder that it takes is asked below")
def test_a_cluster_starts_where_tmpdir_is_long(text_as_video: Path, tmp_path: Path) -> None:
    (long := tmp_path / ("scratch-of-job-" * 6)).mkdir()
    done = run(*BUILD, str(text_as_video), "--out", str(tmp_path / "run"), TMPDIR=str(long))
    assert done.returncode == 1
    assert "1 × unreadable" in done.stderr


@pytest.mark.slow
def test_a_long_tmpdir_is_none_for_sockets(
    text_as_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long := tmp_path / ("scratch-of-job-" * 6)).mkdir()
    with monkeypatch.context() as patch:
        patch.delenv("RAY_TMPDIR", raising=False)
        patch.setattr(tempfile, "tempdir", str(long))
        assert Path(machines._folder_for_sockets()).is_relative_to("/tmp")
    told = run(*BUILD, str(text_as_video), "--out", str(tmp_path / "run"), RAY_TMPDIR=str(long))
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "set RAY_TMPDIR to a folder that will do" in told.stderr


@pytest.mark.parametrize("home", ["", "/nowhere", "/", "/usr"])
def test_a_number_without_a_name_and_a_home_gets_both(home: str) -> None:
    """As containers run: under any number, where libraries that look for a cache or a name would fail."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        done = run(sys.executable, "-c", _AS_A_NUMBER, folder, home)
    assert done.returncode == 0, done.stderr
    own = f"{folder}/visavis-54321"
    assert done.stdout.split() == ["uid54321", "/usr" if home == "/usr" else own, own]


_AS_A_NUMBER = """
import getpass, os, pathlib, sys, tempfile
from visavis.training.home import ensure_home

os.setgid(54321)
os.setuid(54321)
for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
    os.environ.pop(name, None)
os.environ["TMPDIR"] = sys.argv[1]
if sys.argv[2]:
    os.environ["HOME"] = sys.argv[2]
ensure_home()
ensure_home()
print(getpass.getuser(), pathlib.Path.home(), os.environ["MPLCONFIGDIR"])
"""


@pytest.mark.nightly("libraries that we do not change")
def test_no_library_reports_to_its_maker(tmp_path: Path) -> None:
    """onnxruntime would keep a number for this machine in the home folder, and send it along."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}  # with CI=1 it is silent
    program = "from visavis.stages.models.networks import load_voice_activity as load; load()"
    for ours in (program, "import onnxruntime"):
        done = subprocess.run(
            [sys.executable, "-c", ours],
            env=bare,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert bool(list(tmp_path.rglob("deviceid"))) is (ours != program)  # else this test no longer looks for it


@pytest.mark.slow
def test_a_driver_loads_no_networks() -> None:
    """They are its workers' to load: half a gigabyte that a driver of a thousand machines has better use for."""
    program = (
        "import sys, visavis.pipeline.plan.build, visavis.pipeline.engine.ray_executor;"
        "print(*{'torch', 'scipy.signal', 'ray'} & set(sys.modules))"
    )
    assert run(sys.executable, "-c", program).stdout.split() == []

"""What a cluster of this machine shows to others: nothing on the network, no token, no files."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from visavis.pipeline.engine import cluster as machines
from visavis.pipeline.engine.ray_token import ensure_token
from visavis.schemas.errors import UsageError

_CLUSTER = """
import json, os, sys
from pathlib import Path

import psutil
from visavis.pipeline.engine.cluster import start_ray

start_ray(None)
import ray

@ray.remote
class Worker:
    def mode(self):
        return os.environ["RAY_AUTH_MODE"]

worker = Worker.remote()
everybody = [psutil.Process(), *psutil.Process().children(recursive=True)]
session = Path(ray._private.worker._global_node.get_session_dir_path())
story = {
    "mode": ray.get(worker.mode.remote()),
    "listen": [c.laddr.ip for p in everybody for c in p.net_connections() if c.status in ("LISTEN", "NONE")],
    "way": [path.stat().st_mode & 0o077 for path in session.parents if path.stat().st_uid == os.getuid()],
    "session": str(session),
    "address": ray.get_runtime_context().gcs_address,
}
print(json.dumps(story), flush=True)
sys.stdin.read()
"""

_ASK = """
import sys
from ray._raylet import GcsClient

try:
    print(len(GcsClient(address=sys.argv[1]).get_all_job_info()))
except Exception as error:
    print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a process that started a cluster, in a home without a token, tells of it."""
    home = tmp_path_factory.mktemp("home")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as short:
        Path(short).chmod(0o755)  # as /tmp is open to others
        env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        process = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER],
            env=env | {"HOME": str(home), "RAY_TMPDIR": short},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line, "no cluster"
            yield json.loads(line) | {"home": home, "tmp": short}
        finally:
            process.communicate()  # its input ends, and it with what it started


@pytest.mark.slow
class TestACluster:
    def test_listens_to_this_machine_alone(self, cluster: dict[str, Any]) -> None:
        assert len(cluster["listen"]) >= 5  # its server, node manager, agents and worker
        for name in cluster["listen"]:
            address = ip_address(name)
            assert ((isinstance(address, IPv6Address) and address.ipv4_mapped) or address).is_loopback, name

    def test_has_a_token_that_its_user_alone_can_read(self, cluster: dict[str, Any]) -> None:
        token = cluster["home"] / ".ray" / "auth_token"
        assert cluster["mode"] == "token"
        assert len(token.read_text()) == 64
        assert (modes(token), modes(token.parent)) == (0o600, 0o700)

    def test_keeps_its_files_where_nobody_else_can_enter(self, cluster: dict[str, Any]) -> None:
        inside = Path(cluster["session"]).relative_to(cluster["tmp"])
        closed = Path(cluster["tmp"], inside.parts[0])
        assert (modes(closed), closed.stat().st_uid) == (0o700, os.getuid())

    def test_answers_nobody_without_the_token(self, cluster: dict[str, Any]) -> None:
        def answer(**variables: str) -> str:
            env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | variables
            words = [sys.executable, "-c", _ASK, cluster["address"]]
            return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

        token = (cluster["home"] / ".ray" / "auth_token").read_text()
        assert answer(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token) == "1"  # the job of its driver
        assert answer(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64) == "AuthenticationError"
        assert answer(RAY_AUTH_MODE="disabled") == "AuthenticationError"


@pytest.mark.nightly("that no library began to call out; what is listened to is above")
def test_a_build_needs_no_network(tmp_path: Path) -> None:
    """As docs/security.md has it: in a namespace with nothing but loopback."""
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if not which("unshare") or subprocess.run([*alone, "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces for users here")
    (video := tmp_path / "text.mp4").write_text("no video")
    words = [
        sys.executable,
        "-m",
        "visavis",
        "build",
        "configs/default.yaml",
        str(video),
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        [*alone, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "1 × unreadable" in done.stderr


def modes(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of a user who set nothing, with a umask that takes no rights away."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # is put back, whatever is set meanwhile
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


class TestAToken:
    def test_is_made_once_and_is_private_whatever_the_umask(self, home: Path) -> None:
        ensure_token(local=True)
        first = (home / ".ray" / "auth_token").read_text()
        ensure_token(local=True)
        assert (home / ".ray" / "auth_token").read_text() == first
        assert (modes(home / ".ray"), modes(home / ".ray" / "auth_token")) == (0o700, 0o600)
        assert [path.name for path in (home / ".ray").iterdir()] == ["auth_token"]

    @pytest.mark.parametrize("local", [True, False])
    def test_that_others_could_read_is_made_private_and_kept(
        self, home: Path, caplog: pytest.LogCaptureFixture, local: bool
    ) -> None:
        (home / ".ray").mkdir(mode=0o777)
        (token := home / ".ray" / "auth_token").write_text("known")
        token.chmod(0o644)
        ensure_token(local=local)
        assert (token.read_text(), modes(token), modes(token.parent)) == ("known", 0o600, 0o700)
        assert "could be read by others" in caplog.text
        caplog.clear()
        ensure_token(local=local)
        assert not caplog.text

    @pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe"])
    def test_that_is_no_file_is_refused(self, home: Path, kind: str) -> None:
        (home / ".ray").mkdir()
        (outside := home / "outside").write_text("of somebody")
        make: dict[str, Callable[[Path], None]] = {
            "link": lambda path: path.symlink_to(outside),
            "dangling": lambda path: path.symlink_to(home / "nowhere"),
            "folder": Path.mkdir,
            "pipe": os.mkfifo,
        }
        make[kind](home / ".ray" / "auth_token")
        with pytest.raises(UsageError, match="set RAY_AUTH_TOKEN_PATH to a file of your own"):
            ensure_token(local=True)
        assert modes(outside) == 0o666
        assert not (home / "nowhere").exists()

    @pytest.mark.parametrize("whose", [".ray", ".ray/auth_token"])
    def test_of_somebody_else_is_refused(self, home: Path, whose: str) -> None:
        if os.getuid() != 0:
            pytest.skip("only root can give files away")
        ensure_token(local=True)
        os.chown(home / whose, 54321, -1)
        with pytest.raises(UsageError, match="belongs to somebody else"):
            ensure_token(local=True)
        ensure_token(local=False)  # to join another's cluster no file of ours is needed

    def test_in_a_home_that_cannot_be_written_is_in_the_environment_alone(self, home: Path) -> None:
        (home / ".ray").write_text("no folder")
        os.environ["HOME"] = str(home / "absent")
        ensure_token(local=True)
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64

    @pytest.mark.parametrize("variables", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": "/run/secrets/ray"}])
    def test_that_is_named_or_not_wanted_is_not_made(
        self, home: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        ensure_token(local=True)
        assert list(home.iterdir()) == []


def test_a_folder_that_somebody_made_before_us_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everybody may write, anybody may make the folder that we would take."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as shared:
        Path(shared).chmod(0o777)
        (Path(shared) / f"visavis-{os.getuid()}").symlink_to(tmp_path)
        monkeypatch.setenv("RAY_TMPDIR", shared)
        folder = Path(machines._folder_for_sockets()).parent
        assert folder.parent == Path(shared)
        assert (modes(folder), folder.is_symlink()) == (0o700, False)

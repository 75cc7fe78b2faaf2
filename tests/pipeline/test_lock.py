"""One run at a time; a dead run holds nobody up. Leases on a real S3 server: test_s3.py."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stages.test_store import child
from visavis.pipeline.state import lock
from visavis.pipeline.state.lock import LOCK_FILE, Hold, holder, locked
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.storage.store import Store

HOLD = """
import sys, time
from visavis.pipeline.state.lock import locked

with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def remote() -> str:
    return f"memory://{uuid.uuid4().hex}"


def test_a_second_run_is_refused_and_told_of_the_first(root: str) -> None:
    store = Store(root)
    assert holder(store) is None
    with locked(root) as hold:
        found = holder(store)
        assert found
        with pytest.raises(UsageError, match=rf"in use by process {found['pid']} on .* since"), locked(root):
            pass
        hold.check()
    assert holder(store) is None
    assert not store.exists(LOCK_FILE)
    with locked(root):  # free again
        pass


def test_a_run_that_raises_lets_go(root: str) -> None:
    with pytest.raises(ZeroDivisionError), locked(root):
        raise ZeroDivisionError
    assert holder(Store(root)) is None


def test_a_killed_run_holds_no_folder(tmp_path: Path) -> None:
    with child(HOLD, str(tmp_path)) as run:
        assert (holder(Store(str(tmp_path))) or {})["pid"] == run.pid
        with pytest.raises(UsageError, match=f"process {run.pid} "), locked(str(tmp_path)):
            pass
        run.kill()
        run.wait()
    assert (tmp_path / LOCK_FILE).exists()  # it had no time to tidy up
    assert holder(Store(str(tmp_path))) is None
    with locked(str(tmp_path)):
        assert (holder(Store(str(tmp_path))) or {})["pid"] == os.getpid()


def owner(age: float, **changes: Any) -> dict[str, Any]:
    """A run on another machine that gave its last sign of life `age` seconds ago."""
    then = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
    return {
        "id": "other",
        "pid": 7,
        "host": "elsewhere",
        "namespace": 1,
        "born": 0.0,
        "started": then,
        "renewed": then,
    } | changes


def leave(root: str, who: dict[str, Any]) -> None:
    Store(root).write(LOCK_FILE, json.dumps(who).encode())


class Clock(SimpleNamespace):
    """Time that passes only while somebody sleeps. `tick` is called each time."""

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self.now, self.tick = time.time(), tick

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.tick()


def test_a_lease_that_is_renewed_stands(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(remote, owner(age=100))
    assert (holder(Store(remote)) or {})["host"] == "elsewhere"
    monkeypatch.setattr(lock, "time", clock := Clock(lambda: leave(remote, owner(age=0))))
    told: list[str] = []
    with pytest.raises(UsageError, match="process 7 on elsewhere"), locked(remote, told.append):
        pass
    assert clock.now - time.time() < 10
    assert len(told) == 1
    assert "elsewhere" in told[0]


def test_a_lease_that_nobody_renews_is_taken_over_when_it_has_run_out(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(remote, owner(age=100))
    monkeypatch.setattr(lock, "time", clock := Clock())
    with locked(remote):
        assert (holder(Store(remote)) or {})["host"] != "elsewhere"
        assert clock.now - time.time() == pytest.approx(20, abs=3)


def test_a_lease_that_was_let_go_while_somebody_waited_is_free(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(remote, owner(age=0))
    monkeypatch.setattr(lock, "time", Clock(lambda: Store(remote).delete(LOCK_FILE)))
    with locked(remote):
        assert (holder(Store(remote)) or {})["pid"] == os.getpid()


def test_a_lease_of_a_process_of_this_machine_ends_with_it(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(remote):
        ours = json.loads(Store(remote).read(LOCK_FILE))
    leave(remote, ours | {"id": "other"})
    with pytest.raises(UsageError), locked(remote):  # that process lives: it is this one
        pass
    leave(remote, ours | {"id": "other", "born": ours["born"] - 3600})  # its pid is another's now
    with locked(remote):
        pass
    leave(remote, ours | {"id": "other", "pid": 2**22 + 1})  # no such process
    with locked(remote):
        pass
    elsewhere = ours | {"id": "other", "pid": 2**22 + 1, "namespace": 1}  # in another container there may be one
    leave(remote, elsewhere)
    later = (datetime.now(UTC) + timedelta(seconds=10)).isoformat()
    monkeypatch.setattr(lock, "time", Clock(lambda: leave(remote, elsewhere | {"renewed": later})))
    with pytest.raises(UsageError), locked(remote):
        pass


def test_a_lock_file_that_is_none_is_taken_over(remote: str) -> None:
    Store(remote).write(LOCK_FILE, b"what is this")
    assert holder(Store(remote)) is None
    with locked(remote):
        assert (holder(Store(remote)) or {})["pid"] == os.getpid()


@pytest.mark.parametrize(
    "changes",
    [
        {"renewed": "2999-01-01T00:00:00Z"},
        {"renewed": "9999-12-31T23:59:59-14:00"},
        {"renewed": "0001-01-01T00:00:00+14:00"},
        {"renewed": datetime.now().isoformat()},  # of no zone
        {"renewed": 4e9},
        {"renewed": None},
        {"pid": 1e300},
        {"pid": -1},
        {"pid": 2**80},
        {"pid": "7"},
        {"host": 7},
        {"host": {"a": ["nested"]}},
        {"born": "NaN"},
        {"born": float("nan")},
        {"namespace": True},
        {"id": None},
        {"id": ["list"]},
    ],
)
def test_a_lease_from_the_future_or_of_another_form_is_dead(remote: str, changes: dict[str, Any]) -> None:
    leave(remote, owner(age=0))
    assert holder(Store(remote)) is not None
    leave(remote, owner(age=0) | changes)
    assert holder(Store(remote)) is None
    with locked(remote):
        pass


def test_a_clock_that_is_a_little_ahead_is_none_from_the_future(remote: str) -> None:
    leave(remote, owner(age=-lock.SKEW_S / 2))
    assert holder(Store(remote)) is not None
    leave(remote, owner(age=-lock.SKEW_S * 2))
    assert holder(Store(remote)) is None


def test_a_name_in_a_lease_cannot_write_to_the_terminal_nor_fill_it(root: str) -> None:
    for changes in ({"host": "\x1b]0;pwned\a"}, {"host": "h" * 5000}, {"id": "\r\n"}):
        leave(root, owner(age=0) | changes)
        assert holder(Store(root)) is None  # whom nobody can name nobody waits for
        with locked(root):
            pass


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_fields = st.fixed_dictionaries({}, optional=dict.fromkeys(owner(age=0), _json))


@given(
    st.binary(max_size=200)
    | st.builds(lambda fields: json.dumps(owner(age=0) | fields).encode(), _fields)
    | st.builds(lambda depth: b'{"host":' * depth + b"1" + b"}" * depth, st.sampled_from([100, 10_000]))
    | st.builds(lambda size: b" " * size + json.dumps(owner(age=0)).encode(), st.sampled_from([1, 70_000]))
)
def test_whatever_lies_there_is_an_owner_or_none(data: bytes) -> None:
    store = Store(remote := f"memory://{uuid.uuid4().hex}")
    store.write(LOCK_FILE, data)
    found = holder(store)
    assert found is None or (found["pid"] > 0 and f"{found['host']}{found['started']}".isprintable())
    if found is None:
        with locked(remote) as hold:
            hold.check()


def test_a_lock_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / LOCK_FILE).open("wb") as file:
        file.truncate(2**40)  # takes no room
    assert holder(Store(str(tmp_path))) is None
    with locked(str(tmp_path)):
        assert (holder(Store(str(tmp_path))) or {})["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_told_in_a_line_and_nothing_happens_outside(tmp_path: Path, kind: str) -> None:
    (folder := tmp_path / "run").mkdir()
    (outside := tmp_path / "outside").write_text("mine")
    make = {
        "link": lambda path: path.symlink_to(outside),
        "dangling": lambda path: path.symlink_to(tmp_path / "nowhere"),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
    }[kind]
    make(folder / LOCK_FILE)
    before = outside.stat()
    for ask in (lambda: holder(Store(str(folder))), lambda: locked(str(folder)).__enter__()):
        with pytest.raises(OSError, match=r"lock\.json'$"):
            ask()
    assert outside.stat() == before
    assert not (tmp_path / "nowhere").exists()
    assert [path.name for path in folder.iterdir()] == [LOCK_FILE]


def test_a_lease_is_renewed_while_the_run_is_busy(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.02)
    with locked(remote) as hold:
        before = (holder(Store(remote)) or {})["renewed"]
        deadline = time.monotonic() + 5
        while (holder(Store(remote)) or {})["renewed"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        hold.check()


def work(hold: Hold) -> None:
    for _ in range(500):
        hold.check()
        time.sleep(0.01)


def test_a_run_that_lost_its_lease_stops_and_leaves_the_winners_alone(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.02)
    with locked(remote) as hold:
        hold.check()
        leave(remote, owner(age=0))
        with pytest.raises(RunFailed, match=r"process 7 on elsewhere .* took over"):
            work(hold)
    assert (holder(Store(remote)) or {})["host"] == "elsewhere"


def test_a_run_that_stood_still_looks_before_it_goes_on(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(lock, "time", SimpleNamespace(time=lambda: now))
    with locked(remote) as hold:
        now += 130  # as if the process had been stopped, and its thread with it
        assert holder(Store(remote)) is None
        hold.check()  # nobody came
        assert holder(Store(remote)) is not None
        now += 130
        with locked(remote), pytest.raises(RunFailed, match="took over"):
            hold.check()

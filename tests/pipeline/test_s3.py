"""Commits, listings and leases on a real S3 server: moto's, on loopback, over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import s3fs
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from tests.bucket import BUCKET, S3Server
from tests.pipeline.test_lock import HOLD, owner, work
from tests.stages.test_store import at_once, child
from visavis.pipeline.state import lock
from visavis.pipeline.state.lock import LEASE_S, LOCK_FILE, holder, locked
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.storage.store import Store


@pytest.fixture
def root(server: S3Server) -> Iterator[str]:
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    server.before = lambda *_: None


def key(url: str) -> str:
    return url.removeprefix(f"s3://{BUCKET}/")


@pytest.fixture
def store(root: str) -> Store:
    return Store(root)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads of over 10 MiB go in parts of 5, the least that S3 takes; else of over 100, in parts of 50."""
    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda *_, **__: 5 * 2**20)


def test_what_is_written_is_read_back(store: Store) -> None:
    store.write("a/b.bin", b"12345")
    with store.writer("a/c.tar") as file:
        file.write(b"67")
        file.write(b"89")
    assert (store.read("a/b.bin"), store.read("a/c.tar"), store.read_head("a/b.bin", 2)) == (b"12345", b"6789", b"12")
    assert (store.list("a"), store.list("a", ".tar"), store.list("absent")) == (["b.bin", "c.tar"], ["c.tar"], [])
    assert store.exists("a/b.bin")
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    assert store.sweep() == 0


def test_a_write_that_breaks_off_uploads_nothing(server: S3Server, store: Store) -> None:
    uploads = []
    server.before = lambda method, path, query: uploads.append(path) if method in ("PUT", "POST") else None

    def interrupted() -> None:
        with store.writer("x.bin") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert uploads == []
    store.write("x.bin", b"whole")
    assert len(uploads) == 1  # one PUT


def test_answers_are_never_remembered(root: str, store: Store) -> None:
    """What another process wrote or removed is seen at once, also after a listing of the same folder."""
    client, prefix = boto3.client("s3"), key(root)
    store.write("a/x", b"1")
    assert (store.list("a"), list(store.names("a"))) == (["x"], ["x"])
    s3fs.S3FileSystem().ls(f"{root}/a")  # as when inputs are listed; that file system does remember
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/a/y", Body=b"2")
    assert (store.list("a"), sorted(store.names("a")), store.exists("a/y")) == (["x", "y"], ["x", "y"], True)
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}/a/x")
    assert (store.list("a"), list(store.names("a")), store.exists("a/x")) == (["y"], ["y"], False)
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/a/y", Body=b"other")
    assert store.read("a/y") == b"other"


def test_names_come_a_page_at_a_time(server: S3Server, root: str, store: Store) -> None:
    wanted = {f"v1/{number % 3}/{number:04d}.bin" for number in range(1050)}
    placeholder = "v1/"  # what S3's consoles make for a folder
    for name in (*wanted, placeholder):  # not over HTTP, which takes seconds
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(BUCKET, f"{key(root)}/artifacts/{name}", b"")
    store.write("artifacts-of-another/x", b"")
    pages = []
    server.before = lambda method, path, query: pages.append(query)
    names = store.names("artifacts")
    first = next(names)
    assert len(pages) == 1  # the second page is asked for when the first is used up
    rest = list(names)
    assert len(rest) == 1049
    assert {first, *rest} == wanted
    assert len(pages) == 2


@pytest.mark.usefixtures("small_parts")
def test_an_upload_in_parts_is_not_seen_before_it_is_complete(server: S3Server, store: Store) -> None:
    parts, seen = [], []

    def look(method: str, path: str, query: dict[str, list[str]]) -> None:
        if "uploadId" in query:
            parts.append(query.get("partNumber"))
            client = boto3.client("s3")
            seen.append(client.list_objects_v2(Bucket=BUCKET, Prefix=path.removeprefix(f"/{BUCKET}/"))["KeyCount"])

    server.before = look
    data = bytes(range(256)) * (11 * 4096)
    with store.writer("shard.tar") as file:
        file.write(data)
    assert len(parts) == 4  # three parts and the word that they are all
    assert seen == [0, 0, 0, 0]
    assert store.read("shard.tar") == data


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_fails_halfway_leaves_nothing(
    server: S3Server, root: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.before = lambda method, path, query: "AccessDenied" if query.get("partNumber") == ["2"] else None
    with pytest.raises(PermissionError) as caught, store.writer("shard.tar") as file:
        file.write(bytes(11 * 2**20))
    assert caught.value.filename == f"{root}/shard.tar"
    assert not store.exists("shard.tar")
    uploads = boto3.client("s3").list_multipart_uploads(Bucket=BUCKET)
    assert "Uploads" not in uploads  # nor parts that would be paid for


UPLOAD_FOREVER = """
import hashlib, itertools, sys
import s3fs
from visavis.schemas.storage.store import Store

s3fs.core.calculate_chunksize = lambda *_, **__: 5 * 2**20
store = Store(sys.argv[1])
print("writing", flush=True)
for number in itertools.count():
    data = b"%08d" % number * (11 * 2**17)
    with store.writer(f"shards/{hashlib.sha256(data).hexdigest()}.tar") as file:
        file.write(data)
"""


@pytest.mark.slow
def test_a_killed_upload_leaves_whole_objects_only(server: S3Server, root: str, store: Store) -> None:
    third = threading.Event()
    uploads: set[str] = set()

    def stop_the_third(method: str, path: str, query: dict[str, list[str]]) -> None:
        if query.get("partNumber") == ["2"]:
            uploads.add(path)
            if len(uploads) == 3:
                third.set()
                killed.wait(30)

    killed = threading.Event()
    server.before = stop_the_third
    with child(UPLOAD_FOREVER, root) as writer:
        assert third.wait(60)
        writer.kill()
        writer.wait()
        killed.set()
    names = store.list("shards")
    assert len(names) == 2
    for name in names:
        assert hashlib.sha256(store.read(f"shards/{name}")).hexdigest() == Path(name).stem


def test_errors_say_what_is_wrong_and_with_what(
    server: S3Server, root: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError) as absent:
        Store("s3://no-such-bucket/run").write("x", b"1")
    assert (absent.value.filename, absent.value.strerror) == (
        "s3://no-such-bucket/run/x",
        "The specified bucket does not exist",
    )
    assert list(Store("s3://no-such-bucket/run").names("artifacts")) == []

    server.before = lambda *_: "AccessDenied"
    for act in (lambda: store.write("x", b"1"), lambda: store.exists("x"), lambda: list(store.names("a"))):
        with pytest.raises(PermissionError) as denied:
            act()
        assert str(denied.value.filename).startswith(root)
        assert denied.value.strerror in ("AccessDenied it is", "Forbidden")  # HEAD has no body to say more

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="Unable to locate credentials") as nobody:
        Store(root).exists("x")
    assert nobody.value.filename == f"{root}/x"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.slow
def test_of_many_who_create_at_once_one_succeeds(store: Store) -> None:
    for turn in range(5):
        made = at_once(6, lambda number, turn=turn: store.create(f"x{turn}", b"%d" % number))
        assert made.count(True) == 1
        assert store.read(f"x{turn}") == b"%d" % made.index(True)


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_server_may_say_in_its_own_words_that_a_name_is_taken(server: S3Server, store: Store, code: str) -> None:
    server.before = lambda method, *_: code if method == "PUT" else None
    assert not store.create("x", b"1")


def test_a_server_without_conditional_writes_is_asked_first(server: S3Server, store: Store) -> None:
    refused: list[str] = []

    def before(method: str, path: str, query: dict[str, list[str]]) -> str | None:
        if method == "PUT" and len(refused) < 1:
            refused.append(path)
            return "NotImplemented"
        return None

    server.before = before
    assert store.create("x", b"1")
    refused.clear()
    assert not store.create("x", b"2")
    assert store.read("x") == b"1"


def test_an_entry_of_no_bytes_can_be_read(store: Store) -> None:
    store.write("x", b"")
    assert (store.read("x"), store.read("x", 10), store.peek("x")) == (b"", b"", b"")


def test_of_two_runs_started_at_once_one_goes_on(root: str) -> None:
    for _ in range(5):
        first, second = sorted(at_once(2, partial(run_together, root, threading.Barrier(2))))
        assert first == "held"
        assert "in use by process" in second


def run_together(root: str, end: threading.Barrier, number: int) -> str:
    """A run that lasts until the other knows its fate."""
    try:
        with locked(root):
            end.wait(30)
            return "held"
    except UsageError as error:
        end.wait(30)
        return str(error)


def test_a_killed_run_holds_nobody_up(root: str, store: Store) -> None:
    with child(HOLD, root) as run:
        assert (holder(store) or {})["pid"] == run.pid
        with pytest.raises(UsageError, match=f"in use by process {run.pid} "), locked(root):
            pass
        run.kill()
        run.wait()
    assert holder(store) is None
    with locked(root):
        assert (holder(store) or {})["pid"] == os.getpid()
    assert not store.exists(LOCK_FILE)


@pytest.mark.slow
def test_a_lease_of_another_machine_is_taken_over_when_it_has_run_out(root: str, store: Store) -> None:
    store.write(LOCK_FILE, json.dumps(owner(age=LEASE_S - 1)).encode())
    with locked(root):
        assert (holder(store) or {})["pid"] == os.getpid()


def test_a_run_that_lost_its_lease_stops(root: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    with locked(root) as hold:
        hold.check()
        store.write(LOCK_FILE, json.dumps(owner(age=0)).encode())
        with pytest.raises(RunFailed, match=r"process 7 on elsewhere .* took over"):
            work(hold)
    assert (holder(store) or {})["host"] == "elsewhere"


def test_a_lease_outlives_a_server_that_is_away_for_a_while(
    server: S3Server, root: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "RENEW_S", 0.05)
    refused = threading.Event()

    def away(*_: Any) -> str:
        refused.set()
        return "AccessDenied"

    with locked(root) as hold:
        server.before = away
        assert refused.wait(10)
        hold.check()
        server.before = lambda *_: None
        before = datetime.now(UTC)
        while datetime.fromisoformat((holder(store) or {})["renewed"]) < before:
            assert datetime.now(UTC) - before < timedelta(seconds=10)
        hold.check()


def test_an_answer_that_is_lost_does_not_lock_a_run_out(server: S3Server, root: str) -> None:
    """The client repeats a PUT whose answer it never saw, and the repetition is refused: the lock is there."""
    lost: list[str] = []

    def lose(method: str, path: str, query: dict[str, list[str]]) -> str | None:
        if method == "PUT" and not lost:
            lost.append(path)
            return "InternalError"
        return None

    server.before = lose
    with locked(root) as hold:
        assert lost
        hold.check()

"""Files are whole or absent, whatever happens to who writes them. On S3: tests/pipeline/test_s3.py."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.schemas.errors import UsageError
from visavis.schemas.storage import inside
from visavis.schemas.storage.store import TEMPORARY, Store

T = TypeVar("T")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def test_what_is_written_is_read_back(store: Store) -> None:
    store.write("a/b.bin", b"12345")
    assert store.read("a/b.bin") == b"12345"
    assert store.read_head("a/b.bin", 2) == b"12"
    assert store.list("a") == ["b.bin"]
    assert store.list("a", ".tar") == []
    assert store.list("absent") == []
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    store.delete("a/b.bin")  # gone is gone


def test_names_are_those_of_all_files_below_a_folder(store: Store) -> None:
    for path in ("artifacts/faces/v1/x.bin", "artifacts/faces/v2/x.bin", "artifacts/y.bin", "ledger/z.bin"):
        store.write(path, b"1")
    store.write(f"artifacts/faces/{TEMPORARY}0-x.bin", b"half")
    assert sorted(store.names("artifacts")) == ["faces/v1/x.bin", "faces/v2/x.bin", "y.bin"]
    assert store.list("artifacts") == ["y.bin"]
    assert list(store.names("absent")) == []


Write = tuple[str, list[bytes], int]
writes: st.SearchStrategy[list[Write]] = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c/d"]), st.lists(st.binary(max_size=9), max_size=4), st.integers(0, 6))
)


@pytest.mark.parametrize("root", ["local", "memory"])
@given(history=writes)
@settings(max_examples=30, deadline=None)
def test_an_entry_holds_what_was_committed_last(
    tmp_path_factory: pytest.TempPathFactory, root: str, history: list[Write]
) -> None:
    """Any history of writes, each of which breaks off before its n-th chunk or, with fewer chunks, ends well."""
    store = Store(str(tmp_path_factory.mktemp("store")) if root == "local" else f"memory://{uuid.uuid4().hex}")
    committed: dict[str, bytes] = {}
    for path, chunks, breaks_at in history:
        try:
            with store.writer(path) as file:
                for number, chunk in enumerate(chunks):
                    if number == breaks_at:
                        raise KeyboardInterrupt
                    file.write(chunk)
            committed[path] = b"".join(chunks)
        except KeyboardInterrupt:
            pass
    assert {path: store.read(path) for path in ("a", "b", "c/d") if store.exists(path)} == committed
    if store.local:
        assert store.sweep() == 0


WRITE_FOREVER = """
import hashlib, itertools, sys, time
from visavis.schemas.storage.store import Store

store = Store(sys.argv[1])
for number in itertools.count():
    data = b"%06d" % number * 40_000
    with store.writer(f"{number % 7}/{hashlib.sha256(data).hexdigest()}.bin") as file:
        for at in range(0, len(data), 4096):
            file.write(data[at : at + 4096])
        time.sleep(0.005)  # most kills shall hit a file that is not finished
    if number == 0:
        print("writing", flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_whole_files_and_what_sweep_removes(tmp_path: Path) -> None:
    chance = random.Random(0)
    leftovers = 0
    for trial in range(6):
        root = tmp_path / str(trial)
        with child(WRITE_FOREVER, str(root)) as writer:
            time.sleep(chance.uniform(0.01, 0.1))
            writer.kill()
            writer.wait()
        store = Store(str(root))
        paths = [path for path in root.rglob("*") if path.is_file()]
        visible = {path.relative_to(root).as_posix() for path in paths if not path.name.startswith(TEMPORARY)}
        assert visible
        for name in visible:
            assert hashlib.sha256(store.read(name)).hexdigest() == Path(name).stem
        half = len(paths) - len(visible)
        assert half <= 1
        assert store.sweep() == half
        assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == visible
        leftovers += half
    assert leftovers  # or the kills all came between two writes and showed nothing


def test_sweep_takes_nothing_but_leftovers_at_any_depth(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("artifacts/faces/x.bin", b"whole")
    for folder in ("", "artifacts/", "artifacts/faces/"):
        (tmp_path / f"{folder}{TEMPORARY}0123-x.bin").write_bytes(b"half")
    assert store.sweep() == 3
    assert list(store.names("artifacts")) == ["faces/x.bin"]
    assert store.sweep() == 0
    assert Store(str(tmp_path / "absent")).sweep() == 0


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("x.bin", b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # the kernel refuses to write on
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            store.write("x.bin", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "x.bin")
    assert store.read("x.bin") == b"old"
    assert store.sweep() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError) as caught:
            Store(str(tmp_path)).write("x.bin", b"1")
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.filename == str(tmp_path / "x.bin")


def test_a_broken_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Store(str(tmp_path)).writer("sub/x.bin"):
            raise OSError("stage broke")

    with pytest.raises(OSError, match="stage broke"):
        interrupted()
    assert list((tmp_path / "sub").iterdir()) == []


def test_a_name_is_created_once(store: Store) -> None:
    assert store.peek("a/x") is None
    assert store.create("a/x", b"1")
    assert not store.create("a/x", b"2")
    assert store.peek("a/x") == b"1"
    store.write("a/x", b"3")  # who need not be the first writes
    assert store.read("a/x") == b"3"
    store.delete("a/x")
    assert store.create("a/x", b"4")
    assert sorted(store.names("a")) == ["x"]
    assert store.sweep() == 0


def test_of_many_who_create_at_once_one_succeeds(tmp_path: Path) -> None:
    for turn in range(20):
        made = at_once(6, lambda number, turn=turn: Store(str(tmp_path)).create(f"a/{turn}", b"%d" % number))
        assert made.count(True) == 1
        assert Store(str(tmp_path)).read(f"a/{turn}") == b"%d" % made.index(True)


def test_a_name_is_created_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", fails)
    test_a_name_is_created_once(Store(str(tmp_path)))


def test_a_small_entry_of_any_size_can_be_looked_at(store: Store) -> None:
    for size in (0, 1, 1 << 20):
        store.write("x", bytes(size))
        assert store.peek("x") == bytes(size)
    store.write("x", bytes((1 << 20) + 1))  # a stranger's
    assert store.peek("x") == b""


def test_sweep_leaves_what_somebody_writes(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with store.writer("a/x.bin") as file:
        file.write(b"half")
        assert store.sweep() == 0
    assert store.read("a/x.bin") == b"half"


@pytest.mark.slow
def test_who_sweeps_without_pause_takes_no_writers_file(tmp_path: Path) -> None:
    store, over = Store(str(tmp_path)), threading.Event()

    def sweep() -> None:
        while not over.is_set():
            store.sweep()

    with ThreadPoolExecutor(3) as pool:
        sweeping = [pool.submit(sweep) for _ in range(3)]
        try:
            for number in range(300):
                store.write(f"a/{number % 7}", b"%d" % number)
                assert store.read(f"a/{number % 7}") == b"%d" % number
        finally:
            over.set()
    assert [each.result() for each in sweeping] == [None] * 3


def test_who_sweeps_second_does_not_take_what_a_writer_began_after_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw a leftover; the first removed it, and a writer begins another file of that name."""
    left, locked = tmp_path / "left", inside._is_locked
    left.write_bytes(b"old")

    def after_another(file: IO[bytes]) -> bool:
        monkeypatch.setattr(inside, "_is_locked", locked)
        assert inside.remove_left(str(tmp_path), "left")
        left.write_bytes(b"new")
        return locked(file)

    monkeypatch.setattr(inside, "_is_locked", after_another)
    assert not inside.remove_left(str(tmp_path), "left")
    assert left.read_bytes() == b"new"


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
def test_a_path_cannot_leave_the_store(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="inside the store"):
        Store(str(tmp_path)).read(path)


def test_an_absent_entry_is_named(store: Store) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        store.read("a/absent.bin")
    assert str(caught.value.filename).endswith("a/absent.bin")
    assert caught.value.strerror == "No such file or directory"


def test_an_unknown_kind_of_url_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        Store("nosuch://somewhere/run")


def at_once(count: int, act: Callable[[int], T]) -> list[T]:
    start = threading.Barrier(count)

    def one(number: int) -> T:
        start.wait(30)
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@contextmanager
def child(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Another Python process, once it has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("name", ["a::b", "file:x", "50%", "x#y?z", "tab\there", "[1]*"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = Store(str(tmp_path / name))
    store.write("x/y.txt", b"here")
    assert (tmp_path / name / "x" / "y.txt").read_bytes() == b"here"
    assert list(Store(str(tmp_path / name)).names("x")) == ["y.txt"]

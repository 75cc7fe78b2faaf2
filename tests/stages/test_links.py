"""A store does nothing outside of its folder, whatever links others have put into it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.synthetic import write_dataset
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.storage.store import TEMPORARY, Store
from visavis.schemas.untrusted import TooLarge
from visavis.training.dataset import Dataset

Tree = dict[str, bytes | str]


def tree(folder: Path) -> Tree:
    """Every entry of a folder, with its content, or where it leads."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = str(path.readlink()) if path.is_symlink() else "" if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "out-of-bounds"
    (folder / "deep").mkdir(parents=True)
    (folder / "secret.bin").write_bytes(b"secret")
    (folder / f"{TEMPORARY}mine").write_bytes(b"of somebody else")
    (folder / "deep" / f"{TEMPORARY}mine").write_bytes(b"of somebody else")
    return folder


@pytest.fixture
def store(tmp_path: Path, outside: Path) -> Store:
    """A store with a link to a file, one to a folder, one that leads nowhere, and one inside of a folder."""
    root = tmp_path / "out"
    (root / "a").mkdir(parents=True)
    (root / "file.bin").symlink_to(outside / "secret.bin")
    (root / "folder").symlink_to(outside)
    (root / "a" / "relative").symlink_to("../../out-of-bounds")
    (root / "nowhere.bin").symlink_to(outside / "new.bin")
    return Store(str(root))


READS: dict[str, Callable[[Store, str], object]] = {
    "read": Store.read,
    "read_head": lambda store, path: store.read_head(path, 3),
    "exists": Store.exists,
    "peek": Store.peek,
}
CHANGES: dict[str, Callable[[Store, str], object]] = {
    "write": lambda store, path: store.write(path, b"new"),
    "create": lambda store, path: store.create(path, b"new"),
    "delete": Store.delete,
    "names": lambda store, path: list(store.names(path)),
}


@pytest.mark.parametrize("name", [*READS, *CHANGES])
@pytest.mark.parametrize("path", ["folder/secret.bin", "folder/deep/x.bin", "a/relative/secret.bin"])
def test_nothing_is_done_through_a_link_to_a_folder(store: Store, outside: Path, name: str, path: str) -> None:
    before = tree(outside)
    with pytest.raises(OSError, match="is a link") as caught:
        (READS | CHANGES)[name](store, path)
    assert str(caught.value.filename).endswith(("out/folder", "out/a/relative"))  # the link, not what is behind it
    assert tree(outside) == before


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("path", ["file.bin", "folder", "nowhere.bin"])
def test_a_link_is_not_read(store: Store, name: str, path: str) -> None:
    with pytest.raises(OSError, match="is a link"):
        READS[name](store, path)


def test_a_link_is_replaced_or_removed_itself(store: Store, outside: Path) -> None:
    before = tree(outside)
    for path in ("file.bin", "nowhere.bin"):
        store.write(path, b"new")
        assert store.read(path) == b"new"
    store.delete("folder")
    assert not store.exists("folder")
    assert tree(outside) == before


def test_sweep_and_listing_stay_inside(store: Store, outside: Path) -> None:
    before = tree(outside)
    store.write("a/x.bin", b"1")
    (Path(store.root) / "a" / f"{TEMPORARY}left").symlink_to(outside / "secret.bin")
    assert store.sweep() == 1
    assert sorted(store.names("a")) == ["relative", "x.bin"]  # a link is listed as what it is, and not entered
    assert tree(outside) == before


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "run").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    store = Store(str(tmp_path / "home" / "run"))
    store.write("a/x.bin", b"1")
    assert (store.read("a/x.bin"), list(store.names("a"))) == (b"1", ["x.bin"])
    assert (tmp_path / "disk" / "run" / "a" / "x.bin").exists()


def test_a_hard_link_is_a_file_and_a_pipe_is_none(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("x.bin", b"1")
    os.link(tmp_path / "x.bin", tmp_path / "y.bin")
    os.mkfifo(tmp_path / "pipe.bin")
    assert store.read("y.bin") == b"1"
    with pytest.raises(OSError, match="not a file"):  # and does not wait for somebody to write
        store.read("pipe.bin")
    with pytest.raises(IsADirectoryError):
        Store(str(tmp_path.parent)).read(tmp_path.name)


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(tmp_path: Path, outside: Path) -> None:
    """Somebody swaps a folder for a link, back and forth, while we write and delete in it."""
    folder, aside, stop = tmp_path / "out" / "a", tmp_path / "out" / "b", threading.Event()
    root = folder.parent
    folder.mkdir(parents=True)
    before = tree(outside)

    def swap() -> None:
        while not stop.is_set():
            try:
                folder.rename(aside)
                folder.symlink_to(outside)
                folder.unlink()
                aside.rename(folder)
            except OSError:  # the store made the folder anew meanwhile
                shutil.rmtree(aside)

    swapping = threading.Thread(target=swap)
    swapping.start()
    refused = 0
    try:
        for number in range(300):
            try:
                Store(str(root)).write("a/x.bin", b"%d" % number)
                Store(str(root)).delete("a/secret.bin")
                list(Store(str(root)).names("a"))
            except OSError:
                refused += 1
    finally:
        stop.set()
        swapping.join()
    assert refused
    assert tree(outside) == before


def test_more_than_wanted_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TooLarge, match="at most 10 are read"):
        Store(str(tmp_path)).read("huge.bin", most=10)


def test_a_dataset_is_read_from_its_own_folder_alone(tmp_path: Path, outside: Path) -> None:
    folder = write_dataset(tmp_path / "data")
    data = Dataset(str(folder))
    shard = folder / data.manifest.shards[0].path
    shard.rename(outside / shard.name)
    shard.symlink_to(outside / shard.name)
    with pytest.raises(DatasetError, match=f"{shard.name} cannot be read .*is a link"):
        data.fetch(data.manifest.shards[0])
    (folder / "manifest.json").rename(outside / "manifest.json")
    (folder / "manifest.json").symlink_to(outside / "manifest.json")
    with pytest.raises(UsageError, match="is a link"):
        Dataset(str(folder))

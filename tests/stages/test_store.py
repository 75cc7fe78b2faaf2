"""Files are whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


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


def test_a_write_that_breaks_off_leaves_nothing(store: Store) -> None:
    store.write("x.bin", b"old")

    def interrupted() -> None:
        with store.writer("x.bin") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.read("x.bin") == b"old"


def test_a_broken_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    def interrupted() -> None:
        with Store(str(tmp_path)).writer("sub/x.bin"):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        interrupted()
    assert list((tmp_path / "sub").iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
def test_a_path_cannot_leave_the_store(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="inside the store"):
        Store(str(tmp_path)).read(path)

"""What docs/security.md promises is held by tests that exist, and says nothing of files that do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "security.md").read_text()


def promises() -> list[tuple[str, ...]]:
    """Rows of the table: promise, modules, tests."""
    section = PAGE.split("## What is promised", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [tuple(row) for row in rows[1:]]


def test_every_promise_has_a_module_and_a_test() -> None:
    assert len(promises()) > 10
    for row in promises():
        promise, modules, tests = row
        assert re.findall(r"`([^`]+)`", modules), promise
        assert re.findall(r"`(tests/[^`]+)`", tests), promise


@pytest.mark.parametrize(
    "name", sorted({name for row in promises() for name in re.findall(r"`([^` ]+)`", " ".join(row[1:]))})
)
def test_what_the_table_names_is_there(name: str) -> None:
    path = REPOSITORY / name
    assert path.is_file()
    if name.startswith("tests/"):
        assert re.search(r"^\s*def test_", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", ["docs/security.md", "SECURITY.md", "docs/cluster/README.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (REPOSITORY / page).parent.joinpath(target).exists(), target

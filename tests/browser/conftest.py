"""A real browser: Debian's Chromium, driven by Playwright. Where there is none, what needs it skips and says so."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser's program."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: {_NAMES[0]} is not on PATH (Debian: apt-get install chromium fonts-dejavu-core)")
    return Path(found)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Not for longer: while it runs, nobody else in this process can start an event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        yield running


def launch(playwright: Playwright, chromium: Path, *flags: str) -> Browser:
    """A browser of one's own, without a window: `flags` are Chromium's."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    return playwright.chromium.launch(
        executable_path=chromium, args=[*sandbox, "--force-device-scale-factor=1", *flags]
    )


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: Path) -> Iterator[Browser]:
    running = launch(playwright, chromium)
    yield running
    running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of 1280 × 900 that must say nothing on its console, end no script by an error and call nobody but this
    machine: the test fails otherwise, when it is done.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    made = context.new_page()
    complaints = watch(made)
    yield made
    context.close()
    assert complaints == []


def wait(page: Page, expression: str, seconds: float = 90) -> None:
    """Until it is true. (Playwright's own way evaluates text in the page, which the page's policy forbids.)"""
    ends = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < ends, f"{expression}: {page.inner_text('main')[:300]}"
        page.wait_for_timeout(100)


def one_of(tries: int, check: Callable[[], None]) -> None:
    """What one of several tries shows. Beside other tests a browser on two cores stands still now and then: that is
    told apart from a page that is never in time, and from nothing else.
    """
    for left in reversed(range(tries)):
        try:
            check()
        except AssertionError:
            if not left:
                raise
        else:
            return


def watch(page: Page) -> list[str]:
    """What the page complains of from now on, and whom it calls that is not this machine; such calls are cut."""
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def guard(route, request) -> None:  # type: ignore[no-untyped-def]
        place = request.url
        if place.startswith(("file:", "data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:")):
            route.continue_()
        else:
            complaints.append(f"calls {place}")
            route.abort()

    page.route("**/*", guard)
    return complaints

"""The live page in a real browser, whose camera and microphone play a clip of known content."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.browser.conftest import launch, one_of, wait, watch
from tests.live.sitter import FakeLooker, avatar, clip, number_of, serving
from visavis.pipeline.live.avatar import Avatar, Reaction
from visavis.pipeline.live.looking import LookingProcess
from visavis.pipeline.live.messages import Message
from visavis.pipeline.live.perception import Seen
from visavis.pipeline.live.serving import door
from visavis.pipeline.live.session import Session

if TYPE_CHECKING:
    from playwright.sync_api import Page, Playwright

pytestmark = pytest.mark.slow
FRAMES = 100  # of the clip: 4 s
NODS = (12, 40, 77)


@dataclass
class Kept:
    """What the last session was given and made: it goes on as it would.

    seen: number of the clip's frame, when it was taken (ms), its motion. sound: when, and samples. steps: what the
    model was given.
    """

    seen: list[tuple[int, float, np.ndarray]] = field(default_factory=list)
    sound: list[tuple[float, np.ndarray]] = field(default_factory=list)
    steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    made = Kept()
    hear, look, step = Session.hear, LookingProcess.look, Reaction.step
    taken: dict[bytes, float] = {}

    async def heard(self: Session, message: Message) -> None:
        if message.kind == "sound":
            made.sound.append((message.time, message.samples()))
        taken[message.payload] = message.time
        await hear(self, message)

    async def looked(self: LookingProcess, jpeg: bytes) -> Seen | None:
        seen = await look(self, jpeg)
        if seen is not None:
            made.seen.append((number_of(jpeg), taken[jpeg], seen.motion_D))
        return seen

    def stepped(self: Reaction, *given: np.ndarray) -> np.ndarray:
        made.steps.append(given)  # type: ignore[arg-type]
        return step(self, *given)

    monkeypatch.setattr(Session, "hear", heard)
    monkeypatch.setattr(LookingProcess, "look", looked)
    monkeypatch.setattr(Reaction, "step", stepped)
    return made


@contextmanager
def sitting(playwright: Playwright, chromium: Path, flags: list[str], listener: Avatar) -> Iterator[Page]:
    """Somebody in front of the page, who has pressed the button."""
    with serving(listener) as server:
        browser = launch(playwright, chromium, *flags, "--autoplay-policy=no-user-gesture-required")
        page = browser.new_page(viewport={"width": 1000, "height": 1100})
        complaints = watch(page)
        page.goto(server.address)
        page.get_by_role("button", name="Start").click()
        wait(page, "live.running()")
        yield page
        browser.close()
        assert complaints == []


def drawn(page: Page) -> np.ndarray:
    """Motion that was drawn: [frames, 2 + D], number of the frame and when it was drawn before it."""
    return np.array(page.evaluate("live.measurements().moved"))


@pytest.mark.nightly("times through a real browser, which wants a quiet machine")
def test_a_nod_and_a_click_lie_where_the_clip_has_them(
    playwright: Playwright, chromium: Path, tmp_path: Path, kept: Kept
) -> None:
    """Each picture of the clip has its number in a corner, so a fake camera that loses time does not matter."""
    devices = clip(tmp_path, NODS, FRAMES)
    one_of(3, lambda: nods_and_clicks(playwright, chromium, devices, kept))


def nods_and_clicks(playwright: Playwright, chromium: Path, devices: list[str], kept: Kept) -> None:
    for part in (kept.seen, kept.sound, kept.steps):
        part.clear()
    with sitting(playwright, chromium, devices, avatar()) as page:
        wait(page, "live.measurements().seconds > 12 && live.measurements().blocks.length > 5")
        assert page.inner_text("#face") == "found"
        assert float(page.inner_text("#rate")) > 0
        found, moved = page.evaluate("live.measurements()"), drawn(page)
        with page.expect_download() as saved:
            page.get_by_role("button", name="Save measurements").click()
        assert json.loads(saved.value.path().read_text())["block"] == 10
        page.get_by_role("button", name="Stop").click()
        assert "are off" in page.inner_text("#said")
        assert page.evaluate("document.getElementById('camera').srcObject") is None

    numbers = np.array([number for number, _, _ in kept.seen])
    times = np.array([taken for _, taken, _ in kept.seen])
    pitch = np.array([motion_D[0] for *_, motion_D in kept.seen])
    for nod in NODS:
        near = np.abs(numbers - nod) <= 8
        assert len(set(numbers[near])) > 5, "the machine looked at some of its pictures"
        frames = np.arange(nod - 8, nod + 9)  # what is seen of it, and between; not every picture is looked at
        course = np.interp(frames, *zip(*sorted(zip(numbers[near], pitch[near], strict=True)), strict=True))
        weight = np.clip(course - np.median(pitch), 0, None)
        assert weight.max() > 0.1
        assert abs((frames * weight).sum() / weight.sum() - nod) <= 1, "within a frame of the clip's"
    steps = np.diff(numbers) % FRAMES
    behind = np.diff(times) - 40 * steps  # of a time stamp, behind the clip
    assert abs(np.median(behind)) < 4
    assert (np.abs(behind) <= 40).mean() > 0.8, "a time stamp is that of its picture"

    clicks: list[float] = []
    for at, samples_N in kept.sound:
        if (loud := np.abs(samples_N) > 0.1).any() and (not clicks or at - clicks[-1] > 500):
            clicks.append(at + int(loud.argmax()) / 16)
    apart = {40.0 * ((b - a) % FRAMES) for a, b in zip(NODS, (*NODS[1:], NODS[0]), strict=True)}
    off = [min(abs(gap - known) for known in apart) for gap in np.diff(clicks)]
    assert len(off) >= 3
    assert np.median(off) <= 40, "and a click"

    assert (np.diff(moved[:, 0]) > 0).all(), "frames are drawn in order"
    assert (moved[:, 1] - moved[:, 0] * 40).min() > 480, "none before what the model waits for"
    for block in found["blocks"]:
        assert block["total"] == pytest.approx(sum(block["parts"]), abs=0.01)
        assert min(block["parts"]) >= 0


def test_what_is_drawn_is_the_models_reaction_to_this_person(
    playwright: Playwright, chromium: Path, tmp_path: Path, kept: Kept
) -> None:
    listener = avatar()
    with sitting(playwright, chromium, clip(tmp_path, NODS, FRAMES), listener) as page:
        wait(page, "live.measurements().moved.length > 60")
        moved, given = drawn(page), list(kept.steps)
        skipped = float(page.inner_text("#skipped"))

    def reaction(*, still: bool) -> np.ndarray:
        """To what was heard, and seen; or to somebody who keeps the face that they began with."""
        stream = listener.reaction("live-0")
        first_D = given[0][2][:1]
        motion = [np.repeat(first_D, len(seen_TD), axis=0) if still else seen_TD for *_, seen_TD in given]
        return np.concatenate(
            [stream.step(own, heard, seen) for (own, heard, _), seen in zip(given, motion, strict=True)]
        )

    as_seen, as_still = reaction(still=False), reaction(still=True)
    if not skipped:
        rows = moved[moved[:, 0] < len(as_seen)]
        np.testing.assert_allclose(rows[:, 2:], as_seen[rows[:, 0].astype(int)], atol=1e-4)
    else:  # a machine that is too slow: the numbers of frames have gaps, what was drawn is the model's all the same
        nearest = np.abs(moved[:, None, 2:] - as_seen[None]).max(axis=2).min(axis=1)
        assert np.quantile(nearest, 0.9) < 1e-4
    assert np.abs(as_seen - as_still)[20:].max() > 0.05


@pytest.mark.nightly("how the page says it; that the server refuses is in tests/live/test_server.py")
def test_a_second_page_is_told_why_it_waits(playwright: Playwright, chromium: Path, tmp_path: Path) -> None:
    with sitting(playwright, chromium, clip(tmp_path, (), 25), avatar()) as page:
        assert page.context.browser is not None
        second = page.context.browser.new_page()
        second.goto(page.url)
        second.get_by_role("button", name="Start").click()
        second.get_by_text("Somebody else is talking to it").wait_for()
        assert second.get_by_role("button", name="Start").is_enabled()


def test_without_a_camera_it_says_so_and_listens(playwright: Playwright, chromium: Path) -> None:
    with serving(avatar(), FakeLooker()) as server:
        browser = launch(playwright, chromium)
        page = browser.new_page()
        complaints = watch(page)
        page.goto(server.address)
        page.get_by_role("button", name="Start").click()
        page.get_by_text("The camera was not").wait_for()
        assert complaints == []
        browser.close()


def test_the_page_opens_as_the_command_opens_it(playwright: Playwright, chromium: Path, tmp_path: Path) -> None:
    """By a page on the disk that leads there: what a browser is started with, everybody on the machine can read."""
    with serving(avatar(), FakeLooker()) as server:
        browser = launch(playwright, chromium)
        page = browser.new_page()
        page.goto(door(tmp_path, server.address).as_uri())
        page.get_by_role("button", name="Start").wait_for()
        assert page.url == server.address
        browser.close()


def test_the_page_of_another_origin_gets_nothing(playwright: Playwright, chromium: Path) -> None:
    """Even one that knows the address."""
    with serving(avatar(), FakeLooker()) as server:
        browser = launch(playwright, chromium)
        page = browser.new_page()
        page.goto("data:text/html,<title>somebody</title>")
        closed = page.evaluate(
            """(place) => new Promise((done) => {
              const socket = new WebSocket(place);
              socket.onclose = ({code}) => done(code);
              socket.onopen = () => done("open");
            })""",
            server.address.replace("http:", "ws:") + "session",
        )
        assert closed != "open"
        browser.close()

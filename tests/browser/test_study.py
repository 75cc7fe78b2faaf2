"""A study in a real browser: by keyboard and by mouse, with a break, to the file that is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.browser.conftest import one_of
from tests.browser.test_base import HOSTILE
from visavis.pipeline.page.study import design, told, write_study
from visavis.pipeline.page.votes import Key, Question, read_votes
from visavis.pipeline.view.encoding import film_writer

if TYPE_CHECKING:
    from playwright.sync_api import Page

SECRET, FRAMES = b"of a test", 30
IN_STEP = 0.040  # seconds
pytestmark = pytest.mark.slow


def film(path: Path, number: int) -> None:
    """A bar that runs over a picture, with a hum."""
    with film_writer(path) as put:
        for frame in range(FRAMES):
            picture = np.full((96, 192, 3), 40 + 20 * number, np.uint8)
            picture[:, frame * 6 : frame * 6 + 6] = 250
            t = np.arange(640) / 16000 + frame / 25
            put(picture, np.repeat(0.1 * np.sin(2 * np.pi * 220 * t)[None], 2, axis=0).astype(np.float32))


def make(folder: Path, *texts: str, trials: int = 3, title: str = "A study", note: str = "") -> Key:
    questions = [Question(code=f"own-{n}", text=text) for n, text in enumerate(texts or ("Which one listens?",))]
    windows = [f"{n:016x}-0-{n}" for n in range(trials)]
    key = design(
        windows, ("one", "two"), questions, checks=windows[:1], trials=trials, seed=0, ties=True, secret=SECRET,
        origin={},
    )  # fmt: skip
    write_study(folder, key, SECRET, lambda trial, clip, path: film(path, trial.clips.index(clip)), FRAMES, title, note)
    return key


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    folder = tmp_path_factory.mktemp("study") / "page"
    return folder / "index.html", make(folder, "Which one listens?", "Which one moves better?")


def begin(page: Page) -> None:
    page.click("#start")
    watched(page)


def watched(page: Page) -> None:
    """The clips have been played once. A page that was loaded again may not begin with sound by itself."""
    for _ in range(60):
        if page.locator("#questions button:enabled").count():
            return
        if page.locator("#play").text_content() == "Play":
            page.click("#play")
        page.wait_for_timeout(250)
    raise AssertionError("the clips do not play")


def test_a_whole_study(page: Page, study: tuple[Path, Key], tmp_path: Path) -> None:
    index, key = study
    page.goto(index.as_uri())
    assert page.locator("#count").text_content() == "4"
    begin(page)
    lefts = {}

    def seen() -> None:
        lefts[page.get_attribute("#left", "src")] = page.get_attribute("#right", "src")

    assert page.locator("#place").text_content() == "1 of 4"
    seen()
    page.keyboard.press("1")
    assert page.locator('[data-question="own-1"]').get_attribute("data-active") == ""  # the next question
    page.keyboard.press("0")
    assert page.locator("#place").text_content() == "2 of 4"
    page.keyboard.press("2")  # too early: nothing was watched yet
    watched(page)
    seen()
    page.keyboard.press("2")
    page.reload()  # in the middle of a trial
    assert page.locator("#place").text_content() == "2 of 4"
    assert page.locator('[data-answer="own-0 right"]').get_attribute("aria-pressed") == "true"
    watched(page)
    page.keyboard.press("1")
    watched(page)
    page.keyboard.press("ArrowLeft")  # back, to change one's mind
    assert page.locator("#place").text_content() == "2 of 4"
    page.click('[data-answer="own-0 same"]')
    assert page.locator("#place").text_content() == "3 of 4"
    watched(page)
    seen()
    page.click('[data-answer="own-0 left"]')
    page.click('[data-answer="own-1 right"]')
    watched(page)
    seen()
    page.click('[data-answer="own-1 right"]')
    with page.expect_download() as download:
        page.click('[data-answer="own-0 right"]')
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert page.locator("#done").is_visible()
    assert page.input_value("#text") == file.read_text()

    (ballot,) = read_votes([file], key)
    found = [(v.question, v.answer) for v in ballot.votes.votes]
    assert found == [
        *(("own-0", "left"), ("own-1", "same"), ("own-0", "same"), ("own-1", "left")),
        *(("own-0", "left"), ("own-1", "right"), ("own-0", "right"), ("own-1", "right")),
    ]
    assert {v.left for v in ballot.votes.votes} == {src.removeprefix("clips/")[:16] for src in lefts}
    assert all(v.plays >= 1 and v.seconds > 1 for v in ballot.votes.votes[:1])
    assert file.name == f"votes-{key.study}-{ballot.votes.person}.json"

    page.reload()
    assert page.locator("#done").is_visible()  # still there
    page.click("#again")
    with page.expect_download() as other:
        begin(page)
        page.click("#save")
    assert json.loads(Path(other.value.path()).read_text())["person"] != ballot.votes.person


def test_sides_are_those_of_the_sheet_and_orders_differ(page: Page, study: tuple[Path, Key]) -> None:
    index, key = study
    listed = told(key, SECRET, FRAMES)
    orders = set()
    for number in range(6):
        page.goto(f"{index.as_uri()}#sheet={number}")
        page.evaluate("localStorage.clear()")
        page.reload()
        page.click("#start")
        left = page.get_attribute("#left", "src").removeprefix("clips/").removesuffix(".mp4")
        at, trial = next((n, t) for n, t in enumerate(listed["trials"]) if left in t["clips"])
        assert left == trial["clips"][int(listed["sheets"][number][at])]
        orders.add(at)
    assert len(orders) > 1


def test_clips_stay_in_step(page: Page, study: tuple[Path, Key]) -> None:
    page.goto(study[0].as_uri())
    page.click("#start")

    def in_step() -> None:
        apart = []
        for _ in range(100):
            page.wait_for_timeout(40)
            left, right, runs = page.evaluate(
                "['left', 'right'].map((id) => document.getElementById(id).currentTime)"
                ".concat(['left', 'right'].every((id) => !document.getElementById(id).paused))"
            )
            if runs and left > 0.3:
                apart.append(abs(left - right))
        assert len(apart) > 15
        assert np.quantile(apart, 0.95) <= IN_STEP  # but for moments in which a busy machine stands still

    one_of(4, in_step)


def test_a_clip_that_is_broken_is_said(page: Page, tmp_path: Path) -> None:
    key = make(tmp_path / "page", trials=1)
    for clip in (tmp_path / "page" / "clips").iterdir():
        clip.write_bytes(b"no film")
    page.goto((tmp_path / "page" / "index.html").as_uri())
    page.click("#start")
    page.locator("#fault", has_text="cannot be played").wait_for()
    page.keyboard.press("1")
    assert page.locator("#place").text_content() == f"1 of {len(key.trials)}"  # and nobody votes on it


def test_what_texts_say_is_text(page: Page, tmp_path: Path) -> None:
    make(tmp_path / "page", HOSTILE, trials=1, title=HOSTILE, note=HOSTILE)
    page.goto((tmp_path / "page" / "index.html").as_uri())
    assert page.locator("#title").text_content() == HOSTILE
    assert page.locator(".study-note").text_content() == HOSTILE
    begin(page)
    assert page.locator("legend").text_content() == HOSTILE
    assert page.evaluate("typeof window.ran") == "undefined"


def test_any_question_is_text(page: Page, study: tuple[Path, Key]) -> None:
    """As `study.js` makes it: no letters end an element or an attribute."""
    page.goto(study[0].as_uri())
    parts = st.sampled_from(
        ["<", ">", '"', "'", "&", "</fieldset>", "<img src=x onerror=ran=1>", "{{", "-->", "\u2028"]
    )

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(st.lists(parts | st.text(), max_size=8).map("".join))
    def said(text: str) -> None:
        text = text.encode("utf-8", "replace").decode()
        shown = page.evaluate(
            "(text) => {const made = visavis.el('legend', {title: text}, text); document.body.append(made);"
            " const found = [made.textContent, made.getAttribute('title'), made.children.length]; made.remove();"
            " return found;}",
            text,
        )
        assert shown == [text, text, 0]
        assert page.evaluate("typeof window.ran") == "undefined"

    said()


def test_nothing_in_the_folder_tells_systems_apart(study: tuple[Path, Key]) -> None:
    """Not names, sizes, lengths or times of files, nor the words of the page."""
    index, key = study
    for trial in key.trials:
        one, two = (index.parent / "clips" / f"{clip.code}.mp4" for clip in trial.clips)
        assert one.stat().st_size == two.stat().st_size
    assert len({path.stat().st_mtime for path in index.parent.rglob("*")}) == 1
    said = index.read_text()
    for word in ('"one"', '"two"', "recorded", "jumbled", *(trial.window for trial in key.trials)):
        assert word not in said
    assert not list(index.parent.rglob("*key*"))

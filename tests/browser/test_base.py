"""Pages of the base: they open by double click, nothing in them runs but our scripts, whatever data says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import ChoiceLoader, DictLoader

from visavis.pipeline.page import base
from visavis.pipeline.page.base import embedded, templates, write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = (
    """</script><script>window.ran=1</script><img src=x onerror="window.ran=1">"""
    """'"{{ 7*7 }}&lt;\u2028--><svg/onload=ran=1>"""
)
TEMPLATE = """{% extends "base.html" %}{% block main %}
<p id="said" title="{{ said }}">{{ said }}</p>
<script type="application/json" id="data">{{ [said] | embedded }}</script>{% endblock %}"""


@pytest.fixture
def template(monkeypatch: pytest.MonkeyPatch) -> str:
    found = templates()
    monkeypatch.setattr(found, "loader", ChoiceLoader([DictLoader({"test.html": TEMPLATE}), found.loader]))
    return "test.html"


@pytest.mark.slow
def test_what_data_says_is_text(page: Page, tmp_path: Path, template: str) -> None:
    write_page(tmp_path, "index.html", template, ["vendor/uPlot.iife.min.js"], title=HOSTILE, said=HOSTILE)
    page.goto((tmp_path / "index.html").as_uri())
    assert page.title().startswith("</script><script>window.ran=1</script>")
    assert page.locator("#said").text_content() == HOSTILE
    assert page.locator("#said").get_attribute("title") == HOSTILE
    assert page.evaluate("visavis.data('data')") == [HOSTILE]
    assert page.evaluate("typeof uPlot") == "function"  # our scripts run, from a disk
    assert page.evaluate("typeof window.ran") == "undefined"


@pytest.mark.slow
def test_a_script_that_is_none_of_ours_does_not_run(browser: Browser, tmp_path: Path, template: str) -> None:
    """The second wall, should a template ever let something through."""
    write_page(tmp_path, "index.html", template, [], title="a", said="b")
    written = (tmp_path / "index.html").read_text()
    (tmp_path / "index.html").write_text(written.replace("</main>", "<script>window.ran=1</script></main>"))
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert page.evaluate("typeof window.ran") == "undefined"
    page.close()


@pytest.mark.slow
def test_data_beside_the_page_is_loaded_when_it_is_wanted(page: Page, tmp_path: Path, template: str) -> None:
    write_page(tmp_path, "index.html", template, [], title="a", said="b")
    (tmp_path / "part.js").write_text(f'visavis.put("part", {embedded({"said": HOSTILE})})')
    page.goto((tmp_path / "index.html").as_uri())
    assert page.evaluate("visavis.load('part.js', 'part')") == {"said": HOSTILE}


@given(st.recursive(st.text() | st.integers(-(2**50), 2**50) | st.booleans(), lambda part: st.lists(part)))
def test_embedded_data_comes_back_and_ends_no_element(value: object) -> None:
    text = str(embedded(value))
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_numbers_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embedded([float("nan")])


def test_no_script_of_ours_makes_markup_of_text() -> None:
    """`textContent` and elements only; and no address of anybody."""
    folder = Path(base.__file__).parent / "static"
    for script in folder.glob("*.js"):
        said = script.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http"):
            assert word not in said, f"{script.name}: {word}"

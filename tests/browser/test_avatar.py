"""The renderer in the browser: the same face as Python draws, whatever moves it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from jinja2 import ChoiceLoader, DictLoader
from PIL import Image

from tests.view.faces import codec, motion, neutral_face, portrait
from visavis.pipeline.page.base import templates, write_page
from visavis.pipeline.view.avatar import BLUE, Avatar
from visavis.pipeline.view.puppet import Puppet, puppet_json

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZE = 512
LOOK = {"colour": f"rgb{BLUE}", "paper": "#ffffff"}
TEMPLATE = """{% extends "base.html" %}{% block main %}
<canvas id="face" width="512" height="512"></canvas>
<script type="application/json" id="puppet">{{ puppet | embedded }}</script>{% endblock %}"""
MOVED = motion(yaw=0.35, pitch=0.1, roll=-0.1, x=0.1, y=-0.05, size=0.1, open=1.2, blink=0.7, smile=1)
PUPPETS = {"portrait": Puppet.carrying(codec(), portrait()), "mesh": Puppet.of(codec(), neutral_face())}

pytestmark = pytest.mark.slow


def shown(page: Page, folder: Path, monkeypatch: pytest.MonkeyPatch, puppet: Puppet) -> None:
    """A page with this face; `window.avatar` draws it."""
    monkeypatch.setattr(templates(), "loader", ChoiceLoader([DictLoader({"face.html": TEMPLATE}), templates().loader]))
    write_page(folder, "index.html", "face.html", ["avatar.js"], title="face", puppet=puppet_json(puppet))
    page.goto((folder / "index.html").as_uri())
    make = """async (look) => {
      window.avatar = visavis.avatar(document.getElementById("face"), visavis.data("puppet"), look);
      await avatar.ready;
    }"""
    page.evaluate(make, LOOK)


def drawn(page: Page, motion_D: np.ndarray) -> np.ndarray:
    assert page.evaluate("motion => avatar.draw(Float32Array.from(motion))", motion_D.tolist())
    address = page.evaluate("document.getElementById('face').toDataURL('image/png')")
    data = base64.b64decode(address.partition(",")[2])
    canvas = Image.open(io.BytesIO(data)).convert("RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", canvas.size, "white"), canvas).convert("RGB")).astype(int)


@pytest.mark.parametrize("kind", ["portrait", "mesh"])
def test_the_browser_draws_what_python_draws(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    puppet = PUPPETS[kind]
    shown(page, tmp_path, monkeypatch, puppet)
    for motion_TD in (motion(), MOVED, motion(yaw=-0.5, x=-0.3), motion(x=9, yaw=2, size=3)):
        ours = Avatar(puppet).draw(puppet.points(motion_TD)[0], SIZE).astype(int)
        theirs = drawn(page, motion_TD[0])
        assert np.abs(ours - theirs).mean() < 4
        mine, other = (np.abs(picture - (255, 255, 255)).max(axis=2) > 8 for picture in (ours, theirs))
        assert (mine & other).sum() >= 0.97 * (mine | other).sum()  # silhouettes
    moved, rest = drawn(page, MOVED[0]), drawn(page, motion()[0])
    assert np.abs(moved - rest).mean() > 4  # it would be no news if nothing moved


def test_points_are_decoded_as_in_python(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    puppet = PUPPETS["portrait"]
    shown(page, tmp_path, monkeypatch, puppet)
    theirs = page.evaluate("motion => [...avatar.points(motion)]", MOVED[0].tolist())
    assert np.abs(np.reshape(theirs, (478, 3)) - puppet.points(MOVED)[0]).max() * 0.6 * SIZE < 0.5  # pixels


def test_a_frame_that_is_not_finite_leaves_the_face_as_it_is(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown(page, tmp_path, monkeypatch, PUPPETS["mesh"])
    before = drawn(page, MOVED[0])
    refused: Any = page.evaluate("avatar.draw(Float32Array.from([NaN, 0, 0, 0, 0, 0, 0, 0, 0]))")
    assert refused is False
    again: Any = page.evaluate("avatar.drawLandmarks(Float32Array.from([1, 2, 3]))")
    assert again is False
    assert np.array_equal(drawn(page, MOVED[0]), before)

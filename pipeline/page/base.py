"""How a page is written: templates that escape, data that cannot run, scripts that lie beside the page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def policy(own: str, calls: str = "") -> str:
    """No inline script, and nobody is called but `calls`. own: whose scripts, styles and media may be loaded."""
    called = f" connect-src {calls};" if calls else ""
    return (
        f"default-src 'none'; script-src {own}; style-src {own}; img-src {own} data: blob:; media-src {own} blob:;"
        f"{called} base-uri 'none'; form-action 'none'"
    )


POLICY = policy("'self' file:")
"""Of pages that are opened from a disk."""

_STATIC = files("visavis.pipeline.page").joinpath("static")
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


@cache
def templates() -> Environment:
    """Of the package `visavis.pipeline.page`; what they print is escaped, and a name that is not given is an error.

    A template extends `base.html`, whose variables are `title`, `policy`, `styles` and `scripts` (paths beside it).
    """
    made = Environment(
        loader=PackageLoader("visavis.pipeline.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["embedded"] = embedded
    return made


def embedded(value: Any) -> Markup:
    """JSON that may stand in a page, `<script type="application/json">{{ value | embedded }}</script>`, or in a script.

    No text in it can end the element that it stands in.

    Raises:
        ValueError: a number that is not finite, which no JSON has.
    """
    return Markup(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_UNSAFE))  # noqa: S704 — escaped above


def static(name: str) -> bytes:
    """A file of `static`."""
    return _STATIC.joinpath(name).read_bytes()


def page_text(template: str, policy: str, parts: Iterable[str], **values: Any) -> str:
    """A page whose scripts and styles lie under `static/`. values: of the template, beside those of `base.html`."""
    wanted = [f"static/{part}" for part in parts]
    return (
        templates()
        .get_template(template)
        .render(
            policy=policy,
            styles=[part for part in wanted if part.endswith(".css")],
            scripts=[part for part in wanted if part.endswith(".js")],
            **values,
        )
    )


def write_page(folder: Path, name: str, template: str, parts: Iterable[str], **values: Any) -> None:
    """A page and the parts of `static` that it names, which are written beside it under `static/`.

    Args:
        parts: scripts (.js) and styles (.css), in the order in which the page loads them, after `page.js` and
            `page.css`; other names are written and not loaded (licences).
        values: see `page_text`.
    """
    wanted = ["page.css", "page.js", *parts]
    for part in wanted:
        place = folder / "static" / part
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(static(part))
    (folder / name).write_text(page_text(template, POLICY, wanted, **values), encoding="utf-8")

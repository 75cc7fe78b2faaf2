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

POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data: blob:; "
    "media-src 'self' file: blob:; base-uri 'none'; form-action 'none'"
)
"""Of pages that are opened from a disk: no inline script, nobody is called."""

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


def write_page(folder: Path, name: str, template: str, parts: Iterable[str], **values: Any) -> None:
    """A page and the parts of `static` that it names, which are written beside it under `static/`.

    Args:
        parts: scripts (.js) and styles (.css), in the order in which the page loads them, after `page.js` and
            `page.css`; other names are written and not loaded (licences).
        values: of the template, beside those of `base.html`.
    """
    wanted = ["page.css", "page.js", *parts]
    for part in wanted:
        place = folder / "static" / part
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(static(part))
    text = (
        templates()
        .get_template(template)
        .render(
            policy=POLICY,
            styles=[f"static/{part}" for part in wanted if part.endswith(".css")],
            scripts=[f"static/{part}" for part in wanted if part.endswith(".js")],
            **values,
        )
    )
    (folder / name).write_text(text, encoding="utf-8")

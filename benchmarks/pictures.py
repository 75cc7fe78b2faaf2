"""What becomes of the pictures of a real clip: other rates, freezes, copies of one person; wanted and got.

    python -m benchmarks.pictures [--media ../shared/media] [--clips interview two_in_frame] [rates] [freezes] [copies]

rates     the clip with so many pictures a second, each the last that was shown by then; "held": the same pictures again
          and again in a file of a higher rate, coded anew
freezes   all stands still for a while, or one half does
copies    one person again and again: mirrored, late, small, grey, as a grid; with the other person, or without

The pictures go through ingest, faces and cast; then the thresholds of `quality` say yes or no. `fresh` and `visible`
are the worse person's, `kept` the seconds that show both.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.binding import SIBLING, Stages
from benchmarks.recuts import Footage, framed, real_footage, view, write
from visavis.pipeline.plan.quality import faults
from visavis.schemas import FPS
from visavis.schemas.config import QualityConfig
from visavis.schemas.errors import Rejected
from visavis.schemas.face_rows import CastFacts
from visavis.schemas.rows import Source
from visavis.stages.cast import CastInput
from visavis.stages.faces import pieces_of
from visavis.stages.ingest import outline_of

PLAIN_RATES = ("6", "8", "10", "12", "15", "18", "20", "24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60")
HELD = ((6, 25), (8, 30), (10, 30), (12, 25), (15, 30), (15, 60), (18, 25), (24, 30), (24, 60), (25, 50), (25, 30))
LEAST = 20  # pictures a second
LONGEST = 6  # seconds


class Case(NamedTuple):
    """wanted: `ok` or `rejected`. pictures: how they come, at this rate."""

    name: str
    wanted: str
    rate: Fraction
    pictures: Callable[[], Iterator[np.ndarray]]


def rates(footage: Footage) -> Iterator[Case]:
    """From the file itself, whose pictures are 24 or 25 a second: above that, pictures come again."""
    shown = footage.pictures
    seconds = len(shown) / FPS

    def at(rate: Fraction, held: Fraction) -> Iterator[np.ndarray]:
        for n in range(int(seconds * rate)):
            moment = float(int(n / rate * held + 1e-9) / held)
            yield shown[min(len(shown) - 1, int(moment * FPS + 1e-9))]

    for text in PLAIN_RATES:
        rate = Fraction(text)
        wanted = "ok" if rate >= LEAST else "rejected"
        yield Case(f"{float(rate):g} a second", wanted, rate, partial(at, rate, rate))
    for held, in_file in HELD:
        wanted = "ok" if held >= LEAST else "rejected"
        yield Case(
            f"{held} held in {in_file}", wanted, Fraction(in_file), partial(at, Fraction(in_file), Fraction(held))
        )


def freezes(footage: Footage) -> Iterator[Case]:
    shown, frames = footage.pictures, len(footage.pictures)
    middle, half = frames // 2, footage.pictures[0].shape[1] // 2

    def half_from(first: int, left: bool) -> Iterator[np.ndarray]:
        side = np.s_[:, :half] if left else np.s_[:, half:]
        for n, picture in enumerate(shown):
            now = picture.copy()
            now[side] = shown[min(n, first)][side]
            yield now

    def still(first: int, last: int) -> Iterator[np.ndarray]:
        return (shown[first if first <= n < last else n] for n in range(frames))

    def by_turns(length: int) -> Iterator[np.ndarray]:
        return (shown[n if n % (2 * length) < length else n - n % length] for n in range(frames))

    cases: dict[str, tuple[str, Callable[[], Iterator[np.ndarray]]]] = {
        "left half all the time": ("rejected", lambda: half_from(0, True)),
        "right half all the time": ("rejected", lambda: half_from(0, False)),
        "1 s in the middle": ("ok", lambda: still(middle, middle + FPS)),
        "2 s in the middle": ("ok", lambda: still(middle, middle + 2 * FPS)),
        "half of the time": ("ok", lambda: still(middle, frames)),
        "all but 2 s": ("rejected", lambda: still(2 * FPS, frames)),
        "every other second": ("rejected", lambda: by_turns(FPS)),
        "every other half second": ("rejected", lambda: by_turns(FPS // 2)),
    }
    for name, (wanted, pictures) in cases.items():
        yield Case(f"still: {name}", wanted, Fraction(FPS), pictures)


def copies(footage: Footage) -> Iterator[Case]:
    """A is never to be taken for two people; where B is there as well, A and B are."""
    for me, other in ("ab", "ba"):
        for trick in ("mirrored", "late", "later", "small", "grey"):
            yield _panels(footage, f"{me}, {trick} {me}", "rejected", [[me, f"{me} {trick}"]])
        yield _panels(footage, f"grid of four {me}", "rejected", [[me, f"{me} mirrored"], [f"{me} late", f"{me} grey"]])
        yield _panels(footage, f"{me}, late {me}, {other}", "ok", [[me, f"{me} late", other]])
        many = [[me, f"{me} mirrored", other], [f"{me} late", f"{me} small", f"{me} grey"]]
        yield _panels(footage, f"five {me} and {other}", "ok", many)


def _panels(footage: Footage, name: str, wanted: str, cells: list[list[str]]) -> Case:
    """cells: rows of "who" or "who how"."""

    def pictures() -> Iterator[np.ndarray]:
        for n in range(len(footage.pictures)):
            yield np.vstack([np.hstack([_panel(footage, n, *cell.split()) for cell in row]) for row in cells])

    return Case(name, wanted, Fraction(FPS), pictures)


def _panel(footage: Footage, n: int, who: str, how: str = "") -> np.ndarray:
    """Half as high and wide as the clip."""
    height, width = (side // 4 * 2 for side in footage.pictures[0].shape[:2])
    shown = footage.pictures[max(0, n - {"late": FPS // 2, "later": 2 * FPS}.get(how, 0))]
    picture = cv2.resize(view(shown, footage.views()[f"medium_{who}"]), (width, height), interpolation=cv2.INTER_AREA)
    if how == "mirrored":
        picture = picture[:, ::-1]
    if how == "grey":
        picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return framed(picture, 0.6) if how == "small" else picture


PARTS: dict[str, Callable[[Footage], Iterator[Case]]] = {"rates": rates, "freezes": freezes, "copies": copies}


class Table:
    def __init__(self, scratch: Path) -> None:
        self.scratch, self.stages = scratch, Stages()

    def row(self, case: Case, footage: Footage) -> tuple[bool, str]:
        """(as wanted, the line)."""
        path = self.scratch / "case.mp4"
        write(path, case.pictures(), footage.audio, case.rate)
        got, figures = self._got(path)
        fits = (got == "ok") == (case.wanted == "ok")
        return fits, f"  {case.name:28} wanted {case.wanted:9} {' ' if fits else '!'} {got:18} {figures}"

    def _got(self, path: Path) -> tuple[str, str]:
        try:
            [conversation] = self.stages.ingest.process(Source(uris=(str(path),)))
            pieces = pieces_of(outline_of(conversation), (str(path),), self.stages.faces.config)
            faces = tuple(row for piece in pieces for row in self.stages.faces.process(piece))
            [cast] = self.stages.cast.process(CastInput(conversation=conversation, faces=faces))
        except Rejected as rejected:
            return rejected.reason.value, ""
        facts = CastFacts.model_validate_json(self.stages.cast.facts([cast]))
        found = next(faults(facts, ("left", "right"), QualityConfig()), None)
        visible = min(member.figures.visible for member in cast.members)
        figures = f"fresh {min(m.fresh for m in cast.members):.2f} visible {visible:.2f} kept {cast.together:.1f}"
        return found[0].value if found else "ok", figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--media", type=Path, default=SIBLING)
    parser.add_argument("--clips", nargs="+", default=["interview", "two_in_frame"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visavis-pictures-") as scratch:
        table = Table(Path(scratch))
        for footage in real_footage(options.media):
            if footage.name not in options.clips:
                continue
            short = replace(footage, pictures=footage.pictures[: LONGEST * FPS])
            for part in options.parts:
                print(f"\n{part} {footage.name}")
                fits = []
                for case in PARTS[part](short):
                    fit, line = table.row(case, short)
                    fits.append(fit)
                    print(line, flush=True)
                print(f"  as wanted {sum(fits)} of {len(fits)}", flush=True)


if __name__ == "__main__":
    main()

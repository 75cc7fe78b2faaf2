"""Real clips cut anew, slowed, frozen and copied, with what became of them beside each.

    python -m benchmarks.recuts FOLDER [--media FOLDER] [--dialogues FOLDER]

recuts  wide, close-up of one, close-up of the other, and wider or crossed views, 2 to 5 s each; zooms and pans; halves
        that freeze. `<clip>.cuts.json`: each shot's first and last second, and where in it the faces of A (left in the
        source) and B are, as shares of width and height (null: out of the picture)
rates   the same moments in 6 to 20 pictures a second, with that rate in the file or repeated to 25
listeners  single turns: a monologue with a real listener
copies  one person several times, mirrored, late, small, grey, beside the other person or instead

From the clips of the media folder, and from rendered dialogues in one frame (`benchmarks.exchanges`), whose turns are
known.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from scipy.signal import resample_poly

from benchmarks.diarization import SIBLING, read_rttm
from benchmarks.exchanges import Truth, read_truths
from benchmarks.processes import say
from visavis.pipeline.demo.dialogue import AUDIO_RATE
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import read_audio

RATES = (6, 10, 12, 15, 20)
HEIGHT = 540  # pixels; larger pictures are shrunk to it


class View(NamedTuple):
    """A part of the picture in its own aspect: centre and width, shares of the whole."""

    x: float
    y: float
    width: float


WIDE = View(0.5, 0.5, 1.0)


@dataclass(frozen=True)
class Footage:
    """A clip of A (left) and B, in memory. faces: centres of both, shares. close: width of a close-up."""

    name: str
    pictures: list[np.ndarray]
    audio: np.ndarray
    faces: tuple[tuple[float, float], tuple[float, float]]
    close: float
    turns: tuple[Turn, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.pictures) / FPS

    def views(self) -> dict[str, View]:
        """By name: `a` and `b` are close, `medium` wider and off centre, `tight` a picture that still has both."""
        (ax, ay), (bx, by) = self.faces
        return {
            "wide": WIDE,
            "a": View(ax, ay + 0.03, self.close),
            "b": View(bx, by + 0.03, self.close),
            "medium_a": View(ax + 0.03, ay + 0.06, 1.25 * self.close),
            "medium_b": View(bx - 0.03, by + 0.06, 1.25 * self.close),
            "tight": View((ax + bx) / 2, (ay + by) / 2 + 0.02, min(1.0, abs(bx - ax) + 0.36)),
        }


class Shot(NamedTuple):
    """Some seconds from one view, or from a view to another; crossed: from the other side, left and right swapped."""

    seconds: float
    view: str
    until: str | None = None
    crossed: bool = False


EDITS: dict[str, tuple[Shot, ...]] = {
    "alternating": tuple(
        Shot(s, v) for s, v in ((3, "wide"), (2.6, "a"), (2.4, "b"), (3, "wide"), (2, "b"), (2.2, "a"))
    ),
    "mostly_close": tuple(Shot(s, v) for s, v in ((2.4, "a"), (2.6, "b"), (2.2, "medium_a"), (2, "b"), (3, "wide"))),
    "reverse": (Shot(3, "wide"), Shot(2.4, "medium_b"), Shot(2.4, "medium_a"), Shot(3, "wide", crossed=True)),
    "crossed_close": (Shot(3, "wide"), Shot(2.4, "a", crossed=True), Shot(2.4, "b", crossed=True)),
    "two_sizes": (Shot(3.2, "wide"), Shot(3.2, "tight")),
    "half_wide": (Shot(4.3, "wide"), Shot(2.2, "a"), Shot(1.6, "b")),  # 53 % show both
    "zooms": (Shot(4, "wide", "tight"), Shot(4, "tight", "wide")),
    "one_zoom": (Shot(60, "wide", "tight"),),
    "pans": (Shot(3, "a", "b"), Shot(3, "b", "a")),
}
"""Repeated from the start until the clip ends; a zoom that is followed from where it ended makes no cut."""

Film = Iterator[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with conversation/")
    parser.add_argument("--dialogues", type=Path, help="folder of rendered dialogues in one frame, to be cut as well")
    options = parser.parse_args()
    for footage in real_footage(options.media):
        edit(footage, options.folder / "recuts", list(EDITS))
        freeze(footage, options.folder / "recuts")
        single_out(footage, options.folder / "listeners")
        change_rates(footage, options.folder / "rates")
        copy(footage, options.folder / "copies")
    for footage in rendered_footage(options.dialogues) if options.dialogues else ():
        edit(footage, options.folder / "recuts", list(EDITS))


def real_footage(media: Path) -> Iterator[Footage]:
    """The clips with two people in one picture. Faces' places were read off the pictures."""
    folder = media / "conversation"
    yield read_footage(folder / "interview.mp4", ((0.31, 0.30), (0.695, 0.29)), 0.37)
    [labels] = read_rttm(folder / "two_in_frame.rttm").values()
    turns = tuple(Turn(speaker=int("left" not in who), start=start, end=end) for start, end, who in labels)
    yield read_footage(folder / "two_in_frame.mp4", ((0.27, 0.40), (0.82, 0.34)), 0.46, turns)


def rendered_footage(folder: Path) -> Iterator[Footage]:
    """Long ones, of which an editor would make something."""
    for truth in read_truths(folder):
        if truth.seconds > 15:
            yield read_footage(folder / truth.files[0], ((0.25, 0.45), (0.75, 0.45)), 0.58, truth.turns)


def read_footage(
    path: Path, faces: tuple[tuple[float, float], tuple[float, float]], close: float, turns: tuple[Turn, ...] = ()
) -> Footage:
    """On a grid of 25 pictures a second, each the last that was shown by then."""
    pictures: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="rgb24")
            scale = min(1.0, HEIGHT / picture.shape[0])
            size = tuple(round(side * scale / 2) * 2 for side in picture.shape[1::-1])
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            last = round((frame.time or 0.0) * FPS)
            pictures += [pictures[-1] if pictures else picture] * (last - len(pictures)) + [picture]
    return Footage(path.stem, pictures, read_audio(str(path), len(pictures)), faces, close, turns)


def edit(footage: Footage, folder: Path, names: Sequence[str]) -> None:
    """Cut it in each of the ways."""
    for name in names:
        shots = [*_spans(EDITS[name], footage.seconds)]
        cuts = [_noted(footage, *span) for span in shots]
        clip = f"{footage.name}-{name}"
        if not _save(folder, clip, _cut(footage, shots), footage, "ok", name):
            continue
        (folder / f"{clip}.cuts.json").write_text(json.dumps(cuts, indent=1) + "\n")


def single_out(footage: Footage, folder: Path) -> None:
    """Each longer turn alone: a real monologue, and a real listener in view."""
    for turn in footage.turns:
        first, last = round(turn.start * FPS), round(turn.end * FPS)
        if last - first > 4 * FPS:
            part = replace(
                footage,
                pictures=footage.pictures[first:last],
                audio=footage.audio[round(turn.start * SAMPLE_RATE) : round(turn.end * SAMPLE_RATE)],
            )
            name = f"{footage.name}-only_{'ab'[turn.speaker]}"
            _save(folder, name, iter(part.pictures), part, "rejected", "one of the two speaks")


def freeze(footage: Footage, folder: Path) -> None:
    """Halves of the picture, and spans of the whole, in which nothing moves."""
    pictures, half = footage.pictures, footage.pictures[0].shape[1] // 2

    def half_from(first: int, left: bool) -> Film:
        side = np.s_[:, :half] if left else np.s_[:, half:]
        for number, picture in enumerate(pictures):
            shown = picture.copy()
            shown[side] = pictures[min(number, first)][side]
            yield shown

    middle = len(pictures) // 2
    _save(folder, f"{footage.name}-left_frozen", half_from(0, True), footage, "rejected", "left half still")
    _save(folder, f"{footage.name}-right_freezes", half_from(middle, False), footage, "ok", "right from half on")
    held = [pictures[n if n % (2 * FPS) < FPS else n - n % FPS] for n in range(len(pictures))]
    _save(folder, f"{footage.name}-every_other_second", iter(held), footage, "rejected", "1 s of 2 stands still")
    ends = pictures[:middle] + [pictures[middle]] * (len(pictures) - middle)
    _save(folder, f"{footage.name}-freezes", iter(ends), footage, "ok", "stands still from half on")


def change_rates(footage: Footage, folder: Path) -> None:
    """Fewer pictures a second, as the file says or hidden under 25."""
    for rate in RATES:
        count = int(footage.seconds * rate)
        chosen = [footage.pictures[int(n * FPS / rate)] for n in range(count)]
        held = [chosen[min(count - 1, int(n * rate / FPS))] for n in range(len(footage.pictures))]
        expected = "ok" if rate >= 20 else "rejected"
        _save(folder, f"{footage.name}-{rate:02d}fps", iter(chosen), footage, expected, f"{rate}", rate)
        _save(folder, f"{footage.name}-{rate:02d}in25", iter(held), footage, expected, f"{rate} held in 25")


def copy(footage: Footage, folder: Path) -> None:
    """A and its copies, with B (a dialogue of A and B) and without (nobody's)."""
    pictures, delay = footage.pictures, round(0.5 * FPS)
    height, width = pictures[0].shape[:2]
    halves: dict[str, Callable[[int], np.ndarray]] = {
        "a": lambda n: view(pictures[n], footage.views()["medium_a"]),
        "b": lambda n: view(pictures[n], footage.views()["medium_b"]),
    }
    tricks: dict[str, Callable[[Callable[[int], np.ndarray], int], np.ndarray]] = {
        "mirrored": lambda of, n: of(n)[:, ::-1],
        "late": lambda of, n: of(max(0, n - delay)),
        "late_mirrored": lambda of, n: of(max(0, n - delay))[:, ::-1],
        "smaller": lambda of, n: framed(of(n), 0.6),
        "grey": lambda of, n: np.repeat(cv2.cvtColor(of(n), cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
        "closer": lambda of, n: view(of(n), View(0.5, 0.48, 0.8)),
    }
    panel = (width // 2 // 2 * 2, height // 2 // 2 * 2)

    def row(*shown: np.ndarray) -> np.ndarray:
        return np.hstack([cv2.resize(np.ascontiguousarray(p), panel, interpolation=cv2.INTER_AREA) for p in shown])

    for trick, turned in tricks.items():
        for me, other in (("a", "b"), ("b", "a")):
            alone = (row(halves[me](n), turned(halves[me], n)) for n in range(len(pictures)))
            both = (row(halves[me](n), turned(halves[me], n), halves[other](n)) for n in range(len(pictures)))
            _save(folder, f"{footage.name}-{me}_{trick}", alone, footage, "rejected", "one person twice")
            if me == "a":
                _save(folder, f"{footage.name}-{me}_{trick}_b", both, footage, "ok", "A, copy of A, B")
    small = (_with_inset(p, halves["a"](n)) for n, p in enumerate(pictures))
    _save(folder, f"{footage.name}-inset", small, footage, "ok", "A and B, and A small in a corner")


def _save(folder: Path, name: str, film: Film, footage: Footage, expected: str, note: str, rate: int = FPS) -> bool:
    """Write a clip and its truth, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / f"{name}.truth.json").exists():
        return False
    write(folder / f"{name}.mp4", film, footage.audio, rate)
    turns = footage.turns if expected == "ok" else ()
    Truth(name, folder.name, (f"{name}.mp4",), expected, turns, footage.seconds, (), note).write(folder)
    say(f"{folder.name}/{name}")
    return True


def write(path: Path, pictures: Film, audio: np.ndarray, rate: int | Fraction) -> None:
    """Like the demo's, at any rate."""
    part = path.with_name(f".{path.name}")
    with av.open(str(part), "w", format="mp4") as container:
        first = next(pictures)
        video = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
        video.height, video.width, video.pix_fmt = *first.shape[:2], "yuv420p"
        sound = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        samples = resample_poly(audio, AUDIO_RATE // SAMPLE_RATE, 1).astype(np.float32)
        for number, picture in enumerate([first, *pictures]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(video.encode(frame))
            start, end = (int(n * AUDIO_RATE / rate) for n in (number, number + 1))
            piece = av.AudioFrame.from_ndarray(samples[None, start:end], format="fltp", layout="mono")
            piece.sample_rate, piece.pts, piece.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
            container.mux(sound.encode(piece))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    part.replace(path)


def _spans(shots: Sequence[Shot], seconds: float) -> Iterator[tuple[int, int, Shot]]:
    """(first frame, last frame exclusive, shot) until the end."""
    first, frames = 0, round(seconds * FPS)
    for shot in cycle(shots):
        last = min(frames, first + round(shot.seconds * FPS))
        if last - first > FPS // 2 or last < frames:
            yield first, last, shot
        first = last
        if first >= frames:
            return


def _cut(footage: Footage, spans: Sequence[tuple[int, int, Shot]]) -> Film:
    for first, last, shot in spans:
        for number in range(first, last):
            picture = view(footage.pictures[number], _seen(footage, shot, (number - first) / (last - first)))
            yield picture[:, ::-1] if shot.crossed else picture


def _seen(footage: Footage, shot: Shot, share: float) -> View:
    views = footage.views()
    start, end = views[shot.view], views[shot.until or shot.view]
    return View(*(a + share * (b - a) for a, b in zip(start, end, strict=True)))


def _noted(footage: Footage, first: int, last: int, shot: Shot) -> dict[str, object]:
    noted: dict[str, object] = {"start": first / FPS, "end": last / FPS, "shot": shot.view, "until": shot.until}
    x0, y0, width = corner(_seen(footage, shot, 0.5))
    for name, (x, y) in zip("AB", footage.faces, strict=True):
        at = [(x - x0) / width, (y - y0) / width]
        at[0] = 1 - at[0] if shot.crossed else at[0]
        inside = all(0.06 < share < 0.94 for share in at)
        noted[name] = [round(share, 3) for share in at] if inside or shot.until else None
    return noted


def corner(part: View) -> tuple[float, float, float]:
    """Left, top and size of the part, moved into the picture."""
    x, y = (min(max(0.0, centre - part.width / 2), 1.0 - part.width) for centre in (part.x, part.y))
    return x, y, part.width


def view(picture: np.ndarray, part: View) -> np.ndarray:
    """That part, as large as the whole."""
    height, width = picture.shape[:2]
    x, y, size = corner(part)
    to = np.array([[1 / size, 0, -x * width / size], [0, 1 / size, -y * height / size]])
    shown = cv2.warpAffine(picture, to, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shown)


def framed(picture: np.ndarray, share: float) -> np.ndarray:
    """The picture, smaller, on grey."""
    height, width = picture.shape[:2]
    out = np.full_like(picture, 90)
    small = cv2.resize(picture, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)
    y, x = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def _with_inset(picture: np.ndarray, small: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    out, size = picture.copy(), (width // 4, height // 4)
    out[-size[1] - 8 : -8, -size[0] - 8 : -8] = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    return out


if __name__ == "__main__":
    main()

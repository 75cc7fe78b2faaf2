"""Films cut anew by chance: who is who, what is kept, and what the cuts do to windows and motion.

    python -m benchmarks.edits [--media FOLDER] [--dialogues FOLDER] [--seeds 1 2 3] [--kinds hard reverse …]

Cuts, zooms and the order of shots are drawn anew for each seed. Kinds:

hard      wide, tight and close shots of 1.2 to 4 s
reverse   so too, and every other shot from the other side: left and right swapped
fades     so too, gone over into each other within 0.4 to 0.9 s
jumps     the wide shot only, nearer or not, with 0.3 to 1 s left out at each cut, as interviews are cut
close     close-ups only: the two are never seen at once, so nothing says for certain that there are two

Columns: people found; seen: seconds of both faces that somebody has who is one of the first two; right: of these, in
the hands of whoever has most of that face; lost: seconds in view that neither of the first two has; mixed: seconds of
the wrong face; kept: seconds with both in view, without a cut; windows, and those across a cut; offset: by how much
place and size of a head differ between wide and tight shots in the median, nan without both; jump: the largest step
within a window, and the largest in the clip as it was. Face widths or logarithm of the size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.diarization import SIBLING
from benchmarks.recuts import WIDE, Footage, View, corner, read_footage, real_footage, rendered_footage, view, write
from benchmarks.shots import codec_of, conversation_of, motion_of, row_of
from visavis.schemas import FPS
from visavis.schemas.config import FacesConfig
from visavis.schemas.dyads import Codec, Motion
from visavis.schemas.errors import Rejected
from visavis.schemas.face_rows import Cast, FaceTracks
from visavis.schemas.windows_config import WindowsConfig
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.face.people import Person, scenes_of
from visavis.stages.faces import FacesStage
from visavis.stages.windows import starts

KINDS = ("hard", "reverse", "fades", "jumps", "close")
LONGEST = 12  # seconds of a clip


class Take(NamedTuple):
    """Frames `first` … `last` − 1 of the source in one shot; fade: frames in which the shot before is left."""

    first: int
    last: int
    view: View
    crossed: bool
    fade: int


class Shown(NamedTuple):
    """Where frame n comes from."""

    take: Take
    source: int


def drawn(footage: Footage, kind: str, rng: np.random.Generator) -> list[Take]:
    """The shots of one edit."""
    frames, at, takes, before = min(len(footage.pictures), LONGEST * FPS), 0, list[Take](), ""
    order = [
        name for name in ("both", "a", "b", "both", "tight") if (kind == "close") == (name in "ab") or kind != "close"
    ]
    while frames - at > FPS:
        last = min(frames, at + round(rng.uniform(1.2, 4.0) * FPS))
        # Hard cuts and fades go to another view: from a view to itself there would be none.
        names = ["both", "tight"] if kind == "jumps" else [name for name in order if name != before]
        name = ("ab"[len(takes) % 2]) if kind == "close" else names[int(rng.integers(len(names)))]
        before = name
        fade = round(rng.uniform(0.4, 0.9) * FPS) if kind == "fades" and takes else 0
        takes.append(Take(at, last, _drawn_view(footage, name, rng), kind == "reverse" and len(takes) % 2 == 1, fade))
        at = last + (round(rng.uniform(0.3, 1.0) * FPS) if kind == "jumps" else 0)
    return takes


def _drawn_view(footage: Footage, name: str, rng: np.random.Generator) -> View:
    if name == "both":
        return WIDE
    usual = footage.views()[name]
    near = rng.uniform(0.8, 1.15) if name in "ab" else rng.uniform(1.0, 1.1)
    return View(usual.x + rng.uniform(-0.02, 0.02), usual.y + rng.uniform(-0.02, 0.02), min(1.0, usual.width * near))


def film(footage: Footage, takes: Sequence[Take]) -> Iterator[np.ndarray]:
    before: np.ndarray | None = None
    for take in takes:
        for n in range(take.first, take.last):
            shown = view(footage.pictures[n], take.view)
            shown = shown[:, ::-1] if take.crossed else shown
            share = min(1.0, (n - take.first + 1) / (take.fade + 1))
            if before is not None and share < 1:
                shown = cv2.addWeighted(np.ascontiguousarray(shown), share, np.ascontiguousarray(before), 1 - share, 0)
            yield shown
        before = shown


def shown_by(takes: Sequence[Take]) -> list[Shown]:
    return [Shown(take, n) for take in takes for n in range(take.first, take.last)]


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.faces = folder, FacesStage(FacesConfig())
        self.faces.setup()

    def seen(self, name: str, footage: Footage, takes: Sequence[Take]) -> tuple[FaceTracks, Cast | None, str]:
        frames, path = len(shown_by(takes)), self.folder / f"{name}.mp4"
        write(path, film(footage, takes), np.zeros(16_000 * frames // FPS, np.float32), FPS)
        row = row_of(self.faces, path, frames)
        try:
            conversation = conversation_of(path, frames)
            [cast] = CastStage().process(CastInput(conversation=conversation, faces=(row,)))
        except Rejected as rejected:
            return row, None, rejected.reason.value
        return row, cast, "ok"


class Counts(NamedTuple):
    """Frames. held: [who, A or B]; lost: in view and nobody's of the first two."""

    held_22: np.ndarray
    lost: int


def who_is_who(people: Sequence[Person], footage: Footage, shown: Sequence[Shown], size: tuple[int, int]) -> Counts:
    """Whose face each of the first two people has; faces that all others have are lost."""
    held_22, lost = np.zeros((2, 2), int), 0
    for number, person in enumerate(people):
        for track in person.tracks:
            frames = np.flatnonzero(track.data.valid_T) + track.data.first
            centre_V2 = (track.data.box_V4[:, :2] + track.data.box_V4[:, 2:]) / 2 / size
            for n, at in zip(frames, centre_V2, strict=True):
                if n < len(shown) and (who := _whose(footage, shown[int(n)], at)) is not None:
                    if number < 2:
                        held_22[number, who] += 1
                    else:
                        lost += 1
    return Counts(held_22, lost)


def _whose(footage: Footage, shown: Shown, at_2: np.ndarray) -> int | None:
    """Whose face is at that place (shares of the picture); None while shots go over into each other."""
    take = shown.take
    if shown.source - take.first <= take.fade:
        return None
    x0, y0, width = corner(take.view)
    x = 1 - at_2[0] if take.crossed else at_2[0]
    at = np.array([x0 + x * width, y0 + at_2[1] * width])
    return int(np.argmin([np.linalg.norm(at - face) for face in footage.faces]))


def figures(bench: Bench, footage: Footage, name: str, takes: Sequence[Take], plain: Plain) -> str:
    row, cast, outcome = bench.seen(name, footage, takes)
    shown = shown_by(takes)
    people = scenes_of([row], 1, len(shown))[0].people
    counts = who_is_who(people, footage, shown, (row.width, row.height))
    held = counts.held_22
    right = max(held[0, 0] + held[1, 1], held[0, 1] + held[1, 0])
    line = (
        f"people {len(people)} seen {held.sum() / FPS:5.1f} right {right / max(1, held.sum()):6.1%} "
        f"lost {counts.lost / FPS:4.1f} mixed {(held.sum() - right) / FPS:4.1f}  {outcome:12}"
    )
    if cast is None:
        return line
    return f"{line} kept {cast.uncut:4.1f} {_of_motion(row, cast, shown, plain)}"


class Plain(NamedTuple):
    """The clip as it was. step: the largest from frame to frame."""

    codec: Codec
    step: float


def plain_of(bench: Bench, footage: Footage) -> Plain:
    whole = [Take(0, min(len(footage.pictures), LONGEST * FPS), WIDE, False, 0)]
    row, cast, outcome = bench.seen(f"{footage.name}-plain", footage, whole)
    if cast is None:
        raise RuntimeError(f"{footage.name}: {outcome}")
    codec = codec_of(row, cast)
    motions = [motion_of(codec, row, cast, i) for i in (0, 1)]
    return Plain(codec, max(_step(m.motion[:, 3:6], m.valid) for m in motions))


def _of_motion(row: FaceTracks, cast: Cast, shown: Sequence[Shown], plain: Plain) -> str:
    motions = [motion_of(plain.codec, row, cast, i) for i in (0, 1)]
    config, takes = WindowsConfig(), list(dict.fromkeys(s.take for s in shown))
    firsts = [
        first for first in starts(len(shown), motions[0].cuts, config)
        if min(m.valid[first : first + config.length].mean() for m in motions) >= 0.9
    ]  # fmt: skip
    lengths = np.cumsum([take.last - take.first for take in takes])[:-1]
    across = sum(
        _crosses(first, config.length, int(cut), after)
        for first in firsts
        for cut, after in zip(lengths, takes[1:], strict=True)
    )
    steps = [
        _step(m.motion[f : f + config.length, 3:6], m.valid[f : f + config.length]) for m in motions for f in firsts
    ]
    offset = max(_offset(m, shown) for m in motions)
    return (
        f"windows {len(firsts):2} across {across} offset {offset:.2f} jump {max(steps, default=0):.3f} "
        f"(plain {plain.step:.3f})"
    )


def _crosses(first: int, length: int, cut: int, after: Take) -> bool:
    return first < cut + after.fade and cut < first + length


def _step(place_T3: np.ndarray, valid_T: np.ndarray) -> float:
    steps_T = np.abs(np.diff(place_T3, axis=0)).max(axis=1)[valid_T[1:] & valid_T[:-1]]
    return float(steps_T.max(initial=0.0))


def _offset(motion: Motion, shown: Sequence[Shown]) -> float:
    """Between the shots of both people, by how near they are; NaN where there are not two kinds of them."""
    medians = []
    for wide in (True, False):
        chosen_T = np.array([(s.take.view.width == 1) == wide and s.take.view.width > 0.55 for s in shown])
        chosen_T &= motion.valid[: len(shown)]
        if chosen_T.sum() >= FPS:
            medians.append(np.median(motion.motion[: len(shown)][chosen_T, 3:6], axis=0))
    return max((float(np.abs(b - a).max()) for a, b in pairwise(medians)), default=float("nan"))


def both_talk(media: Path) -> Footage:
    """No dialogue, but two people."""
    return read_footage(media / "conversation" / "both_talk.mp4", ((0.257, 0.22), (0.766, 0.32)), 0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with conversation/")
    parser.add_argument("--dialogues", type=Path, help="folder of rendered dialogues in one frame, instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    chosen = rendered_footage(options.dialogues) if options.dialogues else _real(options.media)
    with tempfile.TemporaryDirectory(prefix="visavis-edits-") as scratch:
        bench = Bench(Path(scratch))
        for number, footage in enumerate(chosen):
            plain = plain_of(bench, footage)
            for kind, seed in ((kind, seed) for kind in options.kinds for seed in options.seeds):
                takes = drawn(footage, kind, np.random.default_rng([seed, KINDS.index(kind), number]))
                name = f"{footage.name}-{kind}-{seed}"
                print(f"{name:34} {len(takes)} shots {figures(bench, footage, name, takes, plain)}", flush=True)


def _real(media: Path) -> Iterator[Footage]:
    yield from real_footage(media)
    yield both_talk(media)


if __name__ == "__main__":
    main()

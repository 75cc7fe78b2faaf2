"""Is this the same person? Pairs of one-second pieces of many people, by how much further the head is turned.

    python -m benchmarks.identity --media ../shared/media [--people 12] [--first 40]

For each difference of yaw: of pairs that show one person, how many are called two; of pairs that show two, how many are
called one; and of how many nothing is said. "One place": the same light and camera, as two people of one video have,
or one person in two shots; "two places": others. The regression of `stages.face.identity` was fitted to rendered people
0 to 19 and every other one of the real faces on rendered heads, as many pairs of one place as of two; the mean texture
is that of people 0 to 19, and how far a recording may be from all that was set on the two people of each of 18 rendered
dialogues. People 60 to 71 were looked at when it was fitted anew; nothing was chosen on the others from 40 on.

People: rendered heads of unlike skulls, skins, brows, beards, glasses, blemishes and light (`varied_person`), and real
faces. A real clip shows a face from the front and little else, so real faces are also laid as textures on rendered
skulls, which look around (`worn`).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from visavis.pipeline.demo.head import UV_FACE, Shape, make_head
from visavis.pipeline.demo.people import TEXTURE, Person, make_person
from visavis.pipeline.demo.render import Pose, Renderer
from visavis.pipeline.view.mesh import BROWS, LIDS_BOTTOM, LIDS_TOP, OVAL
from visavis.stages.face.facemesh import FaceMeshTracker
from visavis.stages.face.heads import Heads
from visavis.stages.face.identity import Appearance, learned
from visavis.stages.face.texture import EVERY, Unwrapped, by_turn, unwrap, unwrapped_at
from visavis.stages.media.video import frames_on_grid

SIDE = 320
FRAMES = 120
CALLED = float(np.log(9))  # nats; 9 to 1
EDGES = (0, 10, 25, 45)
CLIPS = {"interview": 2, "two_in_frame": 2, "both_talk": 2, "pair_user": 1, "pair_avatar": 1}
PAIRS = 3000


class OneSecond(NamedTuple):
    """What five frames of one second show. place: whose light and camera."""

    person: str
    place: int
    yaw: float
    looks: Appearance


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--media", type=Path, default=Path("../shared/media"))
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--first", type=int, default=40)
    args = parser.parse_args()
    numbers = range(args.first, args.first + args.people)
    print("yaw apart        same→other  other→same  unknown, %")
    rendered = [piece for n in numbers for piece in _in_two_places(f"rendered {n}", varied_person(n), n, args.first)]
    _tables("rendered", rendered)
    if (args.media / "conversation").is_dir():
        real, faces = _real(args.media / "conversation")
        _table("real", real)
        on_heads = [
            piece
            for number, (name, (rgb, points)) in enumerate(faces.items())
            for piece in _in_two_places(name, worn(rgb, points, number), number + 500, 500)
        ]
        _tables("real faces on rendered heads", on_heads)


def _in_two_places(name: str, person: Person, number: int, first: int) -> list[OneSecond]:
    """Four people to a place; everybody is also where the next four are."""
    here = first + (number - first) // 4
    return [
        p for place in (here, here + 1) for p in _sweep(name, place, look_around(person, 10 * number + place, place))
    ]


def _sweep(person: str, place: int, pictures: Iterator[np.ndarray]) -> list[OneSecond]:
    """Pieces of pictures that lie five frames apart, of about one turn each."""
    seen = [face for n, rgb in enumerate(pictures) for face in _faces(_tracker(), rgb, first=n == 0)]
    seen.sort(key=lambda face: face[1])
    groups = [seen[start + odd : start + 10 : 2] for start in range(0, len(seen) - 9, 10) for odd in range(2)]
    return [_piece(person, place, group) for group in groups]


def _real(folder: Path) -> tuple[list[OneSecond], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Seconds of the real clips' people, and one picture of each with the landmarks of that face."""
    pieces, faces = list[OneSecond](), dict[str, tuple[np.ndarray, np.ndarray]]()
    for number, (clip, people) in enumerate(CLIPS.items()):
        seen: dict[str, list[tuple[Unwrapped, float, np.ndarray]]] = {}
        for n, rgb in frames_on_grid(str(folder / f"{clip}.mp4"), 0, 200, max_side=1280):
            for face in _faces(_tracker(), rgb, first=n == 0):
                side = int(people == 2 and face[2][:, 0].mean() > rgb.shape[1] / 2)
                faces.setdefault(f"{clip} {side}", (rgb, face[2]))
                seen.setdefault(f"{clip} {side}", []).extend([face] if n % EVERY == 0 else [])
        for person, found in seen.items():
            pieces += [_piece(person, number, found[start : start + 5]) for start in range(0, len(found) - 4, 5)]
    return pieces, faces


def _faces(tracker: FaceMeshTracker, rgb: np.ndarray, *, first: bool) -> list[tuple[Unwrapped, float, np.ndarray]]:
    """Texture, yaw in degrees, and landmarks in pixels of each face."""
    height, width = rgb.shape[:2]
    points_FL3 = tracker.landmarks(rgb, new_shot=first) * np.array([width, height, width], np.float32)
    yaws = [float(np.degrees(Heads.of(p[None]).angles()[0, 1])) for p in points_FL3]
    return [(unwrap(rgb, p[:, :2]), yaw, p[:, :2]) for p, yaw in zip(points_FL3, yaws, strict=True)]


@cache
def _tracker() -> FaceMeshTracker:
    return FaceMeshTracker(4, 0.5)


def _piece(person: str, place: int, faces: list[tuple[Unwrapped, float, np.ndarray]]) -> OneSecond:
    yaw_N = np.array([yaw for _, yaw, _ in faces])
    return OneSecond(
        person, place, float(yaw_N.mean()), Appearance.of([by_turn([flat for flat, _, _ in faces], yaw_N)])
    )


def _tables(name: str, pieces: list[OneSecond]) -> None:
    for here in (True, False):
        _table(f"{name}, {'one place' if here else 'two places'}", pieces, here)


def _table(name: str, pieces: list[OneSecond], here: bool | None = None) -> None:
    """As many pairs of one person as of two. here: of one place, or of two; None: of any."""
    rng, scale, found = np.random.default_rng(0), learned(), list[tuple[float, bool, float]]()
    by_person: dict[str, list[OneSecond]] = {}
    for piece in pieces:
        by_person.setdefault(piece.person, []).append(piece)
    people = list(by_person)
    while len(found) < PAIRS:
        one, other = (people[i] for i in rng.choice(len(people), 2, replace=False))
        same = bool(rng.random() < 0.5)
        a, b = (by_person[p][int(rng.integers(len(by_person[p])))] for p in (one, one if same else other))
        if a is not b and here in (None, a.place == b.place):
            found.append((abs(a.yaw - b.yaw), same, scale.same(a.looks, b.looks)))
    print(f"{name}: {len(people)} people, {len(pieces)} pieces")
    apart_N, same_N, ratio_N = (np.array(column) for column in zip(*found, strict=True))
    for low, high in itertools.pairwise(EDGES):
        here_N = (apart_N >= low) & (apart_N < high)
        if min(np.count_nonzero(here_N & same_N), np.count_nonzero(here_N & ~same_N)) < 20:
            continue
        lost = (ratio_N[here_N & same_N] < -CALLED).mean()
        mixed = (ratio_N[here_N & ~same_N] > CALLED).mean()
        silent = (np.abs(ratio_N[here_N]) <= CALLED).mean()
        print(f"{low:6.0f}° … {high:.0f}° {lost:10.1%} {mixed:10.1%} {silent:10.1%}", flush=True)


def varied_person(number: int) -> Person:
    """A person unlike others in more than the demo's people are; the same number gives the same person."""
    rng = np.random.default_rng([number, 77])
    base = make_person(number + 1000, long_hair=bool(rng.random() < 0.5))
    head = make_head(Shape(*rng.uniform([0.92, 0.86, 0.8, 0.94], [1.08, 1.1, 1.25, 1.08])))
    canvas = base.texture.astype(np.float32)
    canvas *= np.exp(rng.normal(0, 0.22) + rng.normal(0, 0.05, 3))  # skins between the demo's
    uv_L2 = head.uv * TEXTURE
    brow = np.exp(rng.normal(-1.3, 0.5)) * np.array([90, 70, 60])
    for side in range(2):
        line = uv_L2[list(BROWS[side][:5])] + (0, rng.normal(0, 1.5))
        _stroke(canvas, line, brow, rng.uniform(3, 9), rng.uniform(0.2, 0.9))
    if rng.random() < 0.4:
        _beard(canvas, uv_L2, brow, rng)
    if rng.random() < 0.35:
        _glasses(canvas, uv_L2, rng)
    for _ in range(int(rng.integers(0, 9))):  # moles and blemishes
        at = uv_L2[int(rng.integers(468))]
        spot = rng.choice([-1, 1]) * rng.uniform(15, 60) * np.array([0.6, 1, 1])
        _spot(canvas, at, spot, rng.uniform(1.5, 6))
    canvas += _blotches(rng, 18) * rng.uniform(2, 9) + _blotches(rng, 5) * rng.uniform(1, 5)
    return replace(base, head=head, texture=np.clip(canvas, 0, 255).astype(np.uint8))


def worn(face_rgb: np.ndarray, landmarks_L2: np.ndarray, number: int) -> Person:
    """A real face (a picture, and where its landmarks lie in it) as the texture of a rendered head."""
    rng = np.random.default_rng([number, 78])
    base = make_person(number + 2000, long_hair=bool(rng.random() < 0.5))
    head = make_head(Shape(*rng.uniform([0.92, 0.86, 0.85, 0.94], [1.08, 1.1, 1.2, 1.08])))
    inner = round(UV_FACE * TEXTURE)
    flat, seen = unwrapped_at(face_rgb, landmarks_L2, inner)
    start = (TEXTURE - inner) // 2
    canvas = base.texture.astype(np.float32)
    part = canvas[start : start + inner, start : start + inner]
    mask = cv2.GaussianBlur(cv2.erode((seen > 0).astype(np.float32), np.ones((5, 5))), (0, 0), 3)[..., None]
    part += mask * (flat - part)
    return replace(base, head=head, texture=np.clip(canvas, 0, 255).astype(np.uint8))


def look_around(person: Person, number: int, place: int | None = None) -> Iterator[np.ndarray]:
    """Pictures [320, 320, 3] of somebody who turns the head from side to side, nods, talks and blinks.

    place: people of one place have one light and one camera; None: a place of one's own.
    """
    rng = np.random.default_rng([number, 79])
    there = rng if place is None else np.random.default_rng([place, 80])
    light = np.array([*there.uniform([-0.8, -0.1], [0.8, 0.8]), 0.7])
    renderer = Renderer(person, SIDE, SIDE, rng.uniform(5, 11), light / np.linalg.norm(light))
    phase = rng.uniform(0, 6.28, 6)
    gain = np.exp(there.normal(0, 0.06, 3))
    for n in range(FRAMES):
        t = 2 * np.pi * n / FRAMES
        yaw = np.radians(50) * np.sin(2 * t + phase[0])
        pitch = np.radians(10) * np.sin(3 * t + phase[1]) + np.radians(4) * np.sin(7 * t)
        pose = Pose(
            pitch, yaw, np.radians(6) * np.sin(t + phase[2]), 1.5 * np.sin(t + phase[3]), np.sin(t + phase[4]),
            5 * np.sin(t + phase[5]), 0.6 * abs(np.sin(17 * t)), max(0.0, np.sin(5 * t)) * 0.6, float(n % 30 < 1),
        )  # fmt: skip
        noisy = renderer.frame(pose) * gain + rng.normal(0, 3, (SIDE, SIDE, 1))
        _, coded = cv2.imencode(
            ".jpg", np.clip(noisy, 0, 255).astype(np.uint8)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80]
        )
        yield np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1])


def _stroke(canvas: np.ndarray, line: np.ndarray, colour: np.ndarray, width: float, alpha: float) -> None:
    mask = np.zeros(canvas.shape[:2], np.float32)
    cv2.polylines(mask, [np.round(line).astype(np.int32)], False, 1.0, max(1, round(width)), cv2.LINE_AA)
    weight = alpha * cv2.GaussianBlur(mask, (0, 0), 1.2)[..., None]
    canvas += weight * (colour - canvas)


def _beard(canvas: np.ndarray, uv_L2: np.ndarray, colour: np.ndarray, rng: np.random.Generator) -> None:
    if rng.random() < 0.7:
        _stroke(
            canvas, uv_L2[list(OVAL[9:28])] * 0.95 + TEXTURE * 0.025, colour, rng.uniform(10, 34), rng.uniform(0.3, 0.8)
        )
    if rng.random() < 0.7:
        _stroke(canvas, uv_L2[[57, 186, 165, 167, 164, 393, 391, 410, 287]], colour, rng.uniform(4, 10), 0.7)


def _glasses(canvas: np.ndarray, uv_L2: np.ndarray, rng: np.random.Generator) -> None:
    colour, width = rng.uniform(0, 110, 3), rng.uniform(1.5, 4)
    for top, bottom in zip(LIDS_TOP, LIDS_BOTTOM, strict=True):
        ring = uv_L2[[*top, *bottom[::-1]]]
        middle = ring.mean(axis=0)
        _stroke(canvas, middle + (ring - middle) * (1.6, rng.uniform(2.2, 3.4)), colour, width, 0.95)
    _stroke(canvas, uv_L2[[133, 168, 362]], colour, width, 0.95)


def _spot(canvas: np.ndarray, at: np.ndarray, change: np.ndarray, radius: float) -> None:
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]]
    canvas += np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * radius**2))[..., None] * change


def _blotches(rng: np.random.Generator, grain: float) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.standard_normal((TEXTURE, TEXTURE, 1)).astype(np.float32), (0, 0), grain)
    return np.asarray((noise / noise.std())[..., None] * np.array([1.0, 0.9, 0.8]))


if __name__ == "__main__":
    main()

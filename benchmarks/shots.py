"""What cuts, the camera, missing pictures and lost faces do to the motion.

    python -m benchmarks.shots [--media FOLDER] [--only recuts,camera,pictures,lost]

Clips are made of `interview.mp4` of the media folder beside the project: 12 s with both people in view.

recuts    wide and tight shots of both in turn, cut hard or dissolved. `offset`: by what a tight shot's place and size
          differ from a wide one's in the median; `jump`: the largest step within a window. Face widths or logarithm of
          the size, the worst of both people. Before: as if all were one shot, and windows anywhere
camera    the same pictures zoomed, panned and held by hand: deviation of place and size from what they are without
          that. Before: as if the camera stood still. `leans in`: the picture grows about one person only
pictures  fewer pictures a second, by time stamp or stored again and again; frozen spans; one half frozen. `fresh` and
          `visible` are the worse person's; `outcome` is what the thresholds say
lost      small faces in a large picture, covered for a while again and again: visible share and time for a frame
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.faces import SIBLING
from benchmarks.processes import say
from visavis.pipeline.demo.dialogue import write_video
from visavis.pipeline.plan.quality import faults
from visavis.schemas import FPS
from visavis.schemas.config import FacesConfig, MotionConfig, QualityConfig
from visavis.schemas.dyads import Codec, Motion
from visavis.schemas.errors import Rejected
from visavis.schemas.face_rows import Cast, CastFacts, FaceTracks, Piece
from visavis.schemas.rows import Binding, BoundParticipant, Conversation, Layout, Media
from visavis.schemas.windows_config import WindowsConfig
from visavis.stages.bind import seen_in
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.face.codec import fit_codec, merge_statistics
from visavis.stages.face.heads import Heads
from visavis.stages.faces import FacesStage
from visavis.stages.media.video import frames_on_grid
from visavis.stages.motion import FitInput, FitStage, MotionInput, MotionStage
from visavis.stages.windows import starts

FRAMES = 12 * FPS
WIDE, TIGHT = (0.0, 0.0, 1.0), (0.17, 0.13, 0.69)  # left, top and side of what is seen, in shares of the picture
Frames = list[np.ndarray]
Make = Callable[[Frames], Iterator[np.ndarray]]


class Bench:
    """The stages that follow a face, and what the clip is without any change."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.faces = folder, FacesStage(FacesConfig())
        self.faces.setup()
        self.frames = [_of_height(rgb, 540) for _, rgb in frames_on_grid(str(source), 0, FRAMES)]
        plain = self.seen("plain", lambda frames: iter(frames))
        row, cast, _ = plain
        assert cast is not None
        self.codec = codec_of(row, cast)
        self.plain = [self.motion(plain, i) for i in (0, 1)]
        self.left = _box_of_left(plain)

    def seen(self, name: str, make: Make) -> tuple[FaceTracks, Cast | None, str]:
        path = self.folder / f"{name}.mp4"
        if not path.exists():
            write_video(path, make(self.frames), np.zeros(16_000 * FRAMES // FPS, np.float32))
        row = row_of(self.faces, path, FRAMES)
        try:
            [cast] = CastStage().process(CastInput(conversation=conversation_of(path, FRAMES), faces=(row,)))
        except Rejected as rejected:
            return row, None, rejected.reason.value
        facts = CastFacts.model_validate_json(CastStage().facts([cast]))
        found = next(faults(facts, ("left", "right"), QualityConfig()), None)
        return row, cast, found[0].value if found else "ok"

    def motion(self, seen: tuple[FaceTracks, Cast | None, str], participant: int) -> Motion:
        row, cast, _ = seen
        assert cast is not None
        return motion_of(self.codec, row, cast, participant)


def _of_height(rgb_HW3: np.ndarray, height: int) -> np.ndarray:
    width = round(rgb_HW3.shape[1] * height / rgb_HW3.shape[0] / 2) * 2
    return np.asarray(cv2.resize(rgb_HW3, (width, height)))


def _box_of_left(plain: tuple[FaceTracks, Cast | None, str]) -> tuple[float, float, float, float]:
    """x0 y0 x1 y1 of the left one's face, pixels."""
    _, cast, _ = plain
    assert cast is not None
    return cast.members[0].box


def row_of(faces: FacesStage, path: Path, frames: int) -> FaceTracks:
    """The faces of a whole clip."""
    [row] = faces.process(Piece(conversation="c", media=0, uri=str(path), first=0, last=frames))
    return row


def motion_of(codec: Codec, row: FaceTracks, cast: Cast, participant: int) -> Motion:
    given = MotionInput(codec=codec, binding=_binding(cast), faces=(row,), participant=participant)
    [motion] = MotionStage().process(given)
    return motion


def conversation_of(path: Path, frames: int) -> Conversation:
    """Two people in one frame, whatever is said."""
    media = Media(
        uri=str(path), sha256="0", bytes=1, width=960, height=540, fps=25, video_start=0, video_duration=frames / FPS,
        audio_start=0, audio_duration=frames / FPS, audio_rate=16_000, audio_channels=1,
    )  # fmt: skip
    return Conversation(id="c", layout=Layout.ONE_FRAME, media=(media,), participants=("a", "b"), frames=frames)


def _binding(cast: Cast) -> Binding:
    first, second = (
        BoundParticipant(
            name="ab"[i], media=0, speaker=i, segments=cast.members[i].segments, score=1.0, margin=1.0,
            figures=cast.members[i].figures,
        )
        for i in (0, 1)
    )  # fmt: skip
    return Binding(conversation="c", participants=(first, second), turns=())


def codec_of(row: FaceTracks, cast: Cast) -> Codec:
    """Fitted to this clip."""
    config = MotionConfig()
    return fit_codec(
        merge_statistics(list(FitStage(config).process(FitInput(bindings=(_binding(cast),), faces=(row,))))), config
    )


def one_shot(bench: Bench, seen: tuple[FaceTracks, Cast | None, str], participant: int) -> np.ndarray:
    """Place and size as they were before: [T, 3], as if all were one shot and the camera stood still."""
    row, cast, _ = seen
    assert cast is not None
    seen_in_it = seen_in(row, 0, cast.members[participant].segments)
    place_T3 = np.full((FRAMES, 3), np.nan)
    place_T3[seen_in_it.where_V] = Heads.of(seen_in_it.landmarks()).pose()[:, 3:]
    return place_T3


# What is shown


def part(rgb_HW3: np.ndarray, left: float, top: float, side: float) -> np.ndarray:
    height, width = rgb_HW3.shape[:2]
    map_23 = np.array([[1, 0, -left * width], [0, 1, -top * height]]) / side
    seen = cv2.warpAffine(rgb_HW3, map_23, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(seen)


def recut(seconds: float, dissolve: int = 0) -> Make:
    """Wide and tight in turn."""

    def make(frames: Frames) -> Iterator[np.ndarray]:
        length = round(seconds * FPS)
        for n, rgb in enumerate(frames):
            shot, into = divmod(n, length)
            now, before = ((part(rgb, *(WIDE, TIGHT)[(shot - k) % 2])) for k in (0, 1))
            share = min(1.0, (into + 1) / dissolve) if dissolve and shot else 1.0
            mixed = share * now + (1 - share) * before.astype(np.float32)
            yield np.rint(mixed).astype(np.uint8)

    return make


def filmed(path: Callable[[float], tuple[float, float, float]]) -> Make:
    """path: time in shares of the clip → left, top and side of what is seen."""
    return lambda frames: (part(rgb, *path(n / len(frames))) for n, rgb in enumerate(frames))


def leaning(box_4: tuple[float, float, float, float]) -> Make:
    """The head about this face grows: the other one and what is behind them stay."""
    left, top, right, bottom = box_4
    x0, x1 = round(left - 0.4 * (right - left)), round(right + 0.4 * (right - left))
    y0, y1 = round(top - 0.5 * (bottom - top)), round(bottom + 0.6 * (bottom - top))

    def make(frames: Frames) -> Iterator[np.ndarray]:
        for n, rgb in enumerate(frames):
            grown, half = rgb.copy(), rgb.shape[1] // 2
            at = np.s_[max(0, y0) : y1, max(0, x0) : min(x1, half)]
            side = 1 - 0.25 * n / len(frames)
            grown[at] = part(rgb[at], (1 - side) / 2, (1 - side) / 2, side)
            yield grown

    return make


def every(rate: float) -> Make:
    return lambda frames: (frames[int(int(n * rate / FPS + 1e-9) * FPS / rate)] for n in range(len(frames)))


def frozen(first: int, last: int, half: bool = False) -> Make:
    def make(frames: Frames) -> Iterator[np.ndarray]:
        for n, rgb in enumerate(frames):
            shown = rgb.copy()
            if first <= n < last:
                old = frames[first]
                shown[:, rgb.shape[1] // 2 if half else 0 :] = old[:, rgb.shape[1] // 2 if half else 0 :]
            yield shown

    return make


def small(frames: Frames) -> Iterator[np.ndarray]:
    """Faces of 50 to 70 pixels; a hand covers one of them for half a second to two, again and again."""
    rng = np.random.default_rng(3)
    covered = np.zeros((2, len(frames)), bool)
    for side in (0, 1):
        at = 30
        while at < len(frames):
            length = int(rng.integers(10, 50))
            covered[side, at : at + length] = True
            at += length + int(rng.integers(20, 60))
    for n, rgb in enumerate(frames):
        picture = np.full((720, 1280, 3), 110, np.uint8)
        picture[:] = cv2.GaussianBlur(cv2.resize(rgb[:60, :60], (1280, 720)), (0, 0), 9)
        inset = cv2.resize(rgb, (400, 225), interpolation=cv2.INTER_AREA)
        picture[300:525, 440:840] = inset
        for side in (0, 1):
            if covered[side, n]:
                x = (530, 695)[side]
                cv2.rectangle(picture, (x, 320), (x + 85, 450), (190, 150, 130), -1)
        yield picture


# Tables


def recuts(bench: Bench) -> Iterator[dict[str, Any]]:
    config = WindowsConfig()
    for name, seconds, dissolve in (
        ("cut-4s", 4.0, 0),
        ("cut-2.4s", 2.4, 0),
        ("cut-1s", 1.0, 0),
        ("dissolve", 4.0, 20),
    ):
        seen = bench.seen(f"recut-{name}", recut(seconds, dissolve))
        if seen[1] is None:
            yield {"clip": name, "outcome": seen[2]}
            continue
        cuts = list(range(round(seconds * FPS), FRAMES, round(seconds * FPS)))
        row: dict[str, Any] = {"clip": name, "outcome": seen[2], "cuts": len(cuts), "found": len(seen[0].cuts)}
        motions = [bench.motion(seen, i) for i in (0, 1)]
        windows = {
            "before": _windows([m.valid for m in motions], range(0, FRAMES - config.length + 1, config.hop)),
            "after": _windows([m.valid for m in motions], starts(FRAMES, motions[0].cuts, config)),
        }
        places = {"before": [one_shot(bench, seen, i) for i in (0, 1)], "after": [m.motion[:, 3:6] for m in motions]}
        for when, firsts in windows.items():
            row[f"windows {when}"] = len(firsts)
            across = [f for f in firsts if any(f < cut + dissolve and cut < f + config.length for cut in cuts)]
            row[f"across {when}"] = len(across)
            row[f"offset {when}"] = round(
                max(_offset(p, m.valid, cuts) for p, m in zip(places[when], motions, strict=True)), 3
            )
            row[f"jump {when}"] = round(max((_jump(p, f) for p in places[when] for f in firsts), default=0.0), 3)
        yield row


def _windows(valid: list[np.ndarray], firsts: Any) -> list[int]:
    return [first for first in firsts if min(v[first : first + 50].mean() for v in valid) >= 0.9]


def _offset(place_T3: np.ndarray, valid_T: np.ndarray, cuts: list[int]) -> float:
    shots = np.searchsorted(cuts, np.arange(FRAMES), side="right")
    usual = [np.median(place_T3[(shots % 2 == k) & valid_T], axis=0) for k in (0, 1)]
    return float(np.abs(usual[0] - usual[1]).max())


def _jump(place_T3: np.ndarray, first: int) -> float:
    return float(np.nanmax(np.abs(np.diff(place_T3[first : first + 50], axis=0))))


def camera(bench: Bench) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    shake = np.cumsum(rng.normal(0, 1, (40, 3)), axis=0)
    shake = (shake - shake.mean(0)) / np.abs(shake - shake.mean(0)).max(0)

    def by_hand(t: float) -> tuple[float, float, float]:
        x, y, s = (float(np.interp(t * 39, np.arange(40), column)) for column in shake.T)
        return 0.05 + 0.02 * x, 0.05 + 0.02 * y, 0.9 + 0.01 * s

    paths = {
        "zoom": lambda t: (0.17 * t, 0.13 * t, 1 - 0.31 * t),
        "slow zoom": lambda t: (0.03 * t, 0.03 * t, 1 - 0.06 * t),
        "pan": lambda t: (0.1 * np.sin(6 * t), 0.05, 0.8),
        "by hand": by_hand,
        "still": lambda t: (0.05, 0.05, 0.9),
    }
    clips: list[tuple[str, Make]] = [(name, filmed(path)) for name, path in paths.items()]
    for name, make in (*clips, ("leans in", leaning(bench.left))):
        seen = bench.seen(f"camera-{name.replace(' ', '-')}", make)
        if seen[1] is None:
            yield {"clip": name, "outcome": seen[2]}
            continue
        row: dict[str, Any] = {"clip": name, "outcome": seen[2], "cuts": len(seen[0].cuts)}
        for when in ("before", "after"):
            deviations = []
            for i, plain in enumerate(bench.plain):
                motion = bench.motion(seen, i)
                place_T3 = motion.motion[:, 3:6] if when == "after" else one_shot(bench, seen, i)
                both = motion.valid & plain.valid
                off = place_T3[both] - plain.motion[both, 3:6]
                deviations.append(np.sqrt(((off - np.median(off, 0)) ** 2).mean(0)).round(3).tolist())
            row[when] = deviations
        yield row


def pictures(bench: Bench) -> Iterator[dict[str, Any]]:
    conditions: list[tuple[str, Make]] = [(f"{rate:g} a second", every(rate)) for rate in (24, 20, 18, 15, 12, 10, 6)]
    conditions += [
        ("frozen 2 s", frozen(100, 150)),
        ("frozen 6 s", frozen(100, 250)),
        ("frozen 10 s", frozen(40, 290)),
        ("right half 6 s", frozen(100, 250, half=True)),
        ("right half all", frozen(0, FRAMES, half=True)),
    ]
    plain = [_unrest(motion) for motion in bench.plain]
    for name, make in (("25 a second", lambda frames: iter(frames)), *conditions):
        seen = bench.seen(f"pictures-{name.replace(' ', '-')}", make)
        row: dict[str, Any] = {"clip": name, "outcome": seen[2]}
        if seen[1] is not None:
            row["fresh"] = min(m.fresh for m in seen[1].members)
            row["visible"] = [m.figures.visible for m in seen[1].members]
            row |= {"together s": seen[1].together}
            if min(m.figures.visible for m in seen[1].members) > 0.2:
                motions = [bench.motion(seen, i) for i in (0, 1)]
                row["windows"] = len(_windows([m.valid for m in motions], starts(FRAMES, (), WindowsConfig())))
                row["jerk ×"] = round(max(_unrest(m) / p for m, p in zip(motions, plain, strict=True)), 2)
        yield row


def _unrest(motion: Motion) -> float:
    """Root mean square of third differences of the head's rotation, rad."""
    return float(np.sqrt((np.diff(motion.motion[:, :3].astype(np.float64), n=3, axis=0) ** 2).mean()))


def lost(bench: Bench) -> Iterator[dict[str, Any]]:
    path = bench.folder / "small.mp4"
    write_video(path, small(bench.frames), np.zeros(16_000 * FRAMES // FPS, np.float32))
    began = time.process_time()
    [row] = bench.faces.process(Piece(conversation="c", media=0, uri=str(path), first=0, last=FRAMES))
    took = (time.process_time() - began) / FRAMES
    seen = np.zeros((2, FRAMES), bool)
    for track in row.tracks:
        side = int(float(np.nanmedian(track.box[:, 0])) > 640)
        seen[side, track.first + np.flatnonzero(track.valid)] = True
    sizes = [round(float(np.sqrt(np.nanmedian(np.prod(t.box[:, 2:] - t.box[:, :2], axis=1))))) for t in row.tracks]
    yield {"visible": seen.mean(axis=1).round(3).tolist(), "ms a frame": round(1000 * took, 2), "faces": sizes[:2]}


PARTS = {"recuts": recuts, "camera": camera, "pictures": pictures, "lost": lost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with conversation/interview.mp4")
    parser.add_argument("--clip", type=Path, help="two people side by side, 12 s and more; none: interview.mp4")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="visavis-shots-") as scratch:
        bench = Bench(Path(scratch), options.clip or options.media / "conversation" / "interview.mp4")
        for name in options.only.split(","):
            found[name] = []
            for row in PARTS[name](bench):
                say(f"{name}  " + "  ".join(f"{key} {value}" for key, value in row.items()))
                found[name].append(row)
    print(json.dumps({"name": "shots", **found}))


if __name__ == "__main__":
    main()

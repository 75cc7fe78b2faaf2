"""People: the face tracks of one video, joined into one person each.

Two passes. Where no cut lies between, a track goes on where another stopped (place and size). Across cuts and long
losses, what the faces look like decides, of all of them together (`stages.face.identity`,
`stages.face.reidentification`); faces seen at the same time are never one person. Place and size say nothing there:
another camera shows both where it likes.

The trade-off: textures, no network. Someone who comes back in another light may stay unjoined, and counts as out of
sight there rather than as somebody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.face_rows import FaceTracks, Piece, Track
from visavis.stages.face.freshness import not_frozen
from visavis.stages.face.heads import Heads
from visavis.stages.face.identity import Appearance, learned
from visavis.stages.face.reidentification import joined
from visavis.stages.face.texture import by_turn

_UPPER_LIP, _LOWER_LIP, _FOREHEAD, _CHIN = 13, 14, 10, 152
_LIPS = ((_UPPER_LIP, 0), (_LOWER_LIP, 17))  # upper and lower: the inner edges, the outer ones
_NOSE, _LEFT_EYE, _RIGHT_EYE = 1, 33, 263
_LEFT_LIDS, _RIGHT_LIDS, _MOUTH_CORNERS = (159, 145), (386, 374), (61, 291)
GESTURES = 7
_TURN_STEP = 5  # frames; heads do not turn faster
_CONTINUES = 2 * FPS  # frames; after a longer loss position alone proves nothing
_MAX_MOVE = 0.6  # landmark movement in face sizes over such a loss
_MAX_ZOOM = 1.6
_SURE = float(np.log(9))  # nats
_SHARED_FRAMES = 3  # tracks seen together in more frames than this are two people


@dataclass(frozen=True)
class TrackSummary:
    """What joining needs of a track: 7 % of it, so that the landmarks of an hour need not be in memory at once.

    V frames of the T are valid. box_V4: float32, pixels. mouth_T2: distances of the inner and of the outer lips in
    face heights. gesture_TG: see `gestures`. Both are NaN where invalid. entry_L2, exit_L2: landmarks of the first and
    last valid frame. portrait_SS3: mean upright face. texture_BSS4: as in `Track`, nothing seen where there is none.
    turn_W2: yaw and pitch in degrees of every fifth valid frame. sharpness_V, luminance_V, confidence_V: as in `Track`.
    """

    first: int
    valid_T: np.ndarray
    box_V4: np.ndarray
    mouth_T2: np.ndarray
    gesture_TG: np.ndarray
    entry_L2: np.ndarray
    exit_L2: np.ndarray
    portrait_SS3: np.ndarray
    texture_BSS4: np.ndarray
    turn_W2: np.ndarray
    sharpness_V: np.ndarray
    luminance_V: np.ndarray
    confidence_V: np.ndarray
    fresh_W: np.ndarray  # of the frames in which it is seen, valid or not for that, and has not frozen: bool

    @classmethod
    def of(cls, track: Track) -> TrackSummary:
        valid, points = np.flatnonzero(track.valid), track.landmarks
        upper, lower = (points[:, lip] for lip in _LIPS)
        height = np.linalg.norm(points[:, _FOREHEAD] - points[:, _CHIN], axis=1)
        return cls(
            first=track.first,
            valid_T=track.valid,
            box_V4=track.box[valid],
            mouth_T2=np.linalg.norm(upper - lower, axis=2) / np.maximum(height, 1e-6)[:, None],
            gesture_TG=gestures(points),
            entry_L2=points[valid[0], :, :2].copy(),
            exit_L2=points[valid[-1], :, :2].copy(),
            portrait_SS3=track.portrait,
            texture_BSS4=by_turn([], np.zeros(0)) if track.texture is None else track.texture,
            turn_W2=np.degrees(Heads.of(points[valid[::_TURN_STEP]]).angles()[:, [1, 0]]),
            sharpness_V=track.sharpness[valid],
            luminance_V=track.luminance[valid],
            confidence_V=track.confidence[valid],
            fresh_W=_fresh(track),
        )


def _fresh(track: Track) -> np.ndarray:
    """See `Track`."""
    if track.fresh is None:
        return np.ones(np.count_nonzero(track.valid), np.bool_)
    fresh_W: np.ndarray = track.fresh[(track.valid | ~track.fresh) & not_frozen(track.fresh)]
    return fresh_W


@dataclass(frozen=True)
class TrackOf:
    """A track, and where it lies: see `Segment`."""

    piece: int
    track: int
    data: TrackSummary

    @property
    def last(self) -> int:
        """First frame after the track."""
        return self.data.first + len(self.data.valid_T)


@dataclass(frozen=True)
class Person:
    """Tracks believed to show one person."""

    media: int
    frames: int  # T
    tracks: tuple[TrackOf, ...]  # by first frame

    @property
    def first(self) -> int:
        return self.tracks[0].data.first

    @cached_property
    def last(self) -> int:
        return max(t.last for t in self.tracks)

    @cached_property
    def seen_T(self) -> np.ndarray:
        seen_T = np.zeros(self.frames, np.bool_)
        for t in self.tracks:
            where = np.flatnonzero(t.data.valid_T) + t.data.first
            seen_T[where[where < self.frames]] = True
        return seen_T

    @cached_property
    def mouth_T2(self) -> np.ndarray:
        """Distances of the inner and of the outer lips in face heights, NaN where the face is not seen."""
        mouth_T2 = np.full((self.frames, 2), np.nan, np.float32)
        for t in self.tracks:
            part = mouth_T2[t.data.first : t.last]
            np.copyto(part, t.data.mouth_T2[: len(part)], where=np.isnan(part))
        return mouth_T2

    @cached_property
    def gesture_TG(self) -> np.ndarray:
        """`gestures` over time, NaN where the face is not seen."""
        gesture_TG = np.full((self.frames, GESTURES), np.nan, np.float32)
        for t in self.tracks:
            part = gesture_TG[t.data.first : t.last]
            np.copyto(part, t.data.gesture_TG[: len(part)], where=np.isnan(part))
        return gesture_TG

    @cached_property
    def portrait(self) -> np.ndarray:
        """Mean upright face [S, S, 3], 0…255."""
        weights = [len(t.data.box_V4) for t in self.tracks]
        mean: np.ndarray = np.average([t.data.portrait_SS3 for t in self.tracks], axis=0, weights=weights)
        return mean

    @cached_property
    def place(self) -> tuple[np.ndarray, float]:
        """Median centre (x, y) and size of the face, pixels."""
        box_V4 = np.concatenate([t.data.box_V4 for t in self.tracks])
        centre = np.median((box_V4[:, :2] + box_V4[:, 2:]) / 2, axis=0)
        return centre, float(np.median(np.sqrt(np.prod(box_V4[:, 2:] - box_V4[:, :2], axis=1))))

    @cached_property
    def appearance(self) -> Appearance:
        return Appearance.of([t.data.texture_BSS4 for t in self.tracks])

    @property
    def mean_box(self) -> tuple[float, float, float, float]:
        """x0 y0 x1 y1 of the face in pixels, over all frames in which it is seen."""
        boxes_V4 = np.concatenate([t.data.box_V4 for t in self.tracks])
        x0, y0, x1, y1 = boxes_V4.mean(axis=0, dtype=np.float64).tolist()
        return x0, y0, x1, y1

    @property
    def visible(self) -> float:
        """Share of the grid in which the face is seen."""
        return float(self.seen_T.mean())

    @property
    def presence(self) -> float:
        """How much of the picture this person takes over time."""
        return self.visible * self.place[1]


def gestures(landmarks_TL3: np.ndarray) -> np.ndarray:
    """How a face is turned and moved, whatever its place, size and roll: float32 [T, G], in face heights.

    Nose tip against the middle of the eyes (across and along the face), chin against it (along), opening of mouth, left
    and right eye, width of the mouth.
    """
    points = landmarks_TL3[..., :2].astype(np.float32)
    left, right, nose, chin = (points[:, i] for i in (_LEFT_EYE, _RIGHT_EYE, _NOSE, _CHIN))
    across = right - left
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    along = across[:, ::-1] * (-1, 1)
    middle = (left + right) / 2

    def opening(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(points[:, a] - points[:, b], axis=1)

    height = np.maximum(opening(_FOREHEAD, _CHIN), 1e-6)
    columns = (
        ((nose - middle) * across).sum(axis=1),
        ((nose - middle) * along).sum(axis=1),
        ((chin - middle) * along).sum(axis=1),
        opening(_UPPER_LIP, _LOWER_LIP),
        opening(*_LEFT_LIDS),
        opening(*_RIGHT_LIDS),
        opening(*_MOUTH_CORNERS),
    )
    return (np.stack(columns, axis=1) / height[:, None]).astype(np.float32)


class Scene(NamedTuple):
    """What there is to see in one video: its people, the most present first, and the frames at which shots begin."""

    people: list[Person]
    cuts: list[int]


def scenes_of(faces: Iterable[FaceTracks], files: int, frames: int) -> list[Scene]:
    """Join the tracks of each of a conversation's files, first by continuity, then by looks.

    Args:
        faces: all pieces of the conversation in any order; they are gone through once, and none is kept.
    """
    summarised = sorted(((f.piece, f.cuts, _summaries(f)) for f in faces), key=lambda found: _place(found[0]))
    scenes = []
    for media in range(files):
        tracks = [
            TrackOf(p, t, summary)
            for p, (piece, _, summaries) in enumerate(summarised)
            if piece.media == media
            for t, summary in summaries.items()
            if summary.first < frames
        ]
        tracks.sort(key=lambda t: (t.data.first, t.piece, t.track))
        cuts = sorted(cut for piece, cuts, _ in summarised if piece.media == media for cut in cuts)
        people = _merged([Person(media, frames, tuple(chain)) for chain in _chained(tracks, cuts)])
        scenes.append(Scene(sorted(people, key=lambda p: (-p.presence, p.first, float(p.place[0][0]))), cuts))
    return scenes


def _place(piece: Piece) -> tuple[int, int]:
    return piece.media, piece.first


def _summaries(piece: FaceTracks) -> dict[int, TrackSummary]:
    """By the track's number; a track without a valid frame has none."""
    return {t: TrackSummary.of(track) for t, track in enumerate(piece.tracks) if track.valid.any()}


def _chained(tracks: list[TrackOf], cuts: list[int]) -> list[list[TrackOf]]:
    """Tracks in which one goes on where another stopped: no cut between, soon after, at the same place."""
    from scipy.optimize import linear_sum_assignment

    impossible = 1e6
    cost = np.full((len(tracks), len(tracks)), impossible)
    for i, before in enumerate(tracks):
        for j in range(i + 1, len(tracks)):
            after = tracks[j]
            if after.data.first > before.last + _CONTINUES:
                break
            cut = bool(np.searchsorted(cuts, before.last) < np.searchsorted(cuts, after.data.first, side="right"))
            if after.data.first < before.last or cut:
                continue
            move, zoom = _step(before.data, after.data)
            if move <= _MAX_MOVE and 1 / _MAX_ZOOM <= zoom <= _MAX_ZOOM:
                cost[i, j] = move
    rows, columns = linear_sum_assignment(cost)
    following = {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cost[i, j] < impossible}
    chains = []
    for head in sorted(set(range(len(tracks))) - set(following.values())):
        chain = [head]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        chains.append([tracks[i] for i in chain])
    return chains


def _step(before: TrackSummary, after: TrackSummary) -> tuple[float, float]:
    """Movement in face sizes and ratio of sizes, from the last valid frame of one to the first of the other."""
    sizes = [float(np.sqrt(np.prod(b[2:] - b[:2]))) for b in (before.box_V4[-1], after.box_V4[0])]
    moved = np.linalg.norm(after.entry_L2 - before.exit_L2, axis=1).mean()
    return float(moved) / sizes[0], sizes[1] / sizes[0]


def _merged(people: list[Person]) -> list[Person]:
    """Joins who looks the same. Who is seen together never joins."""
    if len(people) < 2:
        return people
    apart_NN = np.array([[a is not b and seen_together(a, b) for b in people] for a in people])
    appearances = [person.appearance for person in people]
    two = [(int(i), int(j)) for i, j in np.argwhere(np.triu(apart_NN))]
    presence_N = np.array([person.presence for person in people])
    groups = joined(appearances, presence_N, apart_NN, learned().adapted(appearances, two))
    return [_one([people[number] for number in group]) for group in groups]


def _one(parts: list[Person]) -> Person:
    tracks = sorted((t for part in parts for t in part.tracks), key=lambda t: (t.data.first, t.piece, t.track))
    return Person(parts[0].media, parts[0].frames, tuple(tracks))


def may_be_one(a: Person, b: Person) -> bool:
    """Nothing shows that these are two people."""
    return not seen_together(a, b) and learned().same(a.appearance, b.appearance) > -_SURE


def seen_together(a: Person, b: Person) -> bool:
    """In more frames than a mistake of the tracker's makes."""
    if a.first >= b.last or b.first >= a.last:
        return False
    return int(np.count_nonzero(a.seen_T & b.seen_T)) > _SHARED_FRAMES

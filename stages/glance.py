"""Glance: are two living faces in view? Asked of a few pictures, before a whole video is tracked.

Where the diarizer does not hear two people, the eyes may still see them talk; but most of such videos are monologues,
and tracking faces is most of a build's cost. So pairs of pictures half a second apart are looked at, each behind a key
frame, which decoding begins with anyway. A face counts if it moves against itself (nose, chin, lids, lips) from one
picture to another, as no photograph does.

The trade-off: generous, since what is let through is looked at properly later (`stages.cast`), and what is not is lost.
One picture with two living faces is enough, and looking ends there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.config import FacesConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import Glance
from visavis.schemas.rows import Conversation, Diarization, Row
from visavis.schemas.words import counted
from visavis.stages.base import Stage
from visavis.stages.face.people import gestures
from visavis.stages.faces import MAX_SIDE, FaceTracker, box_of, tracker_of
from visavis.stages.media.video import frames_on_grid

_APART = FPS // 2  # frames between the two pictures of a pair
_EVERY = 10.0  # seconds for each pair …
_FEWEST, _MOST = 3, 36  # … of all pairs
_SAME_PLACE = 1.0  # face sizes between two sights of one face
_STILL = 0.006  # face heights by which nothing in a photograph moves, as in `stages.face.participants`
_NEAR = 2 * FPS  # frames by which a pair is moved to begin at a key frame


class GlanceInput(Row):
    """A conversation in one frame, and what was heard in it."""

    conversation: Conversation
    diarization: Diarization


@dataclass
class _Sights:
    """One face wherever it was seen: picture numbers, gestures [G] each, and the last place (centre, size)."""

    place: tuple[np.ndarray, float]
    pictures: list[int] = field(default_factory=list)
    gestures: list[np.ndarray] = field(default_factory=list)

    @property
    def lives(self) -> bool:
        return len(self.gestures) > 1 and float(np.std(self.gestures, axis=0).max()) >= _STILL


class GlanceStage(Stage[GlanceInput, Glance]):
    """A few pictures → that two living faces are seen at once. Rejects: ONE_SPEAKER, TOO_MANY_SPEAKERS."""

    name: ClassVar[str] = "glance"
    version: ClassVar[int] = 1
    config: FacesConfig

    def __init__(self, config: FacesConfig, tracker: FaceTracker | None = None) -> None:
        super().__init__(config)
        self._tracker = tracker

    def setup(self) -> None:
        if self._tracker is None:
            self._tracker = tracker_of(self.config)

    def process(self, item: GlanceInput) -> Iterator[Glance]:
        """One row.

        Raises:
            Rejected: as above; UNREADABLE, CHANGED.
        """
        conversation = item.conversation
        seen: list[_Sights] = []
        pictures = live = 0
        for first in places_of(conversation):
            for faces_FL3 in self._pair(conversation, first):
                _add(seen, pictures, faces_FL3)
                pictures += 1
            live = max(live, _most_at_once(seen))
            if live > 1:
                yield Glance(conversation=conversation.id, live=live, pictures=pictures)
                return
        voices = item.diarization.speakers
        faces = f"at most {counted(live, 'living face')} at once in {pictures} pictures"
        if voices > 2:
            raise Rejected(Reason.TOO_MANY_SPEAKERS, f"{voices} voices, and {faces}")
        raise Rejected(Reason.ONE_SPEAKER, f"one voice, as far as the diarizer can tell, and {faces}")

    def _pair(self, conversation: Conversation, first: int) -> Iterator[np.ndarray]:
        """Faces [F, 478, 3] in pixels of the picture as displayed, half a second apart."""
        assert self._tracker is not None, "call setup() first"
        (media,) = conversation.media
        last = min(first + _APART, conversation.frames - 1)
        pictures = frames_on_grid(
            media.uri,
            first,
            last + 1,
            decoder=self.config.decoder,
            max_side=MAX_SIDE,
            witness=media.witness,
        )
        for n, rgb in pictures:
            if n in (first, last):
                faces_FL3 = self._tracker.landmarks(rgb, new_shot=True)
                yield faces_FL3 * np.array([media.width, media.height, media.width], np.float32)


def places_of(conversation: Conversation) -> list[int]:
    """Grid frames at which pairs begin: spread evenly, at key frames where there are some near."""
    frames = conversation.frames
    count = int(np.clip(round(frames / FPS / _EVERY), _FEWEST, _MOST))
    spread = ((np.arange(count) + 0.5) * frames / count - _APART / 2).astype(int).clip(0)
    keys = np.array(sorted({*conversation.media[0].keyframes, *conversation.media[0].early_keyframes}) or [0])
    nearest = keys[np.abs(keys[:, None] - spread).argmin(axis=0)]
    within = max(_NEAR, frames // (2 * count))
    return sorted(
        {int(key if abs(key - place) < within else place) for key, place in zip(nearest, spread, strict=True)}
    )


def _add(seen: list[_Sights], picture: int, faces_FL3: np.ndarray) -> None:
    """Each face of a picture to the nearest one that was seen at its place, else as a new one."""
    for face_L3 in faces_FL3:
        box_4 = box_of(face_L3[None])[0]
        place = (box_4[:2] + box_4[2:]) / 2, _size(face_L3)
        known = [s for s in seen if picture not in s.pictures and _gap(s.place, place) < _SAME_PLACE]
        sights = min(known, key=lambda s: _gap(s.place, place), default=None)
        if sights is None:
            sights = _Sights(place)
            seen.append(sights)
        sights.place = place
        sights.pictures.append(picture)
        sights.gestures.append(gestures(face_L3[None])[0])


def _most_at_once(seen: Sequence[_Sights]) -> int:
    """Living faces in the picture that shows most of them."""
    shown = [picture for sights in seen if sights.lives for picture in sights.pictures]
    return int(np.bincount(shown).max()) if shown else 0


def _size(face_L3: np.ndarray) -> float:
    box_4 = box_of(face_L3[None])[0]
    return float(np.sqrt(np.prod(box_4[2:] - box_4[:2])))


def _gap(one: tuple[np.ndarray, float], other: tuple[np.ndarray, float]) -> float:
    """Between two places, in sizes of the larger face."""
    return float(np.linalg.norm(one[0] - other[0])) / max(one[1], other[1], 1e-6)

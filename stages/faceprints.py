"""Optional: what each participant's face looks like, to know people again in other conversations.

Of each participant the sharpest, most frontal and surest pictures are decoded again, spread over all of the
conversation, and a network of the user's own (`stages.models.face_encoder`) embeds the aligned faces. Their mean is
the faceprint; how alike its two halves are is kept beside it, for a network that nobody has measured
(`stages.crowd.likeness`).

Biometric data: kept in the run's folder, never in a dataset, and only where `faceprints.weights` names a network. Its
users are `visavis doctor` and splits by face (`split.people`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import SkipValidation

from visavis.schemas import FPS
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.people_config import FaceprintsConfig
from visavis.schemas.print_rows import Faceprints
from visavis.schemas.rows import Binding, Conversation, Media, Row
from visavis.stages.base import Stage
from visavis.stages.bind import seen_by_piece
from visavis.stages.face.alignment import aligned, five_points
from visavis.stages.face.heads import Heads
from visavis.stages.faces import MAX_SIDE
from visavis.stages.media.video import frames_on_grid
from visavis.stages.models.face_encoder import FaceEncoder, face_network_digest, load_face_encoder

LEAST = 4
"""Pictures below which nothing is said of a face."""
_STEP = 5  # frames: every fifth is a candidate
_TURNED = np.radians(40.0)  # of the head, to any side, beyond which a face is not embedded
_SMALLEST = 16.0  # pixels between the eyes
_ALONG = 10 * FPS  # frames that are decoded rather than sought


class FaceprintsInput(Row):
    """A conversation, its participants, and all that was seen of them. The faces are read piece by piece."""

    conversation: Conversation
    binding: Binding
    faces: SkipValidation[Sequence[FaceTracks]]


class FaceprintsStage(Stage[FaceprintsInput, Faceprints]):
    """A conversation to the faceprints of its participants. Nobody is rejected: who is hardly seen has none.

    Args:
        encoder: the network; none: the configured one, loaded by `setup`.
    """

    name: ClassVar[str] = "faceprints"
    version: ClassVar[int] = 1
    config: FaceprintsConfig

    def __init__(self, config: FaceprintsConfig, encoder: FaceEncoder | None = None) -> None:
        super().__init__(config)
        self._encoder = encoder

    @classmethod
    def digests(cls, config: FaceprintsConfig) -> Mapping[str, str]:
        return {"weights": face_network_digest(config)}

    def setup(self) -> None:
        """Load the network. Raises UsageError as `load_face_encoder`."""
        import cv2

        cv2.setNumThreads(1)
        self._encoder = self._encoder or load_face_encoder(self.config)

    def process(self, item: FaceprintsInput) -> Iterator[Faceprints]:
        """One row."""
        assert self._encoder is not None, "call setup() first"
        chosen = [
            picture
            for person in (0, 1)
            for picture in best(list(candidates(item.binding, item.faces, person)), self.config.pictures)
        ]
        codes: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for picture, rgb in shown(sorted(chosen, key=lambda p: p[:3]), item.conversation.media):
            points_5 = picture.points_5 * (rgb.shape[1] / picture.width)
            codes[picture.person].append(self._encoder(aligned(rgb, points_5, self._encoder.side)))
        yield Faceprints(
            conversation=item.conversation.id,
            prints=np.stack([_print(own, self._encoder.size) for own in codes]).astype(np.float16),
            pictures=(len(codes[0]), len(codes[1])),
            agreement=(_agreement(codes[0]), _agreement(codes[1])),
        )


class Picture(NamedTuple):
    """A participant in one frame of a file. points_5: as `five_points`, in a picture of that width. good: 0 … 1."""

    media: int
    frame: int
    person: int
    good: float
    width: int
    points_5: np.ndarray


def check_faceprints(config: FaceprintsConfig) -> None:
    """See that the network is there and can be run, where one is named.

    Raises:
        UsageError: as `load_face_encoder`.
    """
    if config.weights:
        load_face_encoder(config)


def candidates(binding: Binding, faces: Sequence[FaceTracks], person: int) -> Iterator[Picture]:
    """Pictures of a participant that can be embedded, by time; one row of `faces` is held."""
    media = binding.participants[person].media
    for seen in seen_by_piece(binding, faces, person):
        where_V, places = seen.where_V[::_STEP], seen.places[::_STEP]
        if not places:
            continue
        landmarks_VL3 = np.stack([track.landmarks[i] for track, i in places])
        pitch_V, yaw_V, _ = Heads.of(landmarks_VL3).angles().T
        turn_V = np.arccos(np.clip(np.cos(pitch_V) * np.cos(yaw_V), -1, 1))
        sharp_V = np.array([track.sharpness[i] for track, i in places], np.float64)
        sure_V = np.array([track.confidence[i] for track, i in places], np.float64)
        fresh_V = [track.fresh is None or bool(track.fresh[i]) for track, i in places]
        good_V = np.cos(turn_V) * sure_V * sharp_V / (sharp_V + max(float(np.median(sharp_V)), 1e-6))
        points_V5 = five_points(landmarks_VL3)
        apart_V = np.abs(points_V5[:, 1] - points_V5[:, 0])
        usable_V = np.array(fresh_V) & (turn_V < _TURNED) & (apart_V >= _SMALLEST) & np.isfinite(good_V)
        for v in np.flatnonzero(usable_V).tolist():
            yield Picture(media, int(where_V[v]), person, float(good_V[v]), seen.row.width, points_V5[v])


def best(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """The best one of each of as many stretches."""
    parts = np.array_split(np.arange(len(pictures)), min(count, len(pictures)) or 1)
    return [max((pictures[n] for n in part), key=lambda p: p.good) for part in parts if len(part)]


def shown(pictures: Iterable[Picture], media: Sequence[Media]) -> Iterator[tuple[Picture, np.ndarray]]:
    """Each with what its file shows then, uint8 [H, W, 3]; `pictures` by file and frame.

    What is near is decoded in one go; what is further, sought.
    """
    for stretch in _stretches(pictures):
        wanted = {frame: list(same) for frame, same in itertools.groupby(stretch, key=lambda p: p.frame)}
        file = media[stretch[0].media]
        span = (stretch[0].frame, stretch[-1].frame + 1)
        for n, rgb in frames_on_grid(file.uri, *span, max_side=MAX_SIDE, witness=file.witness):
            for picture in wanted.get(n, ()):
                yield picture, rgb


def _stretches(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    stretch: list[Picture] = []
    for picture in pictures:
        if stretch and (picture.media != stretch[0].media or picture.frame - stretch[-1].frame > _ALONG):
            yield stretch
            stretch = []
        stretch.append(picture)
    if stretch:
        yield stretch


def _print(codes: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Unit mean of unit embeddings, float64 [E]; zeros of too few."""
    return _unit(codes) if len(codes) >= LEAST else np.zeros(size)


def _agreement(codes: Sequence[np.ndarray]) -> float | None:
    """Cosine of what the first and the second half give."""
    if len(codes) < LEAST:
        return None
    half = len(codes) // 2
    return round(float(_unit(codes[:half]) @ _unit(codes[half:])), 4)


def _unit(codes: Sequence[np.ndarray]) -> np.ndarray:
    sum_E = np.sum(codes, axis=0, dtype=np.float64)
    return np.asarray(sum_E / max(float(np.linalg.norm(sum_E)), 1e-9))

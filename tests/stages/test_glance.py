"""Two living faces, or not, in a few pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.stages.test_faces import real_conversation
from visavis.pipeline.demo.dialogue import write_video
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.config import FacesConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import LANDMARKS, Glance
from visavis.schemas.rows import Conversation, Diarization, Layout, Media
from visavis.stages.glance import GlanceInput, GlanceStage, places_of

FRAMES = 40 * FPS
SETTINGS = FacesConfig()


class Seen:
    """A tracker that sees these faces in every picture: (x in pixels of 640, size, whether it moves)."""

    blendshapes = None

    def __init__(self, faces: Sequence[tuple[float, float, bool]]) -> None:
        self.faces, self.looked = faces, 0
        self._rng = np.random.default_rng(0)

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        self.looked += 1
        return np.array([self._face(*face) for face in self.faces], np.float32).reshape(-1, LANDMARKS, 3)

    def _face(self, x: float, size: float, moves: bool) -> np.ndarray:
        points = np.random.default_rng(1).uniform(-0.5, 0.5, (LANDMARKS, 3))
        points[[10, 152]] = (0, -0.5, 0), (0, 0.5, 0)
        points[[13, 14]] = (0, 0.2, 0), (0, 0.2, 0)
        points[14, 1] += moves * self._rng.uniform(0, 0.1)
        return (points * size + (x, 180, 0)) / (640, 360, 640)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """40 s of nothing, which the tracker of these tests does not mind."""
    path = tmp_path_factory.mktemp("glance") / "grey.mp4"
    pictures: Iterator[np.ndarray] = (np.full((360, 640, 3), 128, np.uint8) for _ in range(FRAMES))
    write_video(path, pictures, np.zeros(FRAMES * SAMPLE_RATE // FPS, np.float32))
    media = Media(
        uri=str(path), sha256="", bytes=0, width=640, height=360, fps=FPS, video_start=0, video_duration=40,
        audio_start=0, audio_duration=40, audio_rate=SAMPLE_RATE, audio_channels=1,
    )  # fmt: skip
    return Conversation(id="c", layout=Layout.ONE_FRAME, media=(media,), participants=("a", "b"), frames=FRAMES)


def glance(tracker: Seen, conversation: Conversation, speakers: int = 1) -> Glance:
    heard = Diarization(conversation="c", method="embedded", speakers=speakers, turns=())
    [row] = GlanceStage(SETTINGS, tracker).process(GlanceInput(conversation=conversation, diarization=heard))
    return row


def reason_of(tracker: Seen, conversation: Conversation, speakers: int = 1) -> Rejected:
    with pytest.raises(Rejected) as rejection:
        glance(tracker, conversation, speakers)
    return rejection.value


@pytest.mark.slow
def test_two_that_move_are_two_and_looking_ends_there(grey: Conversation) -> None:
    tracker = Seen([(160, 100, True), (480, 60, True)])
    assert glance(tracker, grey).live == 2
    assert tracker.looked == 2


@pytest.mark.parametrize(
    "faces",
    [
        [],
        [(160, 100, True)],
        [(160, 100, True), (480, 100, False)],  # a photograph
    ],
)
def test_a_monologue_has_no_second_living_face(grey: Conversation, faces: list[tuple[float, float, bool]]) -> None:
    rejected = reason_of(Seen(faces), grey)
    assert rejected.reason is Reason.ONE_SPEAKER
    assert "at most" in rejected.detail


def test_more_voices_than_faces(grey: Conversation) -> None:
    assert reason_of(Seen([(160, 100, True)]), grey, speakers=3).reason is Reason.TOO_MANY_SPEAKERS


def test_a_long_video_is_looked_at_a_few_times(grey: Conversation) -> None:
    hour = grey.model_copy(update={"frames": 3600 * FPS})
    assert 3 <= len(places_of(grey)) < len(places_of(hour)) <= 36
    keyed = grey.model_copy(update={"media": (grey.media[0].model_copy(update={"keyframes": (0, 480, 960)}),)})
    assert 480 in places_of(keyed)


@pytest.mark.nightly("real films, which are not part of a clone")
def test_real_people_are_seen_at_once(shared_media: Path) -> None:
    stage = GlanceStage(SETTINGS)
    stage.setup()
    for name, live in (("interview.mp4", 2), ("two_in_frame.mp4", 2)):
        conversation = real_conversation(shared_media / "conversation" / name)
        heard = Diarization(conversation=conversation.id, method="embedded", speakers=1, turns=())
        [row] = stage.process(GlanceInput(conversation=conversation, diarization=heard))
        assert row.live == live
    alone = real_conversation(
        shared_media / "conversation" / "pair_user.mp4", shared_media / "conversation" / "pair_avatar.mp4"
    )
    alone = alone.model_copy(update={"layout": Layout.ONE_FRAME, "media": alone.media[:1]})
    with pytest.raises(Rejected) as rejection:
        list(stage.process(GlanceInput(conversation=alone, diarization=heard)))
    assert rejection.value.reason is Reason.ONE_SPEAKER

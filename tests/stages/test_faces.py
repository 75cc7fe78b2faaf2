"""Tracks: one face stays one track, through changing order, gaps and doubles, and ends at a cut."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.test_video import write_video
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import FacesConfig, IngestConfig
from visavis.schemas.face_rows import FaceTracks, Piece, Track
from visavis.schemas.rows import Conversation, Source
from visavis.stages.face.crops import FaceCrop
from visavis.stages.face.facemesh import FaceMeshTracker, points_of
from visavis.stages.faces import Association, CutDetector, FacesStage, box_of, pieces_of
from visavis.stages.ingest import IngestStage, outline_of

TEMPLATE_L3 = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 3)).astype(np.float32)

LOOK = FaceCrop(np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8), 100.0, 1.0)


def face(x: float, y: float = 200.0, size: float = 100.0) -> np.ndarray:
    return (TEMPLATE_L3 * size + np.array([x, y, 0])).astype(np.float32)


def follow(frames: list[list[np.ndarray]], *, max_gap: int = 10, min_frames: int = 1) -> tuple[Track, ...]:
    association = Association(max_gap)
    for n, faces in enumerate(frames):
        association.add(n, np.array(faces, np.float32).reshape(-1, 478, 3), [LOOK] * len(faces))
    return association.tracks(min_frames)


def centres(track: Track) -> np.ndarray:
    return np.asarray((track.box[:, 0] + track.box[:, 2]) / 2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.permutations([0, 1, 2]), min_size=5, max_size=30))
def test_the_order_of_faces_means_nothing(orders: list[list[int]]) -> None:
    frames = []
    for n, order in enumerate(orders):
        faces = [face(200 + 3 * n), face(500 - 4 * n, 220), face(800, 100 + 5 * n)]
        frames.append([faces[i] for i in order])
    tracks = follow(frames)
    assert len(tracks) == 3
    assert all(t.valid.all() for t in tracks)
    for track, start in zip(tracks, (200, 500, 800), strict=True):
        assert abs(centres(track)[0] - start) < 10
        assert np.abs(np.diff(centres(track))).max() < 10


def test_a_short_gap_stays_invalid_inside_the_track() -> None:
    frames = [[face(200)] if not 20 <= n < 28 else [] for n in range(50)]
    [track] = follow(frames)
    assert track.first == 0
    assert len(track.valid) == 50
    assert not track.valid[20:28].any()
    assert track.valid.sum() == 42
    assert np.isnan(track.landmarks[20:28]).all()
    assert np.isnan(track.box[20:28]).all()
    assert track.landmarks.dtype == np.float32
    assert np.isfinite(track.landmarks[track.valid]).all()


def test_a_long_gap_ends_the_track() -> None:
    frames = [[face(200)] if not 20 <= n < 31 else [] for n in range(50)]
    first, second = follow(frames)
    assert (first.first, len(first.valid)) == (0, 20)
    assert (second.first, len(second.valid)) == (31, 19)


def test_two_that_are_lost_together_come_back_as_others() -> None:
    frames = [[face(200), face(600)] if not 20 <= n < 40 else [] for n in range(60)]
    assert [(t.first, len(t.valid)) for t in follow(frames)] == [(0, 20), (0, 20), (40, 20), (40, 20)]


def test_a_jump_is_another_face() -> None:
    assert len(follow([[face(200 if n < 10 else 320)] for n in range(20)])) == 2
    assert len(follow([[face(200, size=100 if n < 10 else 180)] for n in range(20)])) == 2
    assert len(follow([[face(200 + 30 * n)] for n in range(20)])) == 1  # fast, but every step is plausible


def test_two_detections_of_one_face_are_one() -> None:
    frames = [[face(203, size=95), face(200)] if n % 3 == 2 else [face(200)] for n in range(30)]
    [track] = follow(frames)
    assert track.valid.all()


def test_a_track_that_slides_onto_another_face_stops() -> None:
    frames = [[face(200), face(max(420 - 10 * n, 205))] for n in range(40)]
    tracks = follow(frames, max_gap=3)
    assert next(len(t.valid) for t in tracks) == 40
    assert len(tracks) == 2
    assert len(tracks[1].valid) < 30


def test_short_tracks_are_dropped() -> None:
    frames = [[face(200), face(600)] if n < 10 else [face(200)] for n in range(40)]
    assert len(follow(frames, min_frames=11)) == 1
    assert len(follow(frames, min_frames=10)) == 2


class FakeTracker:
    """Faces at known places, in shares of the picture."""

    blendshapes = None

    def __init__(self, faces: Callable[[int], list[np.ndarray]]) -> None:
        self._faces, self._calls, self.shots = faces, 0, list[int]()

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        if new_shot:
            self.shots.append(self._calls)
        self._calls += 1
        return np.array(self._faces(self._calls - 1), np.float32).reshape(-1, 478, 3)


def piece_of(path: Path, first: int, last: int, media: int = 0) -> Piece:
    return Piece(conversation="c", media=media, uri=str(path), first=first, last=last)


def test_a_cut_ends_every_track_and_resets_the_model(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [*(i / 25 for i in range(30)), *(1.2 + i / 25 for i in range(30))])
    still = [face(0.5, 0.5, 0.2)]
    # Brightness climbs by three a frame, which is no cut; a threshold under that makes each frame one.
    calm = FakeTracker(lambda n: still)
    [one_shot] = FacesStage(FacesConfig(min_track=0.0, min_likeness=0.0), calm).process(
        piece_of(tmp_path / "clip.mp4", 0, 60)
    )
    assert one_shot.cuts == ()
    assert len(one_shot.tracks) == 1
    assert calm.shots == [0]
    assert (one_shot.width, one_shot.height) == (64, 48)
    assert np.nanmean(one_shot.tracks[0].box[:, 0]) < 64  # pixels, from shares
    jumpy = FakeTracker(lambda n: still)
    [many] = FacesStage(FacesConfig(min_track=0.0, cut_threshold=0.5), jumpy).process(
        piece_of(tmp_path / "clip.mp4", 20, 26)
    )
    assert many.cuts == (21, 22, 23, 24, 25, 26)  # the next piece begins with a cut, and does not see it
    assert len(many.tracks) == 6
    assert jumpy.shots == [0, 1, 2, 3, 4, 5]


def test_cuts_are_seen_at_once() -> None:
    is_cut = CutDetector(27.0)
    red, blue = (np.full((90, 160, 3), c, np.uint8) for c in ((200, 30, 30), (30, 30, 200)))
    assert [is_cut(n, red if n < 5 or n >= 8 else blue) for n in range(10)] == [n in (5, 8) for n in range(10)]


def test_a_picture_without_faces_is_no_rejection(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", [i / 25 for i in range(10)])
    [row] = FacesStage(FacesConfig(), FakeTracker(lambda n: [])).process(piece_of(tmp_path / "clip.mp4", 0, 10))
    assert row.tracks == ()
    assert row.cuts == ()


@functools.cache
def loaded_stage() -> FacesStage:
    stage = FacesStage(FacesConfig())
    stage.setup()
    return stage


@functools.cache
def real_conversation(*uris: Path) -> Conversation:
    [conversation] = IngestStage(IngestConfig()).process(Source(uris=tuple(str(u) for u in uris)))
    return conversation


@functools.cache
def real_faces(*uris: Path) -> tuple[FaceTracks, ...]:
    """Tracked once for all tests: it takes seconds."""
    stage = loaded_stage()
    conversation = real_conversation(*uris)
    pieces = pieces_of(outline_of(conversation), [str(u) for u in uris], stage.config)
    return tuple(row for piece in pieces for row in stage.process(piece))


@pytest.mark.nightly("a real film, which is not part of a clone")
def test_interview_keeps_both_people_all_the_time(shared_media: Path) -> None:
    clip = shared_media / "conversation" / "interview.mp4"
    [row] = real_faces(clip)
    assert row.cuts == ()
    assert len(row.tracks) == 2
    host, guest = row.tracks
    for track, (low, high) in ((host, (300, 500)), (guest, (750, 1000))):
        assert track.valid.sum() >= 0.98 * real_conversation(clip).frames
        seen = centres(track)[track.valid]
        assert low < seen.min()
        assert seen.max() < high


@pytest.mark.nightly("a real film, which is not part of a clone")
def test_two_in_frame_at_24_fps(shared_media: Path) -> None:
    [row] = real_faces(shared_media / "conversation" / "two_in_frame.mp4")
    left, right = row.tracks
    assert min(left.valid.sum(), right.valid.sum()) >= 0.98 * 213
    assert np.nanmax(centres(left)) < 416 < np.nanmin(centres(right))


@pytest.mark.nightly("real films, which are not part of a clone")
def test_a_pair_of_files_and_a_second_run(shared_media: Path) -> None:
    folder = shared_media / "conversation"
    rows = real_faces(folder / "pair_user.mp4", folder / "pair_avatar.mp4")
    assert [len(row.tracks) for row in rows] == [1, 1]
    assert all(row.tracks[0].valid.mean() >= 0.98 for row in rows)
    start = rows[0].piece.model_copy(update={"last": 50, "uri": str(folder / "pair_user.mp4")})
    once, again = (dump_rows(list(loaded_stage().process(start))) for _ in range(2))
    assert once == again  # whatever the worker did before


def test_the_face_model_starts_quietly(capfd: pytest.CaptureFixture[str], shared_media: Path) -> None:
    from visavis.stages.media.video import frames_on_grid

    tracker = FaceMeshTracker(2, 0.5)
    clip = str(shared_media / "conversation" / "pair_user.mp4")
    black = np.zeros((64, 64, 3), np.uint8)
    pictures = [black, *(rgb for _, rgb in frames_on_grid(clip, 0, 3))]
    faces = [tracker.landmarks(rgb, new_shot=n == 0) for n, rgb in enumerate(pictures)]
    assert [len(f) for f in faces] == [0, 1, 1, 1]
    assert faces[1].dtype == np.float32
    assert box_of(faces[1][0]).shape == (4,)
    assert capfd.readouterr().err == ""


def test_landmarks_are_read_right_whatever_their_encoding() -> None:
    from mediapipe.framework.formats.landmark_pb2 import NormalizedLandmarkList

    places = np.random.default_rng(0).standard_normal((478, 3)).astype(np.float32)
    places[0] = 0
    face = NormalizedLandmarkList()
    for x, y, z in places.tolist():
        face.landmark.add(x=x, y=y, z=z)
    assert np.array_equal(points_of(face), places)
    face.landmark[7].visibility = 0.5  # a longer encoding
    assert np.array_equal(points_of(face), places)
    face.landmark[7].ClearField("visibility")
    face.landmark[7].ClearField("z")
    face.landmark[7].presence = 0.5  # as long as before
    assert np.array_equal(points_of(face)[8:], places[8:])
    assert points_of(face)[7].tolist() == [*places[7, :2].tolist(), 0.0]

"""The codec gives back pose and expression, exactly and independent of who and where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.schemas.config import MotionConfig
from visavis.schemas.dyads import Codec, CodecStatistics
from visavis.schemas.face_rows import LANDMARKS
from visavis.stages.face.codec import decode_motion, encode_linear, fit_codec, merge_statistics
from visavis.stages.face.heads import align, canonical_face, head_rotation

MOVING = np.arange(0, 20)
"""Points that the test's expressions move: the canonical face's lips are among the first."""


def face() -> np.ndarray:
    """Canonical face with irises put at the centres of the eyes."""
    points = canonical_face()
    irises = np.repeat([points[[33, 133]].mean(0), points[[362, 263]].mean(0)], 5, axis=0)
    return np.concatenate([points, irises])


def expressions(frames: int, seed: int = 0) -> np.ndarray:
    """Faces [T, 478, 3] whose lower lip and jaw move along two directions."""
    rng = np.random.default_rng(seed)
    moved = np.repeat(face()[None], frames, axis=0)
    directions = np.zeros((2, LANDMARKS, 3))
    directions[0, [17, 14, 15, 16, 13]] = [0, -1, 0.2]
    directions[1, [61, 291, 78, 308]] = [0.6, 0.5, 0]
    codes = np.stack([np.sin(np.arange(frames) / 5), rng.standard_normal(frames) / 3], axis=1)
    return moved + np.einsum("te,elk->tlk", codes, directions)


def filmed(faces: np.ndarray, rotation: np.ndarray, scale: float = 12.0) -> np.ndarray:
    """Landmarks in pixels as a tracker gives them: y down, z away."""
    points = np.einsum("tij,tlj->tli", head_rotation(rotation), faces) * scale
    return ((points + [300, -200, 0]) * [1, -1, -1]).astype(np.float32)


def statistics(features: np.ndarray) -> CodecStatistics:
    steps = np.rint(features * 4096).astype(np.int64)
    return CodecStatistics(given=0, frames=len(steps), sum=steps.sum(0), outer=steps.T @ steps)


@pytest.fixture(scope="module")
def codec() -> Codec:
    faces = expressions(200)
    features = (faces - np.median(faces, 0)).reshape(200, -1)
    return fit_codec(statistics(features), MotionConfig(expression_dims=4))


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-0.6, 0.6)] * 3), st.floats(3, 40))
def test_a_known_head_pose_comes_back(angles: tuple[float, float, float], scale: float) -> None:
    rotation = np.repeat(np.array(angles)[None], 3, axis=0)
    pose, aligned = align(filmed(np.repeat(face()[None], 3, 0), rotation, scale), np.ones(3, bool))
    np.testing.assert_allclose(pose[:, :3], rotation, atol=1e-4)
    np.testing.assert_allclose(aligned[0], face(), atol=2e-3)


def test_moving_lips_do_not_move_the_head() -> None:
    faces = expressions(100)
    rotation = np.zeros((100, 3))
    rotation[:, 0] = 0.2 * np.sin(np.arange(100) / 4)
    pose, _ = align(filmed(faces, rotation), np.ones(100, bool))
    assert np.abs(pose[:, :3] - rotation).max() < np.radians(0.5)


def test_invalid_frames_stay_invalid() -> None:
    valid = np.array([True, False, True])
    landmarks = filmed(expressions(3), np.zeros((3, 3)))
    landmarks[1] = np.nan
    pose, aligned = align(landmarks, valid)
    assert np.isnan(pose[1]).all()
    assert np.isnan(aligned[1]).all()
    assert np.isfinite(pose[valid]).all()


@pytest.mark.slow
def test_round_trip_within_one_percent_of_the_eye_distance(codec: Codec) -> None:
    faces, rotation = expressions(120, seed=1), np.tile([0.1, -0.2, 0.05], (120, 1))
    landmarks = filmed(faces, rotation)
    pose, aligned = align(landmarks, np.ones(120, bool))
    neutral = np.median(aligned, 0)
    features = (aligned - neutral).reshape(120, -1) - codec.mean
    motion = np.concatenate([pose, encode_linear(codec, np.zeros((120, 0)), features)], axis=1)
    decoded = decode_motion(codec, motion, neutral)

    truth = landmarks * [1, -1, -1]
    width = np.ptp(canonical_face()[:, 0]) * 12.0
    offset = truth.mean((0, 1)) / width - decoded.mean((0, 1))
    error = np.linalg.norm((decoded + offset) * width - truth, axis=2).mean()
    eyes = np.linalg.norm(truth[0, 33] - truth[0, 263])
    assert error < 0.01 * eyes
    assert codec.explained > 0.99


@pytest.mark.slow
@settings(max_examples=3, deadline=None)  # seconds each
@given(st.permutations(range(8)), st.integers(1, 7))
def test_any_grouping_of_the_corpus_fits_the_same_codec(order: list[int], cut: int) -> None:
    faces = expressions(160)
    features = (faces - np.median(faces, 0)).reshape(160, -1)
    parts = [statistics(chunk) for chunk in np.array_split(features, 8)]
    shuffled = [parts[i] for i in order]
    regrouped = merge_statistics([merge_statistics(shuffled[:cut]), merge_statistics(shuffled[cut:])])
    whole = merge_statistics(parts)
    assert np.array_equal(whole.outer, regrouped.outer)
    config = MotionConfig(expression_dims=4)
    assert fit_codec(whole, config).id == fit_codec(regrouped, config).id

"""One decoder for every codec: what the given code says, and components of what it leaves over."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.roundtrip import round_trip
from tests.stages.test_motion import expressions, filmed
from tests.stages.tracks import FIGURES, track_of
from visavis.schemas.config import BuildConfig, FacesConfig, MotionConfig
from visavis.schemas.dyads import Codec, CodecKind, Motion
from visavis.schemas.errors import Rejected, UsageError
from visavis.schemas.face_rows import BLENDSHAPES, FaceTracks, Piece, Segment
from visavis.schemas.recipes import load_config
from visavis.schemas.rows import Binding, BoundParticipant
from visavis.stages.face.codec import (
    CODE_LIMIT,
    decode_motion,
    fit_codec,
    merge_statistics,
    movement,
    named_columns,
    statistics_of,
)
from visavis.stages.face.heads import POSE_DIMS, canonical_face
from visavis.stages.face.landmarker import check_faces
from visavis.stages.faces import FacesStage
from visavis.stages.motion import FitInput, FitStage, MotionInput, MotionStage

CONFIG = MotionConfig(kind="blendshapes", rest_dims=2)


def scores(frames: int, seed: int) -> np.ndarray:
    """Scores of the faces that `expressions` makes: one follows the jaw, the others mean nothing."""
    values = np.zeros((frames, BLENDSHAPES), np.float32)
    values[:, 25] = 0.5 + 0.4 * np.sin(np.arange(frames) / 5)
    values[:, 40] = np.random.default_rng(seed).random(frames) / 5
    return values


def conversation(name: str, frames: int = 150, *, resting: float = 0.0) -> tuple[Binding, FaceTracks]:
    """Two people beside each other, one of whom has a face that always scores higher."""
    tracks = []
    for person in (0, 1):
        landmarks = filmed(expressions(frames, seed=person), np.zeros((frames, 3)))
        track = track_of(landmarks + np.array([900.0 * person, 0, 0], np.float32), looks=person)
        found = scores(frames, person) + (resting if person else 0.0)
        tracks.append(track.model_copy(update={"blendshapes": found.astype(np.float32)}))
    piece = Piece(conversation=name, media=0, uri="", first=0, last=frames)
    faces = FaceTracks(piece=piece, width=1280, height=720, cuts=(), tracks=tuple(tracks))
    return binding_of(name, faces), faces


def binding_of(name: str, faces: FaceTracks) -> Binding:
    """The first two tracks as the two people, or the only one as both."""
    first, second = (
        BoundParticipant(
            name=f"{name}-{i}",
            media=0,
            speaker=i,
            segments=(Segment(piece=0, track=min(i, len(faces.tracks) - 1)),),
            score=0.0,
            margin=0.0,
            figures=FIGURES,
        )
        for i in (0, 1)
    )
    return Binding(conversation=name, participants=(first, second), turns=())


def fitted(config: MotionConfig, *corpus: tuple[Binding, FaceTracks]) -> Codec:
    item = FitInput(bindings=tuple(b for b, _ in corpus), faces=tuple(f for _, f in corpus))
    (statistics,) = FitStage(config).process(item)
    return fit_codec(statistics, config)


def motion_of(codec: Codec, corpus: tuple[Binding, FaceTracks], participant: int) -> Motion:
    binding, faces = corpus
    item = MotionInput(codec=codec, binding=binding, faces=(faces,), participant=participant)
    (motion,) = MotionStage().process(item)
    return motion


@pytest.mark.slow
def test_scores_and_rest_together_give_the_landmarks_back() -> None:
    corpus = conversation("c", resting=0.05)
    codec = fitted(CONFIG, corpus)
    assert codec.basis.shape == (BLENDSHAPES + 2, 478 * 3)
    without = fitted(CONFIG.model_copy(update={"rest_dims": 0}), corpus)
    for person in (0, 1):
        error = round_trip(codec, corpus[0], [corpus[1]], motion_of(codec, corpus, person))
        # What no score tells of is in the rest alone.
        bare = round_trip(without, corpus[0], [corpus[1]], motion_of(without, corpus, person))
        assert error < bare / 3
        assert error < 0.02
    assert codec.explained > 0.99 > without.explained


def test_scores_come_back_with_the_persons_own_neutral() -> None:
    corpus = conversation("c", resting=0.05)
    codec = fitted(CONFIG, corpus)
    calm, high = (motion_of(codec, corpus, person) for person in (0, 1))
    for motion, track in zip((calm, high), corpus[1].tracks, strict=True):
        found = motion.motion[:, POSE_DIMS : POSE_DIMS + codec.given] + motion.neutral_code
        np.testing.assert_allclose(found, track.blendshapes, atol=1e-6)
    # Who somebody is stays out of the motion.
    np.testing.assert_allclose(calm.motion[:, POSE_DIMS + 25], high.motion[:, POSE_DIMS + 25], atol=1e-6)
    assert high.neutral_code[25] - calm.neutral_code[25] == pytest.approx(0.05, abs=1e-6)


def test_movement_is_that_of_the_decoded_landmarks() -> None:
    corpus = conversation("c")
    codec = fitted(CONFIG, corpus)
    motion = motion_of(codec, corpus, 0).motion.copy()
    motion[:, :POSE_DIMS] = 0
    drawn = decode_motion(codec, motion, np.zeros((478, 3))).astype(np.float64)
    drawn *= np.ptp(canonical_face()[:, 0])  # cm
    assert movement(codec, motion) == pytest.approx(float(drawn.var(0).sum(1).mean()), rel=1e-3)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 5))
def test_any_grouping_gives_the_same_sums_with_a_given_code_too(order: list[int], cut: int) -> None:
    codes, features = coded_features()
    parts = [statistics_of(c, f) for c, f in zip(np.array_split(codes, 6), np.array_split(features, 6), strict=True)]
    shuffled = [parts[i] for i in order]
    one = merge_statistics([merge_statistics(shuffled[:cut]), merge_statistics(shuffled[cut:])])
    whole = statistics_of(codes, features)
    assert np.array_equal(one.outer, whole.outer)
    assert np.array_equal(one.sum, whole.sum)


def coded_features() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((120, 3)) * (1, 10, 1e-2)
    return codes, codes @ rng.standard_normal((3, 1434)) / 10 + rng.standard_normal((120, 1434)) / 100


@pytest.mark.slow
def test_a_codec_is_named_by_its_network_too() -> None:
    sums, config = statistics_of(*coded_features()), MotionConfig(kind="network", rest_dims=4)
    assert fit_codec(sums, config, "one").id == fit_codec(sums, config, "one").id
    assert fit_codec(sums, config, "one").id != fit_codec(sums, config, "other").id


def test_sums_stay_exact_at_the_largest_codes() -> None:
    codes = np.full((301, 2), CODE_LIMIT)
    codes[:, 1] -= 1 / 4096
    found = statistics_of(codes, np.full((301, 1434), 1 / 4096)).outer[:2, :2]
    steps = int(CODE_LIMIT * 4096)
    expected = [[steps**2, steps * (steps - 1)], [steps * (steps - 1), (steps - 1) ** 2]]
    assert found.tolist() == [[301 * v for v in row] for row in expected]


def test_statistics_of_different_codes_do_not_add_up() -> None:
    one, other = (statistics_of(np.ones((4, size)), np.ones((4, 1434))) for size in (2, 3))
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        merge_statistics([one, other])


def test_too_few_frames_are_told() -> None:
    few = statistics_of(np.ones((5, 3)), np.ones((5, 1434)))
    with pytest.raises(Rejected, match="5 frames cannot carry 9 dimensions"):
        fit_codec(few, MotionConfig(kind="network", rest_dims=6))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("motion.kind=blendshapes", "needs faces.model=face-landmarker"),
        ("motion.kind=network", "needs encode.network"),
    ],
)
def test_a_codec_without_what_it_needs_is_refused_in_one_line(override: str, told: str) -> None:
    recipe = Path(__file__).parents[2] / "configs" / "default.yaml"
    with pytest.raises(UsageError, match=told) as caught:
        load_config(recipe, BuildConfig, [override])
    assert "\n" not in str(caught.value)


def test_a_missing_or_wrong_face_landmarker_is_told_before_any_work(tmp_path: Path) -> None:
    wrong = tmp_path / "face_landmarker.task"
    wrong.write_bytes(b"another file")
    for path, told in ((None, "needs faces.landmarker"), (tmp_path / "none", "none"), (wrong, "has sha256")):
        config = FacesConfig(model="face-landmarker", landmarker=str(path) if path else None)
        with pytest.raises(UsageError, match=told) as caught:
            check_faces(config)
        assert "\n" not in str(caught.value)
    check_faces(FacesConfig())


@pytest.mark.nightly("real films, which are not part of a clone")
@pytest.mark.parametrize(("kind", "model"), [("landmark-pca", "facemesh"), ("blendshapes", "face-landmarker")])
def test_round_trip_on_real_faces(shared_media: Path, landmarker: Path, kind: str, model: str) -> None:
    """Within 1 % of the distance between the eyes with the default settings, D <= 64, for each of five real people."""
    config = MotionConfig.model_validate({"kind": kind})
    stage = FacesStage(FacesConfig.model_validate({"model": model, "landmarker": os.fspath(landmarker)}))
    stage.setup()
    corpus = []
    for name in ("interview", "both_talk", "pair_user"):
        uri = str(shared_media / "conversation" / f"{name}.mp4")
        (faces,) = stage.process(Piece(conversation=name, media=0, uri=uri, first=0, last=150))
        corpus.append((binding_of(name, faces), faces))
    codec = fitted(config, *corpus)
    assert POSE_DIMS + len(codec.basis) <= 64
    for binding, faces in corpus:
        for person in range(len(faces.tracks)):
            motion = motion_of(codec, (binding, faces), person)
            assert round_trip(codec, binding, [faces], motion) <= 1.0


@pytest.mark.parametrize(
    ("kind", "given", "first", "unit"),
    [
        ("landmark-pca", 0, "component_0", "cm"),
        ("blendshapes", BLENDSHAPES, "_neutral", ""),
        ("network", 5, "code_0", ""),
    ],
)
def test_every_column_of_a_motion_has_a_name_of_its_own(kind: CodecKind, given: int, first: str, unit: str) -> None:
    size = given + 3
    mean, basis = np.zeros(1434, np.float32), np.zeros((size, 1434), np.float32)
    codec = Codec(id="c", kind=kind, given=given, network="", mean=mean, basis=basis, explained=1.0)
    columns = named_columns(codec)
    names = [column.name for column in columns]
    assert len(set(names)) == len(names) == POSE_DIMS + size
    assert names[:POSE_DIMS] == ["pitch", "yaw", "roll", "x", "y", "log_size"]
    assert (columns[POSE_DIMS].name, columns[POSE_DIMS].unit) == (first, unit)
    assert (columns[-1].name, columns[-1].unit) == ("component_2", "cm")


def test_blendshapes_have_the_names_and_the_order_of_mediapipe() -> None:
    landmarker = pytest.importorskip("mediapipe.tasks.python.vision.face_landmarker", exc_type=Exception)
    theirs = [re.sub(r"_(\w)", lambda found: found[1].upper(), each.name.lower()) for each in landmarker.Blendshapes]
    codec = Codec(
        id="c",
        kind="blendshapes",
        given=BLENDSHAPES,
        network="",
        mean=np.zeros(1434, np.float32),
        basis=np.zeros((BLENDSHAPES, 1434), np.float32),
        explained=1.0,
    )
    ours = [column.name for column in named_columns(codec)[POSE_DIMS:]]
    assert [name.lstrip("_") for name in ours] == theirs

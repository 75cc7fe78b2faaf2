"""Faceprints: which pictures, how faces are aligned, and what the network may be."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stages.onnx_networks import CELLS, SIDE, SIZE, Node, field, of_cells, onnx
from tests.stages.puppets import rendered, tracked
from tests.stages.tracks import FIGURES
from visavis.pipeline.demo.people import make_person
from visavis.pipeline.demo.render import Pose
from visavis.schemas.errors import UsageError
from visavis.schemas.face_rows import FaceTracks, Segment
from visavis.schemas.people_config import FaceprintsConfig
from visavis.schemas.rows import Binding, BoundParticipant, Conversation, Media
from visavis.stages.face.alignment import aligned, five_points, to_template
from visavis.stages.faceprints import FaceprintsInput, FaceprintsStage, Picture, best, candidates, shown
from visavis.stages.models.face_encoder import FaceEncoder, OnnxFaceEncoder, load_face_encoder
from visavis.stages.models.onnx_files import check_onnx

FRAMES = 40
RELU = [Node("Flatten", ["faces"], "flat"), Node("Relu", ["flat"], "code")]


class Cells:
    """The mean colours of cells, as `of_cells` has them; remembers what it was shown."""

    side, size = SIDE, SIZE

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, face_SS3: np.ndarray) -> np.ndarray:
        step = SIDE // CELLS
        self.seen.append(face_SS3.reshape(CELLS, step, CELLS, step, 3).mean((1, 3)).transpose(2, 0, 1).ravel())
        return (self.seen[-1] / np.linalg.norm(self.seen[-1])).astype(np.float32)


def talk_of(rows: list[FaceTracks], files: list[Path], tracks: tuple[int, int] = (0, 0)) -> FaceprintsInput:
    """A conversation of which a file is given for each participant, or one for both; tracks: of each."""
    media = tuple(Media.model_construct(uri=str(file), witness="") for file in files)
    people = tuple(
        BoundParticipant(
            name=f"p{person}",
            media=min(person, len(files) - 1),
            speaker=person,
            segments=(Segment(piece=min(person, len(rows) - 1), track=tracks[person]),),
            score=0.0,
            margin=0.0,
            figures=FIGURES,
        )
        for person in (0, 1)
    )
    id_ = rows[0].piece.conversation
    binding = Binding.model_construct(conversation=id_, participants=people, turns=())
    talk = Conversation.model_construct(id="0" * 16, media=media)
    return FaceprintsInput.model_construct(conversation=talk, binding=binding, faces=rows)


def films(folder: Path, people: tuple[int, int], seed: int) -> FaceprintsInput:
    """Two rendered people who look about and talk."""
    from tests.stages.test_faces import loaded_stage

    folder.mkdir()
    rng = np.random.default_rng(seed)
    rows = []
    for media, index in enumerate(people):
        yaw, pitch, mouth = np.cumsum(rng.normal(0, [0.02, 0.01, 0.05], (FRAMES, 3)), axis=0).T
        motion = [Pose(p, y, 0, 0, 0, 0, m, 0, 0) for p, y, m in zip(pitch, yaw, np.clip(mouth, 0, 0.5), strict=True)]
        person = make_person(index, long_hair=bool(index % 2))
        pictures = rendered(person, motion)
        rows.append(tracked(loaded_stage(), folder / f"{media}.mp4", pictures, FRAMES, media=media))
    return talk_of(rows, [folder / "0.mp4", folder / "1.mp4"])


@pytest.mark.slow
def test_rendered_people_are_known_again_in_other_conversations(tmp_path: Path) -> None:
    pairs = ((0, 1), (2, 3), (1, 2), (3, 0))
    talks = [films(tmp_path / f"{seed}", both, seed) for seed, both in enumerate(pairs)]
    seen = Cells()
    for talk in talks:
        [row] = FaceprintsStage(FaceprintsConfig(), seen).process(talk)
        assert 6 <= min(row.pictures) <= max(row.pictures) <= FRAMES // 5, "of every fifth frame"
        assert min(float(known) for known in row.agreement if known is not None) > 0.95
    network = OnnxFaceEncoder(of_cells(np.mean(seen.seen, axis=0)), FaceprintsConfig())
    stage = FaceprintsStage(FaceprintsConfig(pictures=4), network)
    prints = np.concatenate([next(stage.process(talk)).prints for talk in talks]).astype(np.float64)
    who = np.array(pairs).ravel()
    cosine, same = prints @ prints.T, who[:, None] == who
    upper = np.triu(np.ones_like(same), 1).astype(bool)
    assert cosine[same & upper].min() > cosine[~same].max()


@pytest.mark.slow
def test_real_faces_lie_on_the_template_and_are_known_again(shared_media: Path) -> None:
    from tests.stages.test_faces import loaded_stage, piece_of

    found, eyes = [], []
    for clip, both in (("two_in_frame.mp4", True), ("interview.mp4", True), ("pair_user.mp4", False)):
        file = shared_media / "conversation" / clip
        for first in (0, 150):
            [row] = loaded_stage().process(piece_of(file, first, first + 30))
            talk = talk_of([row], [file], (0, 1 if both else 0))
            seen = Cells()
            [prints] = FaceprintsStage(FaceprintsConfig(pictures=4), seen).process(talk)
            assert prints.pictures == (4, 4)
            found += [(clip, person, np.mean(seen.seen[person::2], axis=0)) for person in range(1 + both)]
            for person in range(1 + both):
                [picture] = best(list(candidates(talk.binding, talk.faces, person)), 1)
                points_5 = picture.points_5
                turn, place = to_template(points_5, SIDE)
                eyes.append(place + turn * points_5[:2] - np.array([38.2946 + 51.6963j, 73.5318 + 51.5014j]))
    apart = np.abs(np.array(eyes))
    assert apart.max() < 6, "faces differ in their proportions, and five points are fitted by four numbers"
    assert np.abs(np.mean(eyes, axis=0)).max() < 2
    codes = np.array([code for _, _, code in found]) - np.mean([code for _, _, code in found], axis=0)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    same = np.array([[a[:2] == b[:2] for b in found] for a in found])
    cosine = unit @ unit.T
    assert cosine[same].min() > cosine[~same].max()


def test_a_face_is_turned_and_scaled_to_its_places_wherever_it_is() -> None:
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(0, 100, (478, 3)).astype(np.float32)
    turn, shift = 1.7 * np.exp(0.4j), 30 - 20j
    moved = landmarks[:, :2] @ (1, 1j) * turn + shift
    again = np.stack([moved.real, moved.imag, landmarks[:, 2]], axis=1)
    places = [
        a + b * five_points(each) for each in (landmarks, again) for b, a in [to_template(five_points(each), 112)]
    ]
    assert np.abs(places[0] - places[1]).max() < 1e-3
    assert to_template(five_points(landmarks), 224)[0] == pytest.approx(2 * to_template(five_points(landmarks), 112)[0])


def test_the_square_shows_what_was_at_the_points() -> None:
    points = np.array([80 + 60j, 120 + 64j, 97 + 84j, 82 + 103j, 112 + 106j])
    rgb = np.zeros((200, 200, 3), np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]], np.uint8)
    y, x = np.indices((200, 200))
    for point, colour in zip(points, colours, strict=True):
        rgb[abs(x + 1j * y - point) < 6] = colour
    face, (turn, place) = aligned(rgb, points, SIDE), to_template(points, SIDE)
    for point, colour in zip(points * turn + place, colours, strict=True):
        assert face[round(point.imag), round(point.real)].tolist() == colour.tolist()


def test_of_each_stretch_the_best_picture_is_taken() -> None:
    good = [0.1, 0.9, 0.2, 0.3, 0.8, 0.4, 0.5]
    pictures = [Picture(0, n, 0, value, 100, np.zeros(5)) for n, value in enumerate(good)]
    assert [picture.frame for picture in best(pictures, 3)] == [1, 4, 6]
    assert len(best(pictures, 50)) == len(good)
    assert best([], 3) == []


def test_pictures_near_and_far_are_those_of_their_frames(tmp_path: Path) -> None:
    """Every frame of the film says its number; two participants may want the same one."""
    with av.open(str(film := tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        for n in range(470):
            frame = np.full((32, 32, 3), (n % 256, n // 256, 0), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    wanted = [(0, 0), (3, 0), (3, 1), (200, 1), (455, 0), (469, 1)]
    pictures = [Picture(0, frame, person, 1.0, 32, np.zeros(5)) for frame, person in wanted]
    media = [Media.model_construct(uri=str(film), witness="")]
    found = [(int(rgb[0, 0, 0]) + 256 * int(rgb[0, 0, 1]), p.person) for p, rgb in shown(pictures, media)]
    assert found == wanted


NETWORKS: dict[str, tuple[bytes, str]] = {
    "a loop": (onnx([*RELU, Node("Loop", ["flat"], "code", graph=b"x")]), "more than a layer in Loop"),
    "a branch": (onnx([*RELU, Node("If", ["flat"], "code")]), "operator If"),
    "another domain": (onnx([*RELU, Node("Relu", ["flat"], "code", domain="com.microsoft")]), "domain com.microsoft"),
    "a file": (onnx(RELU, {"w": np.zeros(4)}, elsewhere="/etc/passwd"), "weights in other files"),
    "functions": (onnx(RELU) + field(25, b""), "functions"),
    "two graphs": (onnx(RELU) * 2, "no ONNX network"),
    "nothing": (b"", "no ONNX network"),
    "a pickle": (b"\x80\x04\x95", "."),
    "half of it": (of_cells()[:500], "cut short"),
    "another input": (onnx(RELU, takes=(1, 1, SIDE, SIDE), gives=(1, SIDE**2)), r"takes \[1, 1, 112, 112\]"),
    "batches": (onnx(RELU, takes=(8, 3, SIDE, SIDE), gives=(8, 3 * SIDE**2)), r"expected \[1, 3, S, S\]"),
    "any size": (onnx(RELU, takes=(1, 3, "h", "h"), gives=(1, "n")), "faces of h pixels"),
    "too long": (onnx(RELU, gives=(1, 3 * SIDE**2)), "numbers for a face"),
    "a picture": (onnx([Node("Relu", ["faces"], "code")], gives=(1, 3, SIDE, SIDE)), "gives"),
    "no layers": (onnx([Node("Relu", ["absent"], "code")]), "."),
    "not finite": (onnx([Node("Flatten", ["faces"], "x"), Node("Log", ["x"], "y"), Node("Slice", [], "code")]), "."),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_no_face_network_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data, said = NETWORKS[name]
    (file := tmp_path / "network.onnx").write_bytes(data)
    with pytest.raises(UsageError, match=said) as caught:
        load_face_encoder(FaceprintsConfig(weights=str(file)))
    assert str(caught.value).startswith("faceprints.weights: ")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200), st.integers(0, 900))
def test_bytes_of_any_kind_are_refused_or_let_through_and_nothing_else(noise: bytes, place: int) -> None:
    whole = of_cells()
    for data in (noise, whole[:place] + noise + whole[place + len(noise) :]):
        try:
            check_onnx(data)
        except ValueError:
            continue


def test_pixels_reach_the_network_as_its_settings_say(tmp_path: Path) -> None:
    (file := tmp_path / "network.onnx").write_bytes(data := of_cells(np.zeros(SIZE)))
    face = np.zeros((SIDE, SIDE, 3), np.uint8)
    face[..., 0], face[..., 2] = 255, 51

    def code(**settings: Any) -> np.ndarray:
        encoder: FaceEncoder = load_face_encoder(FaceprintsConfig(weights=str(file), **settings))
        found = encoder(face)
        assert np.linalg.norm(found) == pytest.approx(1)
        return found[:: CELLS * CELLS] / found[0]

    assert code() == pytest.approx([1, 0, 0.2])
    assert code(colour="bgr") == pytest.approx([1, 0, 5])
    assert code(mean=127.5, std=127.5) == pytest.approx([1, -1, -0.6], rel=1e-4)
    assert code(weights_sha256=hashlib.sha256(data).hexdigest()) == pytest.approx([1, 0, 0.2])
    with pytest.raises(UsageError, match="not 000000000000"):
        code(weights_sha256="0" * 64)

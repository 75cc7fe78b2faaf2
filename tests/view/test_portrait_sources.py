"""Portraits of pictures that people have, and of a frame of their own video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.view.faces import neutral_face
from visavis.pipeline.plan.outputs import Outputs
from visavis.pipeline.view.portrait import Portrait
from visavis.pipeline.view.portrait_sources import portrait_in, read_picture, read_portrait, unrest
from visavis.schemas.errors import UsageError
from visavis.stages.media.video import frames_on_grid


class FixedTracker:
    """Finds what it is given."""

    blendshapes = None

    def __init__(self, *boxes: tuple[float, float, float]) -> None:
        face_L2 = (neutral_face() * (1, -1, -1) / 20).astype(np.float32)
        self._faces = np.array([face_L2 * size + (x, y, 0) for x, y, size in boxes], np.float32).reshape(-1, 478, 3)

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        return self._faces


def saved(path: Path, size: tuple[int, int] = (320, 240), **options: object) -> Path:
    ramp = np.linspace(0, 255, size[0], dtype=np.uint8)
    Image.fromarray(np.repeat(np.tile(ramp, (size[1], 1))[..., None], 3, axis=2)).save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "ä b.jpeg"])
def test_pictures_are_read(tmp_path: Path, name: str) -> None:
    assert read_picture(saved(tmp_path / name)).shape == (240, 320, 3)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    assert read_picture(saved(tmp_path / "a.jpg", exif=exif)).shape == (320, 240, 3)


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    assert read_picture(saved(tmp_path / "a.jpg", (4000, 1000))).shape == (480, 1920, 3)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a" + bytes(60)])
def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.png: not a picture that is read") as refused:
        read_picture(tmp_path / "a.png")
    assert "\n" not in str(refused.value)


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = bytearray(saved(tmp_path / "a.bmp", (8, 8)).read_bytes())
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    (tmp_path / "a.bmp").write_bytes(data)
    with pytest.raises(UsageError, match="not a picture that is read"):
        read_picture(tmp_path / "a.bmp")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="portrait"):
        read_picture(tmp_path / "nobody.png")


def test_a_picture_without_a_face_is_told() -> None:
    with pytest.raises(UsageError, match=r"wall\.png: no face is found in it"):
        portrait_in(np.zeros((90, 120, 3), np.uint8), "wall.png", FixedTracker())


def test_of_several_faces_the_largest_is_taken() -> None:
    rgb = np.zeros((200, 400, 3), np.uint8)
    rgb[:, 200:] = 255
    found = portrait_in(rgb, "two.png", FixedTracker((0.25, 0.5, 0.15), (0.75, 0.5, 0.5)))
    x, y = np.rint(found.points_L3[6, :2]).astype(int)
    assert found.picture_SS3[y, x].min() > 250


@pytest.mark.parametrize("x", [0.02, 0.5, 0.98])
def test_a_face_at_the_edge_makes_a_whole_portrait(x: float) -> None:
    found = portrait_in(np.full((180, 320, 3), 90, np.uint8), "edge.png", FixedTracker((x, 0.5, 0.4)))
    assert found.picture_SS3.shape == (512, 512, 3)
    assert np.isfinite(found.points_L3).all()


def test_a_frame_that_rests_is_preferred() -> None:
    """Before one that looks away, talks, blinks or is blurred."""
    rest_L3 = neutral_face() * (1, -1, -1) * 10 + (200, 200, 0)
    turned_L3, open_L3, shut_L3 = rest_L3.copy(), rest_L3.copy(), rest_L3.copy()
    turned_L3[:, 0] = 200 + 0.8 * (rest_L3[:, 0] - 200) - 0.6 * rest_L3[:, 2]
    turned_L3[:, 2] = 0.8 * rest_L3[:, 2] + 0.6 * (rest_L3[:, 0] - 200)
    open_L3[[14, 87, 317, 17], 1] += 15
    shut_L3[[159, 160, 158, 386, 385, 387], 1] = rest_L3[[145, 144, 153, 374, 373, 380], 1]
    frames = np.stack([turned_L3, open_L3, shut_L3, rest_L3, rest_L3, rest_L3])
    cost_V = unrest(frames, neutral_face(), np.array([100.0, 100, 100, 5, 100, 90]))
    assert int(cost_V.argmin()) == 4


def test_a_run_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Outputs(str(tmp_path))


@pytest.mark.slow
def test_a_real_picture_makes_a_portrait(shared_media: Path, tmp_path: Path) -> None:
    ((_, rgb),) = frames_on_grid(str(shared_media / "conversation" / "interview.mp4"), 50, 51)
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])
    found = read_portrait(tmp_path / "a.png")
    assert isinstance(found, Portrait)
    eyes_2 = found.points_L3[[468, 473], :2]
    assert 40 < np.linalg.norm(eyes_2[1] - eyes_2[0]) < 160

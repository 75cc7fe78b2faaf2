"""Somebody who sits in front of the page, and a small listener that was never trained and follows them all the same."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from visavis.pipeline.live.avatar import Avatar
from visavis.pipeline.live.looking import Looker
from visavis.pipeline.live.perception import Seen
from visavis.pipeline.live.server import LiveServer
from visavis.schemas.config import FacesConfig
from visavis.schemas.dyads import Codec
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.train import FeatureConfig, ModelConfig, SamplerConfig
from visavis.stages.face.codec import motion_spec
from visavis.stages.face.heads import canonical_face
from visavis.training.model import build_model

CODES = 4
SMALL = ModelConfig(width=32, depth=1, heads=2, encoder_width=32, encoder_heads=2)


def codec() -> Codec:
    """Any four directions in which landmarks can move."""
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((LANDMARKS * 3, CODES)))[0].T
    mean = np.zeros(LANDMARKS * 3, np.float32)
    return Codec(
        id="landmark-pca-000000000000", kind="landmark-pca", given=0, network="", mean=mean,
        basis=np.ascontiguousarray(basis, np.float32), explained=0.9,
    )  # fmt: skip


def avatar(speech_N: np.ndarray | None = None) -> Avatar:
    """A listener whose weights are drawn at random, so that everything in it has an effect."""
    scale = np.array([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, *[1.0] * CODES])
    spec = motion_spec(codec().id, 6 + CODES, np.zeros(6 + CODES), scale)
    model = build_model(SMALL, FeatureConfig(), spec, seed=0)
    drawn = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=drawn) * 1.5 / math.sqrt(weight.shape[-1]))
    neutral_L3 = np.concatenate([canonical_face(), canonical_face()[[468 - 10] * 10]]).astype(np.float32)
    return Avatar(
        model=model.eval().requires_grad_(False),
        sampler=SamplerConfig(guidance="none", steps=4),
        codec=codec(),
        reference_D=np.zeros(6 + CODES, np.float32),
        neutral_L3=neutral_L3,
        speech_N=np.zeros(0, np.float32) if speech_N is None else speech_N,
        faces=FacesConfig(max_faces=1),
        key="c-0-0",
    )


class FakeLooker:
    """Sees a nod of so many rad where the picture is bright, and nobody where it is black."""

    async def begin(self) -> None:
        pass

    async def look(self, jpeg: bytes) -> Seen | None:
        grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
        if grey is None or grey.mean() < 4:
            return None
        motion_D = np.zeros(6 + CODES)
        motion_D[0] = grey.mean() / 255
        return Seen(motion_D, np.zeros(6 + CODES), np.zeros((LANDMARKS, 3), np.float32))


def jpeg(brightness: int, size: tuple[int, int] = (64, 48)) -> bytes:
    done, data = cv2.imencode(".jpg", np.full((size[1], size[0], 3), brightness, np.uint8))
    assert done
    return data.tobytes()


@contextmanager
def serving(listener: Avatar, looker: Looker | None = None) -> Iterator[LiveServer]:
    """The server in a thread of its own; what its loop complains of fails the test."""
    loop = asyncio.new_event_loop()
    complaints: list[str] = []
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    looking = looker or listener.looking()
    server = LiveServer(listener, looking)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(20)
    try:
        if looker is None:
            asyncio.run_coroutine_threadsafe(looking.begin(), loop).result(60)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        if looker is None:
            looking.close()  # type: ignore[attr-defined]
    assert complaints == []


def clip(folder: Path, nods: Sequence[int], frames: int) -> list[str]:
    """Chromium's flags for somebody who nods at these frames, with a click at each; it goes round and round."""
    from benchmarks.fake_devices import flags, write_pictures, write_sound
    from visavis.pipeline.demo.people import make_person
    from visavis.pipeline.demo.render import Pose, Renderer

    renderer = Renderer(make_person(0, long_hair=False), 640, 480, 13.0)
    pitch_T = np.zeros(frames)
    for nod in nods:
        pitch_T += 0.25 * np.exp(-0.5 * ((np.arange(frames) - nod) / 2.5) ** 2)
    drawn: dict[float, np.ndarray] = {}
    for pitch in set(pitch_T.round(2).tolist()):
        drawn[pitch] = renderer.frame(Pose(pitch, 0, 0, 0, 0, 0, 0, 0, 0))
    pictures = (numbered(drawn[pitch], n) for n, pitch in enumerate(pitch_T.round(2).tolist()))
    folder.mkdir(parents=True, exist_ok=True)
    write_pictures(folder / "camera.y4m", pictures)
    sound_N = 0.001 * np.random.default_rng(0).standard_normal(frames * 640)
    for nod in nods:
        sound_N[nod * 640 :][:160] = 0.5 * np.sin(np.arange(160))
    write_sound(folder / "microphone.wav", sound_N, 16_000)
    return flags(folder / "camera.y4m", folder / "microphone.wav")


_WIDTH = 640  # of the camera's pictures
_BITS, _SIDE = 8, 16  # of a frame's number, and pixels of each


def numbered(rgb_HW3: np.ndarray, number: int) -> np.ndarray:
    """The picture with its number in the upper left corner, as black and white squares."""
    out = rgb_HW3.copy()
    for bit in range(_BITS):
        out[:_SIDE, bit * _SIDE : (bit + 1) * _SIDE] = 255 * (number >> bit & 1)
    return out


def number_of(jpeg: bytes) -> int:
    """What `numbered` wrote, after all that a camera and a browser do to it."""
    grey = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    side = _SIDE * grey.shape[1] / _WIDTH  # the page makes pictures smaller
    places = [round((bit + 0.5) * side) for bit in range(_BITS)]
    return sum(int(grey[places[0], place] > 127) << bit for bit, place in enumerate(places))

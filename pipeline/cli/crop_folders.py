"""Crops and landmarks on disk, as IMTalker's `renderer/dataset.py` reads them; each split is a dataset of its own.

    OUT/train/video_frame/VIDEO/image_000001.jpg    512 × 512, 25 a second
    OUT/train/lmd/VIDEO.txt                         image_000001.jpg x_y … : 68 points of each frame, whole pixels
    OUT/train/wav/VIDEO.wav                         what this person says meanwhile, 16 kHz
    OUT/val/…

Its loader sorts pictures by the number in their names and landmarks as text, so numbers have zeros before them. It
takes a video that has more than 25 pictures and landmarks: those are written last, so what a killed export left behind
is no video to it. Whole numbers, because readers of this format before it take no others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from visavis.pipeline.cli.export_layouts import wav
from visavis.pipeline.state.lock import LOCK_FILE
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import Split
from visavis.schemas.plain import read_strict, to_json
from visavis.schemas.storage.faults import about
from visavis.schemas.storage.inside import LINK
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing
from visavis.stages.face.fixed_crops import FaceClip, Square

SIDE = 512
"""Pixels of a picture."""
_QUALITY = 95  # of JPEG
_MARK, _LIST, _UNFINISHED = "export.json", "clips.jsonl", ".unfinished"


class CropFolder:
    """The folder of an export, on a disk, which is locked by now.

    Args:
        dataset: hash of the dataset that it is of. smallest: side of a square in pixels, see `face_clips`.

    Raises:
        UsageError: it holds something else.
    """

    def __init__(self, out: str, dataset: str, smallest: int) -> None:
        self.smallest = smallest
        self._store = Store(out)
        self.root = Path(self._store.full(_MARK)).parent
        mark = f"{to_json({'layout': 'imtalker', 'dataset': dataset, 'smallest': smallest})}\n".encode()
        found = self._store.peek(_MARK)
        if found is None and self.root.is_dir() and {path.name for path in self.root.iterdir()} - {LOCK_FILE}:
            raise UsageError(f"{out} holds something already: name another --out")
        if found not in (None, mark):
            raise UsageError(f"{out} holds the crops of another run, or with other options: name another --out")
        for name in (_UNFINISHED, *get_args(Split), *(f"{split}/video_frame" for split in get_args(Split))):
            if (self.root / name).is_symlink():
                raise UsageError(f"{out}: {name} {LINK}")
        self._store.write(_MARK, mark)

    def has(self, split: Split, video: str) -> bool:
        """Whether a video is there, whole."""
        return self._store.exists(f"{split}/lmd/{video}.txt")

    @contextmanager
    def unfinished(self) -> Iterator[None]:
        """Whatever was begun and not `put` is removed: of a killed export before this block, of this one after it."""
        folder = self.root / _UNFINISHED
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, video: str, number: int, rgb_HW3: np.ndarray, square: Square) -> None:
        """A video's picture number 0 and up, uint8 RGB."""
        crop = rgb_HW3[square.y : square.y + square.side, square.x : square.x + square.side]
        how = cv2.INTER_AREA if square.side > SIDE else cv2.INTER_CUBIC
        picture = cv2.cvtColor(cv2.resize(crop, (SIDE, SIDE), interpolation=how), cv2.COLOR_RGB2BGR)
        data = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
        folder = self.root / _UNFINISHED / video
        with about(str(folder)):
            if not number:
                folder.mkdir(parents=True)
            (folder / picture_name(number)).write_bytes(data)

    def put(self, split: Split, video: str, clip: FaceClip, audio_N: np.ndarray) -> None:
        """A video whose pictures are all there comes to lie in its place."""
        target = self.root / split / "video_frame" / video
        with about(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)  # of an export that was killed before it wrote landmarks
            (self.root / _UNFINISHED / video).rename(target)
        self._store.write(f"{split}/wav/{video}.wav", wav(audio_N))
        self._store.write(f"{split}/lmd/{video}.txt", landmark_lines(clip).encode())

    def write_list(self, clips: list[dict[str, object]]) -> None:
        """A line for each video, in whatever order they were made; those of an earlier call that are there stay."""
        before = (read_strict(line) for line in (self._store.peek(_LIST) or b"").splitlines())
        with parsing(lambda why: UsageError(f"{self.root / _LIST}: not what an export writes ({why})")):
            kept = {str(clip["video"]): clip for clip in before if self.has(clip["split"], str(clip["video"]))}
        kept |= {str(clip["video"]): clip for clip in clips}
        self._store.write(_LIST, "".join(f"{to_json(kept[video])}\n" for video in sorted(kept)).encode())


def picture_name(number: int) -> str:
    """Of picture number 0 and up."""
    return f"image_{number + 1:06d}.jpg"


def landmark_lines(clip: FaceClip) -> str:
    """A line for each picture."""
    scaled_TP2 = np.rint(clip.points_TP2 * (SIDE / clip.square.side)).astype(int).clip(0, SIDE - 1)
    lines = (
        f"{picture_name(t)} {' '.join(f'{x}_{y}' for x, y in points)}\n" for t, points in enumerate(scaled_TP2.tolist())
    )
    return "".join(lines)

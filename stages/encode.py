"""Optional: what a network of yours makes of each face, for `motion.kind: network`.

The picture is decoded again and each participant cut out of it with a square that does not move: twice as wide as the
face's box in the mean of the conversation, so head motion stays in the crop (arXiv 2601.00664, §3.1, and what its
released code does). Batches of such crops, float32 [B, 3, S, S], go through the network, which gives [B, E].

A network is a program: name only files that you trust. That is why `encode.network_sha256` has to name it, wherever it
lies. torch.export archives hold pickled tensors, which torch reads with its full unpickler; it is forced to the
restricted one here, and `stages.models.torch_archives` refuses archives with native code or with Python in them.
TorchScript brings code for its own interpreter, which can read and write files.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from visavis.schemas.config import EncodeConfig
from visavis.schemas.dyads import Encoded, FaceCodes
from visavis.schemas.errors import UsageError
from visavis.schemas.face_rows import Cast, FaceTracks, Member
from visavis.schemas.rows import Row
from visavis.schemas.storage.user_files import GB, read_given, short_digest
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import shown
from visavis.stages.base import Resources, Stage
from visavis.stages.bind import seen_in
from visavis.stages.face.codec import CODE_LIMIT
from visavis.stages.media.video import frames_on_grid
from visavis.stages.models.devices import pick_device
from visavis.stages.models.torch_archives import kind_of, tensors_only

if TYPE_CHECKING:
    import torch

_CROP = 2.0  # side of the crop over the longer side of the face's box
_MOST_BYTES = 8 * GB


class EncodeInput(Row):
    """One piece of video. uri: where it lies. number: which of the conversation's pieces it is (see `Segment`)."""

    uri: str
    number: int
    cast: Cast
    faces: FaceTracks


class EncodeStage(Stage[EncodeInput, Encoded]):
    """A piece of video → a network's code of each participant in each frame in which the face is valid."""

    name: ClassVar[str] = "encode"
    version: ClassVar[int] = 1
    config: EncodeConfig

    def __init__(self, config: EncodeConfig) -> None:
        super().__init__(config)

    @classmethod
    def digests(cls, config: EncodeConfig) -> Mapping[str, str]:
        return {"network": network_digest(config)}

    @property
    def resources(self) -> Resources:
        return Resources(gpus=1.0 if self.config.device == "cuda" else 0.0)

    def setup(self) -> None:
        """Load the network. Raises UsageError as `read_network`, or if it does not load."""
        device = pick_device(self.config.device)
        self._network = load_network(read_network(self.config), device)
        self._device = device

    def process(self, item: EncodeInput) -> Iterator[Encoded]:
        members = item.cast.members
        seen = [seen_in(item.faces, item.number, member.segments) for member in members]
        wanted = [set(part.where_V.tolist()) for part in seen]
        crops = [_Codes(self._encode, self.config.batch) for _ in members]
        if any(wanted):
            first, last = min(set.union(*wanted)), max(set.union(*wanted))
            for n, rgb in frames_on_grid(item.uri, first, last + 1, witness=item.faces.piece.witness):
                for member, frames, codes in zip(members, wanted, crops, strict=True):
                    if n in frames:
                        codes.add(crop_square(rgb, square_of(member), self.config.size))
        one, other = (FaceCodes(where=s.where_V, code=c.all()) for s, c in zip(seen, crops, strict=True))
        yield Encoded(conversation=item.cast.conversation, people=(one, other))

    def _encode(self, crops_BSS3: np.ndarray) -> np.ndarray:
        import torch

        pixels = torch.from_numpy(crops_BSS3).to(self._device).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            code = self._network(pixels * 2 - 1 if self.config.span == "-1..1" else pixels)
        if not isinstance(code, torch.Tensor) or code.ndim != 2 or len(code) != len(crops_BSS3):
            shape = list(code.shape) if isinstance(code, torch.Tensor) else type(code).__name__
            raise ValueError(
                f"the network gives {shape} for a batch of {len(crops_BSS3)}, expected one vector for each"
            )
        code_BE: np.ndarray = code.float().cpu().numpy()
        if not np.isfinite(code_BE).all() or np.abs(code_BE).max() > CODE_LIMIT:
            raise ValueError(f"the network's codes must be finite and within ±{CODE_LIMIT:g}: scale its output")
        return code_BE


class _Codes:
    """Codes of crops that come one by one, computed in batches of one size; the last is filled up with nothing."""

    def __init__(self, encode: Callable[[np.ndarray], np.ndarray], batch: int) -> None:
        self._encode, self._batch = encode, batch
        self._waiting: list[np.ndarray] = []
        self._codes: list[np.ndarray] = []

    def add(self, crop_SS3: np.ndarray) -> None:
        self._waiting.append(crop_SS3)
        if len(self._waiting) == self._batch:
            self._flush()

    def all(self) -> np.ndarray:
        """float32 [V, E]; E is 0 if there were none."""
        if self._waiting:
            self._flush()
        return np.concatenate(self._codes) if self._codes else np.zeros((0, 0), np.float32)

    def _flush(self) -> None:
        count = len(self._waiting)
        crops = np.zeros((self._batch, *self._waiting[0].shape), np.uint8)
        crops[:count] = self._waiting
        self._codes.append(self._encode(crops)[:count])
        self._waiting = []


def square_of(member: Member) -> tuple[int, int, int]:
    """x, y of the upper left corner, and side of a participant's crop, in pixels of the displayed picture."""
    x0, y0, x1, y1 = member.box
    side = max(2, math.ceil(_CROP * max(x1 - x0, y1 - y0)))
    return round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2), side


def crop_square(rgb_HW3: np.ndarray, square: tuple[int, int, int], size: int) -> np.ndarray:
    """The square of a picture, uint8 [S, S, 3]; beyond its borders the outermost pixels go on."""
    import cv2

    x, y, side = square
    height, width = rgb_HW3.shape[:2]
    left, top, right, bottom = max(0, -x), max(0, -y), max(0, x + side - width), max(0, y + side - height)
    inside = rgb_HW3[y + top : y + side - bottom, x + left : x + side - right]
    if left or top or right or bottom:
        inside = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE)
    smaller = size < side
    resized: np.ndarray = cv2.resize(
        inside, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    )
    return resized


def read_network(config: EncodeConfig) -> bytes:
    """The configured file, a torch.export or TorchScript archive.

    Raises:
        UsageError: none is named, it is not there, its digest is not named, or it is something else.
    """
    if config.network is None:
        raise UsageError("motion.kind=network needs encode.network, the encoder's file")
    name = shown(config.network)
    if config.network_sha256 is None:
        raise UsageError(
            f"encode.network: {name} is a program that runs as you: where you trust it, set encode.network_sha256 to"
            " what `sha256sum` says of it"
        )
    data = read_given("encode.network", config.network, config.network_sha256, most=_MOST_BYTES)
    with parsing(lambda why: UsageError(f"encode.network: {name} {why}")):
        kind_of(data)
    return data


def network_digest(config: EncodeConfig) -> str:
    """What the network is, wherever its file lies. Raises as `read_network`."""
    return short_digest(read_network(config))


def load_network(data: bytes, device: str) -> Callable[[torch.Tensor], Any]:
    """The network as a function on that device.

    Raises:
        UsageError: it does not load.
    """
    import torch

    with parsing(lambda why: UsageError(f"encode.network does not load: {why}")):
        if kind_of(data) == "script":
            script: Callable[[torch.Tensor], Any] = torch.jit.load(io.BytesIO(data), map_location=device).eval()  # type: ignore[no-untyped-call]
            return script
        from torch.export.passes import move_to_device_pass

        with tensors_only(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            program = torch.export.load(io.BytesIO(data))
        network: Callable[[torch.Tensor], Any] = move_to_device_pass(program, device).module()
        return network

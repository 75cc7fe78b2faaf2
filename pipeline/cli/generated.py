"""A picture of a generated window: the user, the recorded avatar and the generated one, as faces and as curves.

What `visavis generate` wrote is enough for the curves. Faces need the codec and the people's neutral faces, which lie
in the dataset; where that is not at hand, they are left out, and the reason is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from visavis.pipeline.cli.draw import GREY, draw_faces
from visavis.pipeline.plan.file_names import GENERATED
from visavis.pipeline.view.timeline import AVATAR, MODEL, USER, Colour
from visavis.schemas import FPS
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.manifest import MANIFEST_BYTES, MANIFEST_NAME, MotionSpec, parse_manifest
from visavis.schemas.plain import fitted, read_strict
from visavis.schemas.sample import decode_array
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import is_local, shown
from visavis.stages.face.codec import decode_motion
from visavis.stages.face.decode import avatar_of, check_flame, read_codec, read_faces, why_not_drawn
from visavis.stages.face.flame_landmarks import FlameFace

_SIDES: dict[str, Colour] = {"user": USER, "truth": AVATAR, "generated": MODEL}
_FACE, _MOMENTS = 170, 7  # pixels of a face's square, and how many there are in a row
_LEFT, _ROW = 130, 90  # pixels: room for names, height of a curve
_CURVES = 4  # dimensions of the expression
_FILE_BYTES = 256 << 20
_SCALE = 2  # drawn larger and made smaller, for smooth lines
_BLACK: Colour = (0, 0, 0)


def draw_generated(path: Path, dataset: str | None = None, flame: FlameFace | None = None) -> tuple[np.ndarray, str]:
    """A sheet, uint8 [H, W, 3] RGB, and why it has no faces; empty if it has.

    Args:
        path: KEY.generated.npy, with all that `visavis generate` wrote beside it.
        dataset: folder or URL where the dataset lies now, if not where it lay then.
        flame: draws motion that is FLAME's coefficients, for which no dataset is needed.

    Raises:
        UsageError: something beside it is missing or not what was written; a model for motion that is none of FLAME's.
    """
    with _reading(path):
        return _drawn(path, path.name.removesuffix(GENERATED), dataset, flame)


def read_generated(path: Path, dataset: str | None = None) -> tuple[str, str, np.ndarray]:
    """Of KEY.generated.npy: the key, where the dataset of the window lies, and the motion, float [T, D], finite.

    Args:
        dataset: folder or URL where the dataset lies now, if not where it lay then.

    Raises:
        UsageError: not what `visavis generate` wrote, or its dataset is on another machine and was not named.
    """
    key = path.name.removesuffix(GENERATED)
    with _reading(path):
        note, motion_TD = read_strict(_read(path.parent / f"{key}.json")), decode_array(_read(path))
        if motion_TD.ndim != 2 or not motion_TD.size or not np.isfinite(motion_TD).all():
            raise ValueError(f"{motion_TD.shape} are no frames of finite motion")
        place = dataset or str(note["location"])
    if far := _far(place, dataset):
        raise UsageError(f"{path}: {far}")
    return key, place, motion_TD


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises UsageError for what is wrong with files that may be of anybody's making."""

    def refuse(why: str) -> UsageError:
        return UsageError(f"{path}: not what `visavis generate` writes ({why})")

    with parsing(refuse):
        try:
            yield
        except OSError as error:
            raise refuse(f"{error.filename}: {error.strerror}") from error


def _far(place: str, named: str | None) -> str:
    """Why the dataset is not read, where only a file says that it lies elsewhere: a file makes us call nobody."""
    if named is not None or is_local(place):
        return ""
    return f"its dataset lay at {shown(place)}; if it is to be read, name the place with --dataset"


def _drawn(path: Path, key: str, dataset: str | None, flame: FlameFace | None) -> tuple[np.ndarray, str]:
    note = read_strict(_read(path.parent / f"{key}.json"))
    motion = fitted(MotionSpec, note["motion"])
    arrays = {name: decode_array(_read(path.parent / f"{key}.{name}.npy")) for name in (*_SIDES, "state", "valid")}
    frames = len(arrays["state"])
    shapes = {**dict.fromkeys(_SIDES, (frames, motion.dim)), "state": (frames,), "valid": (frames, 2)}
    if {name: array.shape for name, array in arrays.items()} != shapes or not frames:
        raise ValueError("shapes do not fit together")
    for name in _SIDES:
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{key}.{name}.npy has numbers that are not finite")
    place = dataset or str(note["location"])
    if flame is not None:
        check_flame(str(path), motion.codec)
        rows, missing = _rows(key, arrays, lambda made_TD, _: flame.points(made_TD, motion.codec)), ""
    elif missing := _far(place, dataset):
        rows = []
    else:
        rows, missing = _faces(key, note, arrays, place)
    title = f"{key}  {note['window']['label']}, conditions: {note['drop']}, seed {note['sampler']['seed']}"
    return np.concatenate([_heading(title), *rows, _curves(motion, arrays)]), missing


def _read(path: Path) -> bytes:
    return read_whole(*locate(str(path)), str(path), _FILE_BYTES)


def _faces(
    key: str, note: Mapping[str, Any], arrays: Mapping[str, np.ndarray], dataset: str
) -> tuple[list[np.ndarray], str]:
    """`_rows`; none, and why, where the codec or the people are not at hand."""
    try:
        codec, neutral = _decoder(note, dataset)
    except (OSError, DatasetError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        return [], f"{dataset}: {why or error}; if the dataset lies elsewhere now, name the place with --dataset"
    except LookupError as error:
        return [], f"{dataset}: {error.args[0]}"
    return _rows(key, arrays, lambda motion_TD, person: decode_motion(codec, motion_TD, neutral[person])), ""


def _rows(
    key: str, arrays: Mapping[str, np.ndarray], points: Callable[[np.ndarray, int], np.ndarray]
) -> list[np.ndarray]:
    """A row for each side. points: landmarks [T, 478, 3], face widths, of a person's motion."""
    avatar = avatar_of(key)
    shown = np.linspace(0, len(arrays["state"]) - 1, _MOMENTS).astype(int)
    rows = []
    for side, colour in _SIDES.items():
        person = 1 - avatar if side == "user" else avatar
        valid_M = arrays["valid"][shown, 1 if side == "user" else 0] | (side == "generated")
        pictures = draw_faces(
            points(arrays[side][shown], person), [colour if valid else GREY for valid in valid_M], _FACE
        )
        rows.append(np.concatenate([_text(side, colour, _FACE), *pictures], axis=1))
    moments = [_text(f"{n / FPS:.2f} s", _BLACK, 24, _FACE, left=_FACE // 2 - 24) for n in shown]
    return [*rows, np.concatenate([_text("", _BLACK, 24), *moments], axis=1)]


def _decoder(note: Mapping[str, Any], dataset: str) -> tuple[Codec, tuple[np.ndarray, np.ndarray]]:
    """The codec of a window's motion, and its people's neutral faces.

    Raises:
        OSError, DatasetError: the dataset is not there, or not what its manifest says.
        LookupError: it holds no codec or faces for this window.
    """
    store = Store(dataset)
    manifest = parse_manifest(store.read(MANIFEST_NAME, MANIFEST_BYTES), MANIFEST_NAME)
    codec, wanted = read_codec(store, manifest), note["motion"]["codec"]
    if codec is None:
        raise LookupError(why_not_drawn(manifest))
    if codec.id != wanted:
        raise LookupError(f"its codec is {codec.id}, and this window's motion is of {wanted}")
    conversation = note["window"]["conversation"]
    for entry in manifest.shards:
        if entry.path == note.get("shard", entry.path) and conversation in (people := read_faces(store, entry)):
            return codec, people[conversation].neutral
    raise LookupError(f"it holds no faces of conversation {conversation}")


def _curves(motion: MotionSpec, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Who speaks, pose in degrees, and the expression's dimensions that move most, in deviations of the corpus."""
    mean, std = np.array(motion.mean), np.array(motion.std)
    first, last = motion.expression
    moves = ((arrays["truth"] - mean) / std)[:, first:last].std(axis=0)
    picked = np.sort(np.argsort(-moves, kind="stable")[:_CURVES])
    rows = [_speech(arrays["state"])]
    for i, name in enumerate(("pitch", "yaw", "roll")[: motion.rotation[1] - motion.rotation[0]]):
        sides = {side: np.rad2deg(arrays[side][:, motion.rotation[0] + i]) for side in _SIDES}
        rows.append(_curve(f"{name}, deg", sides))
    for i in picked.tolist():
        sides = {side: (arrays[side][:, first + i] - mean[first + i]) / std[first + i] for side in _SIDES}
        rows.append(_curve(f"expression {i}", sides))
    return np.concatenate(rows)


def _speech(state_T: np.ndarray) -> np.ndarray:
    """A bar for each person's turns; a thinner one for back-channels."""
    picture = _blank(44)
    x_T = _places(len(state_T) + 1)
    for bit, (side, top) in enumerate((("truth", 8), ("user", 26))):
        for t in range(len(state_T)):
            thickness = 10 if state_T[t] >> bit & 1 else 4 if state_T[t] >> (bit + 2) & 1 else 0
            if thickness:
                corners = ((x_T[t], top + (10 - thickness) // 2), (x_T[t + 1], top + (10 + thickness) // 2))
                cv2.rectangle(picture, *corners, _SIDES[side], -1)
    picture[:, :_LEFT] = _text("who speaks", _BLACK, 44)
    return picture


def _curve(name: str, sides: Mapping[str, np.ndarray]) -> np.ndarray:
    """One dimension over time, all sides with one scale, which is written beside it."""
    values = np.concatenate(list(sides.values()))
    low, high = float(values.min()), float(values.max())
    room = max(high - low, 1e-3)
    large = _blank(_ROW * _SCALE, (_LEFT + _FACE * _MOMENTS) * _SCALE)
    for side, value_T in sides.items():
        y_T = _ROW - 8 - (value_T - low) / room * (_ROW - 16)
        x_T = (np.array(_places(len(value_T) + 1))[:-1] + np.array(_places(len(value_T) + 1))[1:]) / 2
        points = np.stack([x_T, y_T], axis=1) * _SCALE
        cv2.polylines(large, [points.round().astype(np.int32)], False, _SIDES[side], 2 * _SCALE, cv2.LINE_AA)
    picture = cv2.resize(large, None, fx=1 / _SCALE, fy=1 / _SCALE, interpolation=cv2.INTER_AREA)
    picture[:, :_LEFT] = _text(name, _BLACK, _ROW)
    for text, y in ((f"{high:.1f}", 14), (f"{low:.1f}", _ROW - 4)):
        cv2.putText(picture, text, (_LEFT - 44, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, GREY, 1, cv2.LINE_AA)
    picture[-1:] = 225
    return picture


def _heading(title: str) -> np.ndarray:
    picture = _blank(52)
    cv2.putText(picture, title, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _BLACK, 1, cv2.LINE_AA)
    for i, (side, colour) in enumerate(_SIDES.items()):
        shown = {"user": "user", "truth": "avatar, recorded", "generated": "avatar, generated"}[side]
        cv2.putText(picture, shown, (8 + 180 * i, 42), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    return picture


def _blank(height: int, width: int = _LEFT + _FACE * _MOMENTS) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


def _places(count: int) -> list[int]:
    """Borders of the frames, in pixels."""
    return [round(float(x)) for x in np.linspace(_LEFT, _LEFT + _FACE * _MOMENTS - 1, count)]


def _text(text: str, colour: Colour, height: int, width: int = _LEFT, left: int = 8) -> np.ndarray:
    picture = _blank(height, width)
    cv2.putText(picture, text, (left, height // 2 + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return picture

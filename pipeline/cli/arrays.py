"""Sequences from plain files, for `visavis metrics`: .npy or .npz, one by one in folders or many in one file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.sample import decode_array
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import counted
from visavis.stages.media.npz import read_members
from visavis.training.protocols.clips import Clip
from visavis.training.protocols.score import Protocol

_FARTHEST = 1e9  # a number beyond it is no motion, and its square is none of a float32
_LARGEST = 1 << 30  # bytes of an array: of clips in one file, 3,000 of 25 s with FLAME's columns; a folder holds more
_FLAME = {"exp": slice(0, 50), "jaw": slice(50, 53), "pose": slice(53, 56)}
_REACT = {"au": slice(0, 15), "va": slice(15, 17), "emotion": slice(17, 25)}  # action units, valence and arousal
_OTHER = {"_speaker1": "_speaker2", "_speaker2": "_speaker1"}
_ENDINGS = (".npy", ".npz")


def read_clips(
    truth: Path, user: Path, generated: Path, listening: Path | None = None
) -> tuple[dict[str, Clip], dict[str, int]]:
    """Clips by name, and what was left out: frames at ends, as sides of one clip are cut to the shortest, and sequences
    of the truth for which nothing was generated.

    Every path is a folder of .npy and .npz files, which belong together by name, or one file. Arrays: [T, D] of one
    clip, [N, T, D] of many; of what was generated also [K, T, D] for one clip and [N, K, T, D]. An .npz holds `motion`,
    or `exp` and `pose` as in DualTalk, which become exp, jaw, pose. listening: bool [T] or [N, T].

    Of `NAME_speaker1` and `NAME_speaker2` each has the other as its user, where both lie in one folder that is truth
    and user, or the user's folder has the other alone.

    Raises:
        UsageError: a file that is none of these or holds what is not finite, or one that has no counterpart.
    """
    truths, users, made = (_read(path, _motion, axes=2) for path in (truth, user, generated))
    masks = None if listening is None else _read(listening, _mask, axes=1)
    if len(truths) == 1 < len(made) and generated.is_file():  # several motions of one clip
        made = {generated.stem: np.stack(list(made.values()))}
    clips, cut, alone, partners = {}, 0, len(made) == 1, set[str]()
    together = truth.resolve() == user.resolve()
    for name, motion in made.items():
        partner = _partner(users, name, together=together)
        partners.add(partner)
        sides = [_of(truths, name, truth, alone), _of(users, partner, user, alone)]
        if np.array_equal(sides[0], sides[1]):
            raise UsageError(
                f"{name}: its user is the truth itself; a folder with both speakers is named twice, as TRUTH and USER"
            )
        mask = None if masks is None else _of(masks, name, listening or truth, alone)
        samples = motion if motion.ndim == 3 else motion[None]
        if any(side.ndim != 2 or side.shape[1] != samples.shape[2] for side in sides):
            shapes = ", ".join(str(array.shape) for array in (*sides, motion))
            raise UsageError(f"{name}: arrays of {shapes} do not compare; frames × dimensions of one size are expected")
        lengths = [len(side) for side in (*sides, samples[0], *([] if mask is None else [mask]))]
        frames = min(lengths)
        cut += max(lengths) - frames
        first, *more = samples[:, :frames]
        clips[name] = Clip(sides[0][:frames], sides[1][:frames], first, mask if mask is None else mask[:frames],
                           more=tuple(more))  # fmt: skip
    without = [name for name in truths if name not in made and not (together and name in partners)]
    left_out = {"frame": cut, "sequence": len(without) if len(truths) > 1 else 0}
    return clips, {what: count for what, count in left_out.items() if count}


def parts_of(columns: str | None, dims: int, protocol: Protocol) -> dict[str, slice]:
    """The parts of a motion: of `exp=0:50,jaw=50:53`; where nobody says, FLAME's of 56 columns, REACT's own 25 columns
    under its protocol, or all together.

    Raises:
        UsageError: not of that form, one name twice, or beyond the motion's dimensions.
    """
    if columns is None and protocol == "react" and dims == 25:
        return _REACT
    if columns is None:
        return _FLAME if dims == 56 else {"all": slice(0, dims)}
    parts: dict[str, slice] = {}
    for text in columns.replace(" ", "").split(","):
        name, _, ends = text.partition("=")
        first, _, last = ends.partition(":")
        if not (name.isidentifier() and first.isdecimal() and last.isdecimal() and int(first) < int(last) <= dims):
            raise UsageError(
                f"--columns {text}: NAME=FIRST:END within the {dims} columns, for example exp=0:50,jaw=50:53"
            )
        if name in parts:
            raise UsageError(f"--columns {columns}: {name} is there twice")
        parts[name] = slice(int(first), int(last))
    return parts


def _read(path: Path, read: Callable[[Path], np.ndarray], axes: int) -> dict[str, np.ndarray]:
    """Arrays by name; of one file with many clips the names are numbers. axes: of the array of a clip."""
    if path.is_dir():
        names = (file for file in path.iterdir() if not file.name.startswith("."))  # as other systems leave there
        files = sorted(file for file in names if file.suffix in _ENDINGS)
        if not files:
            raise UsageError(f"{path}: no .npy or .npz file in this folder (those below it are not searched)")
        found = [(file.stem, read(file)) for file in files]
        if len({name for name, _ in found}) < len(found):
            raise UsageError(f"{path}: an .npy and an .npz of one name")
        return dict(found)
    array = read(path)
    return {path.stem: array} if array.ndim <= axes else {f"{n:05d}": each for n, each in enumerate(array)}


def _motion(path: Path) -> np.ndarray:
    """Finite floats of two axes or more, none of them empty; none coarser than float32."""
    array = _array(path)
    if array.ndim < 2 or array.dtype == bool:
        raise UsageError(f"{path}: {array.dtype} {array.shape} is no motion; frames × columns of numbers are expected")
    if not array.size:
        raise UsageError(f"{path}: no frames in {array.shape}")
    wrong = ~np.isfinite(array)
    if count := int(np.count_nonzero(wrong)):
        *_, frame, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
        raise UsageError(
            f"{path}: {counted(count, 'number')} of {array.size} not finite, the first in frame {frame},"
            f" column {column}; mend these frames or leave them out on all sides"
        )
    if (most := float(np.abs(array).max())) > _FARTHEST:
        raise UsageError(f"{path}: a number of {most:g} is no motion; {_FARTHEST:g} is the most that is scored")
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _mask(path: Path) -> np.ndarray:
    """Booleans of one axis or two, also written as 0 and 1."""
    array = _array(path)
    if array.ndim not in (1, 2) or not np.isin(array, (0, 1)).all():
        raise UsageError(f"{path}: {array.dtype} {array.shape} does not say in which frames the avatar listens;"
                         " true or false for every frame is expected")  # fmt: skip
    return array.astype(bool)


def _array(path: Path) -> np.ndarray:
    with parsing(lambda why: UsageError(f"{path}: no array of numbers ({why})")):
        data = read_whole(*locate(str(path)), str(path), _LARGEST)
        if path.suffix != ".npz":
            return decode_array(data)
        for names in (("motion",), ("exp", "pose")):
            found = read_members(io.BytesIO(data), names, _LARGEST)
            if found is not None:
                return _flame(*found) if len(found) > 1 else found[0]
        raise ValueError("neither `motion` nor `exp` and `pose` are in it")


def _flame(exp: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """DualTalk's arrays as exp, jaw, pose."""
    if exp.ndim != 2 or pose.shape != (len(exp), 6):
        raise ValueError(f"exp {exp.shape} and pose {pose.shape}; frames × 50 and as many frames × 6 are expected")
    return np.concatenate([exp, pose[:, 3:], pose[:, :3]], axis=1)


def _partner(users: Mapping[str, np.ndarray], name: str, *, together: bool) -> str:
    """The name of a clip's user: the other speaker's, where that is all there is or both lie together."""
    for mine, theirs in _OTHER.items():
        if name.endswith(mine) and (other := name.removesuffix(mine) + theirs) in users:
            return other if together or name not in users else name
    return name


def _of(arrays: Mapping[str, np.ndarray], name: str, where: Path, alone: bool) -> np.ndarray:
    """The array of this name. alone: there is no other clip, so one array serves."""
    if name in arrays:
        return arrays[name]
    if len(arrays) == 1 and alone:
        return next(iter(arrays.values()))
    first = ", ".join(list(arrays)[:3])
    raise UsageError(f"{where} has nothing for {name}; it has {first}{', …' if len(arrays) > 3 else ''}")

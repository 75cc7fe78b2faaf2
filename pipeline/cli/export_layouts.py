"""A dataset in the layouts that others train on, as whole conversations put together again from its windows.

    dualtalk   SPLIT/NAME_speaker1.npz: exp [T, 50], pose [T, 6] (head, jaw), shape [T, 100] of zeros; and .wav, 16 kHz
    unils      data_lmdb/data.mdb: NAME_person → bytes of np.savez (audio, motioncode [T, 112], speech_mask);
               metadata.json: split → NAME → [path, path, frames]

Speaker 1 is a conversation's first participant. NAME is as it was imported, or the conversation's id. A conversation of
which windows were left out is several clips, named by their first frame. Only what is in windows is exported.
"""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import soundfile

from visavis.pipeline.engine.progress import Reporter
from visavis.schemas import SAMPLE_RATE
from visavis.schemas.coefficients import groups_of, kind_of
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import install
from visavis.schemas.manifest import MotionSpec, Split
from visavis.schemas.plain import to_json
from visavis.schemas.storage.store import Store
from visavis.schemas.uris import is_local, local_path
from visavis.stages.face.decode import avatar_of
from visavis.training.dataset import Dataset
from visavis.training.sequences import Recorded, Run, Side, read_sequences, runs_of

Layout = Literal["dualtalk", "unils"]
LAYOUTS: dict[str, Layout] = {"dualtalk": "dualtalk", "unils": "unils"}
ONE_SIDED = "left out (motion of one person only)"
SPLIT_NAMES: dict[Split, str] = {"train": "train", "val": "test"}
_SPEAKER, _PLAIN = re.compile(r"_speaker[12]$"), re.compile(r"[A-Za-z0-9_-]{1,150}")
_DATABASE_BYTES = 1 << 40  # of address space; the file grows with what is written


class Clip(NamedTuple):
    """A stretch of a conversation, its people in their order; motion None of whom there is none."""

    name: str
    motion: tuple[np.ndarray | None, np.ndarray | None]
    audio: tuple[np.ndarray, np.ndarray]
    speaks: tuple[np.ndarray, np.ndarray]


def export_layout(data: Dataset, layout: Layout, out: str, reporter: Reporter) -> dict[str, int]:
    """Write a dataset's conversations.

    Returns: clips by split, as the layout calls it, and how many were left out for want of one person's motion.

    Raises:
        UsageError: its motion is not what the layout holds, or it is a set of pairs; the folder holds something.
        DatasetError: a shard or sample is unreadable.
    """
    check_motion(data, layout)
    store = Store(out)
    if any(next(store.names(folder), None) for folder in ("train", "test", "data_lmdb")):
        raise UsageError(f"{out} holds something already: name another --out")
    counts: dict[str, int] = {}
    found = {split: chosen_runs(data, split) for split in get_args(Split) if data.manifest.of(split)}
    names = _names(run for runs, _ in found.values() for run in runs)
    with ExitStack() as stack:
        put = _dualtalk(store, data.manifest.motion) if layout == "dualtalk" else _unils(store, data, out, stack)
        for split, (runs, where) in found.items():
            with reporter.items(SPLIT_NAMES[split], len(runs)) as advance:
                for clip in clips_of(data, split, runs, where, names):
                    name = SPLIT_NAMES[split] if put(SPLIT_NAMES[split], clip) else ONE_SIDED
                    counts[name] = counts.get(name, 0) + 1
                    advance()
    return counts


def check_motion(data: Dataset, layout: Layout) -> None:
    """
    Raises:
        UsageError: the layout holds other motion, or whole conversations, which pairs are not.
    """
    if data.manifest.kind != "windows":
        raise UsageError(
            f"{data.location} holds pairs; --layout {layout} takes windows, of `visavis import` or a build"
        )
    codec, groups = data.manifest.motion.codec, groups_of(data.manifest.motion.codec)
    if kind_of(codec) != "flame" or not {"exp", "jaw", "pose"} <= set(groups):
        raise UsageError(
            f"{data.location}: its motion is {codec}; {layout} holds FLAME's coefficients (exp, jaw, pose)"
        )


def chosen_runs(data: Dataset, split: Split) -> tuple[list[Run], Mapping[str, set[Side]]]:
    """Each stretch of a split once, whoever of its people were avatars in it; and where its windows lie."""
    runs, where = runs_of(data, split)
    first: dict[tuple[str, int], str] = {}
    for run in runs:
        first.setdefault((run.side.conversation, run.starts[0]), run.side.avatar)
    once = [run for run in runs if first[run.side.conversation, run.starts[0]] == run.side.avatar]
    return once, where


def clips_of(
    data: Dataset, split: Split, once: Sequence[Run], where: Mapping[str, set[Side]], names: Mapping[str, str]
) -> Iterator[Clip]:
    """The clips of `chosen_runs`. names: of conversations, over all splits: a database has one room for all."""
    several = {name for name, same in itertools.groupby(run.side.conversation for run in once) if len(list(same)) > 1}
    for sequence in read_sequences(data, split, once, where):
        conversation = sequence.side.conversation
        number = f"_{sequence.key.split('-')[2]}" if conversation in several else ""
        yield _clip(sequence, f"{names[conversation]}{number}")


def _names(runs: Iterable[Run]) -> dict[str, str]:
    """What clips of a conversation are called: NAME of NAME_speaker1, where no other one is called so; else its id."""
    wanted = {run.side.conversation: run.side.avatar for run in runs}
    stems = {which: _SPEAKER.sub("", name).rpartition("/")[2] for which, name in wanted.items()}
    count = Counter(stems.values())
    return {which: stem if count[stem] == 1 and _PLAIN.fullmatch(stem) else which for which, stem in stems.items()}


def _clip(sequence: Recorded, name: str) -> Clip:
    user = sequence.user if sequence.valid.any() else None
    sides = (sequence.truth, user), (sequence.avatar_audio, sequence.user_audio)
    speaks = sequence.state & 0b0101 > 0, sequence.state & 0b1010 > 0
    if avatar_of(sequence.key) == 0:
        return Clip(name, sides[0], sides[1], speaks)
    return Clip(name, (user, sequence.truth), (sequence.user_audio, sequence.avatar_audio), (speaks[1], speaks[0]))


def _dualtalk(store: Store, motion: MotionSpec) -> Callable[[str, Clip], bool]:
    groups = groups_of(motion.codec)

    def put(split: str, clip: Clip) -> bool:
        for number, (motion_TD, audio_N) in enumerate(zip(clip.motion, clip.audio, strict=True), 1):
            stem = f"{split}/{clip.name}_speaker{number}"
            if motion_TD is not None:
                pose = np.concatenate([motion_TD[:, groups["pose"]], motion_TD[:, groups["jaw"]]], axis=1)
                shape = np.zeros((len(motion_TD), 100), np.float32)
                store.write(f"{stem}.npz", packed(exp=motion_TD[:, groups["exp"]], pose=pose, shape=shape))
            store.write(f"{stem}.wav", wav(audio_N))
        return True

    return put


def _unils(store: Store, data: Dataset, out: str, stack: ExitStack) -> Callable[[str, Clip], bool]:
    if not is_local(out):
        raise UsageError(f"{out}: an LMDB is written to a disk of this machine")
    try:
        import lmdb
    except ImportError as error:
        raise UsageError(f"--layout unils needs what is not installed here: {install('corpora')}") from error
    groups, table = groups_of(data.manifest.motion.codec), dict[str, dict[str, Any]]()
    store.write("data_lmdb/.keep", b"")
    base = lmdb.open(f"{local_path(out).rstrip('/')}/data_lmdb", map_size=_DATABASE_BYTES, subdir=True, sync=False)

    def end(kind: object, *_: object) -> None:
        base.sync()
        base.close()
        if kind is None:  # the table comes last: without it there is no export
            store.delete("data_lmdb/.keep")
            store.write("metadata.json", f"{to_json(table, indent=1)}\n".encode())

    stack.push(end)

    def put(split: str, clip: Clip) -> bool:
        if any(motion_TD is None for motion_TD in clip.motion):  # zeros would be a face at rest
            return False
        keys = []
        for number, (motion_TD, audio_N, speaks_T) in enumerate(zip(clip.motion, clip.audio, clip.speaks, strict=True)):
            assert motion_TD is not None
            key = f"{clip.name}_{number}"
            code = np.zeros((len(speaks_T), 112), np.float32)
            for name, first in (("exp", 0), ("pose", 100), ("jaw", 103), ("eyes", 106)):
                if name in groups:
                    part = motion_TD[:, groups[name]][:, : 100 if name == "exp" else None]
                    code[:, first : first + part.shape[1]] = part
            with base.begin(write=True) as change:
                change.put(key.encode(), packed(audio=audio_N, motioncode=code, speech_mask=speaks_T))
            keys.append(f"{split}/{key}")
        table.setdefault(split, {})[clip.name] = [*keys, len(clip.speaks[0])]
        return True

    return put


def packed(**arrays: np.ndarray) -> bytes:
    """The bytes of `np.savez`."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def wav(audio_N: np.ndarray) -> bytes:
    """16-bit mono at 16 kHz, the very numbers of the shard's FLAC."""
    buffer = io.BytesIO()
    samples = np.clip(np.rint(audio_N * 32767.0), -32768, 32767).astype(np.int16)
    soundfile.write(buffer, samples, SAMPLE_RATE, "PCM_16", format="WAV")
    return buffer.getvalue()

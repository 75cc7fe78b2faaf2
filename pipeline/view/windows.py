"""A window of a dataset as a scene: the user, and versions of the avatar's motion beside each other.

data = Dataset(folder)
sample, people = find_window(data, key, Looks())
versions = [Version("chosen", sample.chosen, AVATAR), Version("rejected", sample.rejected, REJECTED)]
write_film(path, [window_scene(sample, people, versions)])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from visavis.pipeline.view.faces import face_pictures
from visavis.pipeline.view.film import Panel, Scene
from visavis.pipeline.view.looks import Looks
from visavis.pipeline.view.puppet import Puppet
from visavis.pipeline.view.reactions import reactions, speech
from visavis.pipeline.view.timeline import AVATAR, MODEL, USER, Colour, Lane, Timeline, clock
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.pairs import REACTIVITY
from visavis.schemas.sample import Sample
from visavis.schemas.storage.store import Store
from visavis.schemas.uris import printable
from visavis.stages.face.decode import avatar_of, check_flame, read_codec, read_faces, why_not_drawn
from visavis.stages.face.flame_landmarks import FlameFace
from visavis.training.dataset import Dataset
from visavis.training.generate import find_sample

REJECTED: Colour = (176, 32, 60)
GENERATED_COLOURS: tuple[Colour, ...] = (MODEL, (130, 40, 160), (0, 128, 128), (150, 100, 0))
"""Of versions that models made, in turn."""


@dataclass(frozen=True)
class People:
    """What draws a window's motion. user_L3, avatar_L3: neutral faces of the two.

    flame: draws motion of these coefficients, whose id it comes with; none: motion is the codec's.
    """

    codec: Codec
    user_L3: np.ndarray
    avatar_L3: np.ndarray
    user: Puppet
    avatar: Puppet
    flame: tuple[FlameFace, str] | None = None

    def moves(self, motion_TD: np.ndarray) -> np.ndarray:
        """A window's motion as motion of `codec`."""
        if self.flame is None:
            return motion_TD
        face, coefficients = self.flame
        return face.motion(motion_TD, coefficients)


@dataclass(frozen=True)
class Version:
    """A motion of the avatar, [T, D] as the window has it; seen everywhere unless `valid_T` says otherwise."""

    title: str
    motion: np.ndarray
    colour: Colour
    valid: np.ndarray | None = None


def find_window(data: Dataset, key: str, looks: Looks) -> tuple[Sample, People]:
    """A window or pair, and what draws it.

    Args:
        looks: how people are drawn.

    Raises:
        UsageError: no such key, or a dataset whose motion cannot be drawn.
        DatasetError: unreadable.
    """
    shard, sample = find_sample(data, key)
    return sample, people_of(data, sample, shard, looks)


def people_of(data: Dataset, sample: Sample, shard: str, looks: Looks) -> People:
    """What draws a sample of a shard. Raises as `find_window` does."""
    store, coefficients = Store(data.location), data.manifest.motion.codec
    codec = read_codec(store, data.manifest)
    if looks.flame is not None:
        check_flame(data.location, coefficients)
        face, codec = looks.flame, looks.flame.codec
        user, avatar = (looks.puppet(codec, face.neutral_L3, "", 0, avatar=each) for each in (False, True))
        return People(codec, face.neutral_L3, face.neutral_L3, user, avatar, (face, coefficients))
    if codec is None:
        raise UsageError(f"{data.location}: its motion cannot be drawn as faces: {why_not_drawn(data.manifest)}")
    entry = next(entry for entry in data.manifest.shards if entry.path == shard)
    faces = read_faces(store, entry).get(sample.meta.conversation)
    if faces is None:
        raise DatasetError(f"{data.location}: {shard} has no faces of conversation {sample.meta.conversation}")
    number = avatar_of(sample.key)
    user_L3, avatar_L3 = faces.neutral[1 - number], faces.neutral[number]
    conversation = sample.meta.conversation
    user = looks.puppet(codec, user_L3, conversation, 1 - number, avatar=False)
    return People(codec, user_L3, avatar_L3, user, looks.puppet(codec, avatar_L3, conversation, number, avatar=True))


def recorded(sample: Sample) -> Version:
    return Version("avatar, recorded", sample.avatar_motion, AVATAR, sample.valid[:, 0])


def pair_versions(sample: Sample) -> list[Version]:
    """Raises UsageError where it is no pair."""
    if sample.chosen is None or sample.rejected is None:
        raise UsageError(f"{sample.key} is a window, not a pair")
    return [Version("chosen", sample.chosen, AVATAR), Version("rejected", sample.rejected, REJECTED)]


def window_scene(
    sample: Sample,
    people: People,
    versions: Sequence[Version],
    *,
    timeline: bool = True,
    title: str = "",
    side: int = 320,
) -> Scene:
    """The user and each version, with both voices: the user's on the left, the avatar's on the right.

    Args:
        timeline: whether it is shown.
        side: pixels of a panel, as `write_film` gets it.
    """
    motions = [Version("user", sample.user_motion, USER, sample.valid[:, 1])]
    motions += [replace(version, title=printable(version.title)) for version in versions]
    panels, lanes = [], []
    for number, version in enumerate(motions):
        of_user, motion_TD = number == 0, people.moves(version.motion)
        puppet, neutral_L3 = (people.user, people.user_L3) if of_user else (people.avatar, people.avatar_L3)
        valid_T = np.ones(len(version.motion), bool) if version.valid is None else version.valid
        panels.append(
            Panel(version.title, face_pictures(puppet, motion_TD, valid_T, side, version.colour), version.colour)
        )
        marks = reactions(people.codec, motion_TD, neutral_L3, valid_T)
        lanes.append(Lane(version.title, version.colour, (*speech(sample.state, 1 if of_user else 0), *marks)))
    return Scene(
        panels=tuple(panels),
        frames=len(sample.state),
        sound=[np.stack([sample.user_audio, sample.avatar_audio])],
        timeline=Timeline(tuple(lanes), start=sample.meta.start) if timeline else Timeline(),
        title=title,
    )


def describe(sample: Sample) -> str:
    """What a window is, in one line; of a pair, what the gate measured."""
    meta, pair = sample.meta, sample.pair
    said = f"{sample.key}  {meta.label.value} at {clock(meta.start)}"
    if pair is None:
        return said
    own = pair.scores is not None and pair.scorer not in ("", REACTIVITY)
    score = f", score {pair.scores[0]:.3g} over {pair.scores[1]:.3g}" if own and pair.scores else ""
    event = "" if pair.event_margin is None else f" (of phrase ends {pair.event_margin:+.2f})"
    return (
        f"{said}  reactivity {pair.reactivity_margin:+.2f}{event}, energy {pair.energy_margin:+.2f},"
        f" distance {pair.distance:.2f}{score}"
    )


def keys_of(data: Dataset, split: str, count: int) -> list[str]:
    """Keys of so many windows of a split, in turn from its classes; of all where there are fewer.

    Raises:
        UsageError: it has none.
    """
    entries = [entry for entry in data.manifest.shards if entry.split == split and entry.samples]
    if not entries:
        raise UsageError(f"{data.location} has no {split} samples; name another --split, or keys of windows")
    classes = {entry.label: [other for other in entries if other.label == entry.label] for entry in entries}
    each = [_keys(data, of_class, count) for of_class in classes.values()]
    found: list[str] = []
    while len(found) < count and any(each):
        for keys in each:
            if keys and len(found) < count:
                found.append(keys.pop(0))
    return found


def _keys(data: Dataset, entries: Sequence, count: int) -> list[str]:
    """Keys spread over a class's first shard."""
    every: Iterator[str] = (key for entry in entries[:1] for key, _ in data.groups(entry, data.fetch(entry)))
    known = list(every)
    step = max(1, len(known) // count)
    return known[step // 2 :: step][:count]

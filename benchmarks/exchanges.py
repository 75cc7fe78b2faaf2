"""Rendered heads that speak real voices, with the truth beside them; and how a build fares with them.

    python -m benchmarks.exchanges FOLDER [--seed N] [--most N] [--groups one_frame …] [--media FOLDER]

writes what is missing of these groups into FOLDER/<group>, each clip with `<clip>.truth.json`:

one_frame        the dialogues of the media folder, two heads side by side
per_participant  the same as two files, each with its own voice, a faint leak of the other's and its own noise
monologue        one voice, and a second face that listens, murmurs or chews: nobody's dialogue
picture          one voice, and a second face that is a photograph, as large or as a thumbnail
alone            one voice, one face
strangers        pieces of two recordings' voices in turns, two heads side by side: a dialogue like any other

The seed chooses heads, habits and sides: another seed is another set. `benchmarks.outcomes` builds and scores them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, repeat
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from benchmarks.acting import Film, Performance, Trait, draw_actor, perform
from benchmarks.diarization import SIBLING
from benchmarks.processes import say
from benchmarks.speech import Speech, crossed, dialogues, room, spoken_turns, voices
from visavis.pipeline.demo.dialogue import TOWARDS, write_video
from visavis.schemas import FPS
from visavis.schemas.rows import Turn

PANEL = (320, 360)
PIXELS_PER_CM = (7.6, 10.2)  # a face is 130 to 180 pixels high
LEAK = (0.0, 0.06)  # of the other's voice in one's own track
SECONDS = 9.0  # of a monologue
MONOLOGUES, PICTURES, ALONE, STRANGERS = 60, 12, 20, 12
COMPANIONS = ("listens", "murmurs", "chews")

Render = Callable[[Path, str], None]
"""Writes a clip of that name, and its truth, into a folder."""


@dataclass(frozen=True)
class Truth:
    """What is in a clip. speaker of a turn: 0 the left or only face, or the first file; 1 the other.

    expected: "ok", or "rejected". traits: of each person, what makes it hard.
    """

    name: str
    group: str
    files: tuple[str, ...]
    expected: str
    turns: tuple[Turn, ...]
    seconds: float
    traits: tuple[tuple[str, ...], ...]
    note: str = ""

    def write(self, folder: Path) -> None:
        fields = vars(self) | {"turns": [t.model_dump(mode="json") for t in self.turns]}
        (folder / f"{self.name}.truth.json").write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")


def read_truths(folder: Path) -> list[Truth]:
    """All of a folder, by name."""
    truths = []
    for path in sorted(folder.glob("*.truth.json")):
        fields = json.loads(path.read_text())
        turns = tuple(Turn.model_validate(turn) for turn in fields.pop("turns"))
        files, traits = tuple(fields.pop("files")), tuple(map(tuple, fields.pop("traits")))
        truths.append(Truth(**fields, turns=turns, files=files, traits=traits))
    return truths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=1000, help="clips of each group")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with diarization/ and flame/")
    options = parser.parse_args()
    for group in options.groups:
        place = options.folder / group
        place.mkdir(parents=True, exist_ok=True)
        for name, render in islice(GROUPS[group](options.media, options.seed), options.most):
            if not (place / f"{name}.truth.json").exists():
                render(place, name)
                say(f"{group}/{name}")


def one_frame(media: Path, seed: int) -> Iterator[tuple[str, Render]]:
    """The dialogues as one picture."""
    for number, speech in enumerate(dialogues(media)):
        yield f"{speech.name}-one", Scene("one_frame", number, seed).both(speech)


def per_participant(media: Path, seed: int) -> Iterator[tuple[str, Render]]:
    """The dialogues as two files."""
    for number, speech in enumerate(dialogues(media)):
        yield f"{speech.name}-two", Scene("per_participant", number, seed).each(speech)


def monologue(media: Path, seed: int) -> Iterator[tuple[str, Render]]:
    """One voice, two live faces."""
    for number, name, audio in _casting(media, MONOLOGUES, seed):
        companion = COMPANIONS[number % len(COMPANIONS)]
        yield f"mono{number:02d}-{name}", Scene("monologue", number, seed).one(audio, companion)


def picture(media: Path, seed: int) -> Iterator[tuple[str, Render]]:
    """One voice, a live face and a photograph."""
    for number, name, audio in _casting(media, PICTURES, seed + 1):
        companion = ("photograph", "thumbnail")[number % 2]
        yield f"photo{number:02d}-{name}", Scene("picture", number, seed).one(audio, companion)


def alone(media: Path, seed: int) -> Iterator[tuple[str, Render]]:
    """One voice, one face."""
    for number, name, audio in _casting(media, ALONE, seed + 2):
        yield f"alone{number:02d}-{name}", Scene("alone", number, seed).one(audio, "nobody")


def strangers(media: Path, seed: int) -> Iterator[tuple[str, Render]]:
    """Voices of different recordings in turns, as one picture."""
    for number, speech in enumerate(crossed(media, STRANGERS, seed)):
        yield f"cross{speech.name}", Scene("strangers", number, seed).both(speech)


GROUPS = {f.__name__: f for f in (one_frame, per_participant, monologue, picture, alone, strangers)}


def _casting(media: Path, count: int, seed: int) -> Iterator[tuple[int, str, np.ndarray]]:
    """Voices in an order of the seed, again from the start where there are fewer."""
    found = list(voices(media, SECONDS))
    order = np.random.default_rng([seed, 31]).permutation(len(found))
    for number in range(count):
        voice = found[order[number % len(found)]]
        yield number, voice.name, voice.audio


class Scene:
    """Two actors drawn by chance, and who sits on the left."""

    def __init__(self, group: str, number: int, seed: int) -> None:
        place = list(GROUPS).index(group)
        self._rng = np.random.default_rng([seed, place, number, 32])
        first = 5_000 + 1000 * seed + 150 * place + 2 * number
        self._group = group
        self._actors = [draw_actor(first + i) for i in (0, 1)]
        self._swap = bool(self._rng.random() < 0.5)
        self._scales = self._rng.uniform(*PIXELS_PER_CM, 2)
        self._size = float(self._rng.uniform(0.6, 1.6))
        self._seed = seed

    def both(self, speech: Speech) -> Render:
        """A dialogue in one picture."""
        spoken = speech.swapped() if self._swap else speech

        def render(folder: Path, name: str) -> None:
            films = [self._film(i, self._acts(i, spoken.tracks[i], spoken.turns)) for i in (0, 1)]
            write_video(folder / f"{name}.mp4", side_by_side(films), spoken.mix)
            self._note(name, (f"{name}.mp4",), "ok", spoken.turns, spoken.frames).write(folder)

        return render

    def each(self, speech: Speech) -> Render:
        """A dialogue in two files."""
        spoken = speech.swapped() if self._swap else speech

        def render(folder: Path, name: str) -> None:
            files = (f"{name}-a.mp4", f"{name}-b.mp4")
            for i, file in enumerate(files):
                own, other = spoken.tracks[i], spoken.tracks[1 - i]
                sound = own + self._rng.uniform(*LEAK) * other + room(spoken.frames, self._rng)
                film = self._film(i, self._acts(i, own, spoken.turns), 320, 320, turned=False)
                write_video(folder / file, film, sound.astype(np.float32))
            self._note(name, files, "ok", spoken.turns, spoken.frames).write(folder)

        return render

    def one(self, audio: np.ndarray, companion: str) -> Render:
        """A monologue, and who is seen beside it."""
        me = int(self._swap and companion != "nobody")

        def render(folder: Path, name: str) -> None:
            turns = tuple(turn.model_copy(update={"speaker": me}) for turn in spoken_turns(audio))
            film = self._beside(companion, me, self._acts(me, audio, turns), audio, turns)
            write_video(folder / f"{name}.mp4", film, audio)
            self._note(name, (f"{name}.mp4",), "rejected", turns, len(audio) // 640, companion).write(folder)

        return render

    def _beside(
        self, companion: str, me: int, acted: Performance, audio: np.ndarray, turns: Sequence[Turn]
    ) -> Iterator[np.ndarray]:
        if companion == "nobody":
            return self._film(me, acted, 640, 360, turned=False)
        if companion == "chews":
            other = self._actors[1 - me]
            self._actors[1 - me] = replace(other, traits=other.traits | {Trait.CHEWS})
        listens = self._acts(1 - me, audio, turns)
        if companion == "murmurs":
            listens = murmuring(listens, self._rng)
        if companion == "thumbnail":
            return inset(self._film(me, acted, 640, 360, turned=False), next(self._film(1 - me, listens)))
        film = self._film(1 - me, listens)
        if companion == "photograph":
            film = repeat(next(film))
        return side_by_side([film, self._film(me, acted)] if me else [self._film(me, acted), film])

    def _acts(self, me: int, audio: np.ndarray, turns: Sequence[Turn]) -> Performance:
        return perform(self._actors[me], audio, turns, me, self._seed, self._size)

    def _film(
        self, me: int, acted: Performance, width: int = PANEL[0], height: int = PANEL[1], *, turned: bool = True
    ) -> Iterator[np.ndarray]:
        towards = (TOWARDS if me == 0 else -TOWARDS) if turned else 0.0
        return Film(self._actors[me], width, height, self._scales[me]).film(acted, towards)

    def _note(
        self, name: str, files: tuple[str, ...], expected: str, turns: Sequence[Turn], frames: int, note: str = ""
    ) -> Truth:
        traits = tuple(tuple(sorted(actor.traits)) for actor in self._actors)
        return Truth(name, self._group, files, expected, tuple(turns), frames / FPS, traits, note)


def murmuring(acted: Performance, rng: np.random.Generator) -> Performance:
    """Lips that move a little all the time, to themselves."""
    own = np.clip(gaussian_filter1d(rng.standard_normal(len(acted.hand)), 1.5), 0.0, 1.0)
    return replace(acted, motion=replace(acted.motion, mouth=np.clip(acted.motion.mouth + 0.12 * own, 0.0, 1.0)))


def side_by_side(films: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """One picture of two; as long as the shorter."""
    return (np.hstack(pair) for pair in zip(*films, strict=False))


def inset(film: Iterator[np.ndarray], picture: np.ndarray) -> Iterator[np.ndarray]:
    """A thumbnail in the corner."""
    small = cv2.resize(picture, (144, 162), interpolation=cv2.INTER_AREA)
    for shown in film:
        out = shown.copy()
        out[-170:-8, -152:-8] = small
        yield out


if __name__ == "__main__":
    main()

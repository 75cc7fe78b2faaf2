"""Near-duplicates: how many of the copies that were made are found, what else is, what it costs, and how much it holds.

    python -m benchmarks.near_duplicates [--distinct N] [--copied N] [--seconds S] [--seed N]
    python -m benchmarks.near_duplicates --real FOLDER [FOLDER ...]
    python -m benchmarks.near_duplicates --films [--real FOLDER ...] [--distinct N] [--copied N] [--seconds S]
    python -m benchmarks.near_duplicates --scale N [--landmarks M]

Distinct conversations are made of two voices (`benchmarks.chatter`): words that a synthesiser spoke once and that recur
in all conversations of a voice, each time at another pitch, rate and level, above the noise of a room. Kind by kind,
copies of the first ones (`benchmarks.copies`) join all distinct ones; found is a copy that is told to be its original.
--real: recordings instead. --films: the same by pictures alone, on films of one room (`benchmarks.films`), or on the
first seconds of recorded ones. --scale: landmarks that are drawn by chance, from as few values as landmarks of speech
have, with a hundred planted copies, in a process of its own. Bounds were set on seed 0 and on real recordings.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.chatter import Chatter
from benchmarks.copies import COPIES, Tracks, mix
from benchmarks.films import FILM_COPIES, Room, coarse_film, encoded, pictures_of
from visavis.pipeline.engine.memory import peak_mb
from visavis.schemas import SAMPLE_RATE
from visavis.stages.duplicates.landmarks import Landmarks, landmarks
from visavis.stages.duplicates.matches import Matches
from visavis.stages.duplicates.pictures import picture_landmarks
from visavis.stages.duplicates.verdict import Duplicate, Prints, near_duplicates
from visavis.stages.media.audio import read_audio

_VALUES = 1 << 26
"""From so many values as often two are equal as of landmarks of two recordings of speech."""
_SPREAD = 0x9E3779B1  # over all values of 32 bits, as hashes are
_PLANTED = 100
_RECORDED = (".wav", ".mp4")
_TOGETHER = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distinct", type=int, default=2000)
    parser.add_argument("--copied", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=[*COPIES, *FILM_COPIES])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where landmarks are kept, for a run that goes on")
    parser.add_argument("--real", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--films", action="store_true", help="by pictures")
    parser.add_argument("--scale", type=int, metavar="N", help="recordings")
    parser.add_argument("--landmarks", type=int, default=60, help="of each recording of --scale")
    options = parser.parse_args()
    if options.scale:
        print(json.dumps(scale(options.scale, options.landmarks)))
        return
    files = sorted(file for folder in options.real or () for file in folder.iterdir() if file.suffix in _RECORDED)
    if options.real and not files:
        parser.error(f"no {' or '.join(_RECORDED)} in {', '.join(map(str, options.real))}")
    if options.films:
        for row in films(files, options):
            _say(row)
        return
    if options.real:
        originals: list[Tracks] = [(each, np.zeros_like(each)) for each in map(read_audio, map(str, files))]
        distinct = _heard(originals, 0)
    else:
        chatter = Chatter(options.seed, options.seconds)
        originals = [chatter.conversation(number) for number in range(options.copied)]
        kept = options.keep and options.keep / f"{options.seed}-{options.seconds:g}"
        distinct = made(chatter, options.distinct, kept)
    for row in table(originals, distinct, options.kinds or COPIES, options.seed):
        _say(row)


def films(files: list[Path], options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """As `table`, of films; of recorded files those alone that are films."""
    room = Room(options.seconds)
    if files := [file for file in files if file.suffix == ".mp4"]:
        originals, others = (pictures_of(file, options.seconds) for file in files), range(0)
    else:
        originals = (list(room.film(options.seed, number)) for number in range(options.copied))
        others = range(options.copied, options.distinct)
    distinct = list[Landmarks]()
    copies: dict[str, list[Landmarks]] = {kind: [] for kind in options.kinds or FILM_COPIES}
    randoms = {kind: np.random.default_rng([options.seed, list(FILM_COPIES).index(kind)]) for kind in copies}
    for film in originals:
        distinct.append(picture_landmarks(coarse_film(film)))
        for kind, found in copies.items():
            found.append(picture_landmarks(coarse_film(encoded(*FILM_COPIES[kind](film, randoms[kind])))))
    distinct += [picture_landmarks(coarse_film(room.film(options.seed, number))) for number in others]
    per_second = np.quantile([len(each.hash_M) / options.seconds for each in distinct], [0, 0.5, 1])
    yield {"films": len(distinct), "landmarks/s": " ".join(f"{n:.0f}" for n in per_second)}
    yield _row("none", 0, distinct, [])
    for kind, found in copies.items():
        yield _row(kind, len(found), distinct, found)


def made(chatter: Chatter, count: int, kept: Path | None) -> list[Landmarks]:
    """Landmarks of all distinct conversations, some at a time."""
    found = list[Landmarks]()
    for first in range(0, count, _TOGETHER):
        last = min(first + _TOGETHER, count)
        file = kept and kept / f"{first}-{last}.npz"
        if file and file.exists():
            with np.load(file) as arrays:
                found += [Landmarks(arrays[f"hash{n}"], arrays[f"frame{n}"]) for n in range(len(arrays.files) // 2)]
            continue
        talks = (chatter.conversation(number) for number in range(first, last))
        new = _heard(talks, first)
        found += new
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            named = {f"hash{n}": each.hash_M for n, each in enumerate(new)}
            np.savez(file, **named, **{f"frame{n}": each.frame_M for n, each in enumerate(new)})  # type: ignore[arg-type]
    return found


def _heard(talks: Iterable[Tracks], first: int) -> list[Landmarks]:
    """Landmarks, and a line of what they cost."""
    found, spent, seconds = list[Landmarks](), 0.0, 0.0
    for tracks in talks:
        began = time.process_time()
        found.append(landmarks(mix(tracks)))
        spent += time.process_time() - began
        seconds += len(tracks[0]) / SAMPLE_RATE
    per_second = sum(len(one.hash_M) for one in found) / seconds
    _say({"from": first, "s/hour": f"{3600 * spent / seconds:.2f}", "landmarks/s": f"{per_second:.1f}"})
    return found


def table(
    originals: list[Tracks], distinct: list[Landmarks], kinds: Iterable[str], seed: int
) -> Iterator[dict[str, object]]:
    """Kind, copies, found, recall, false, seconds of work for the join; first of the distinct ones alone."""
    yield _row("none", 0, distinct, [])
    for kind in kinds:
        random = np.random.default_rng([seed, list(COPIES).index(kind)])
        make = COPIES[kind]
        copies = [landmarks(mix(make(one, originals[n - 1], random))) for n, one in enumerate(originals)]
        yield _row(kind, len(copies), distinct, copies)


def joined(found: list[Landmarks]) -> list[Duplicate]:
    matches = Matches()
    for number, each in enumerate(found):
        matches.add(number, each)
    duplicates = near_duplicates([Prints("the sound", matches, [each.seconds for each in found])])
    matches.close()
    return duplicates


def _row(kind: str, copies: int, distinct: list[Landmarks], copied: list[Landmarks]) -> dict[str, object]:
    """Copies come after all distinct ones, in the order of their originals."""

    def original(number: int) -> int:
        return number - len(distinct) if number >= len(distinct) else number

    began = time.process_time()
    told = joined(distinct + copied)
    spent = time.process_time() - began
    right = {original(each.number) for each in told if original(each.number) == original(each.kept)}
    recall = f"{len(right) / copies:.3f}" if copies else ""
    counts = {"kind": kind, "copies": copies, "found": len(right), "recall": recall, "false": len(told) - len(right)}
    return counts | {"join": f"{spent:.1f} s"}


def _say(row: dict[str, object]) -> None:
    print(" ".join(f"{name} {value!s:<10}" for name, value in row.items()), flush=True)


def scale(recordings: int, each: int) -> dict[str, object]:
    """Memory and time of so many fingerprints. The last hundred are later pieces of the first ones, a bit faster."""
    random = np.random.default_rng(0)
    before, began = peak_mb(), time.process_time()
    matches = Matches()
    planted = []
    for number in range(recordings):
        frames = np.sort(random.integers(0, 3000, each)).astype(np.int32)
        found = Landmarks((random.integers(0, _VALUES, each) * _SPREAD % (1 << 32)).astype(np.uint32), frames)
        if number < _PLANTED:
            planted.append(found)
        elif number >= recordings - _PLANTED:
            hashes, frames = planted[number - recordings + _PLANTED]
            kept = slice(each // 4, None)
            found = Landmarks(hashes[kept], np.round((frames[kept] - frames[each // 4]) / 1.01).astype(np.int32))
        matches.add(number, found)
    disk = matches.bytes
    told = near_duplicates([Prints("the sound", matches, [60.0] * recordings)])
    matches.close()
    right = sum(one.number - one.kept == recordings - _PLANTED for one in told)
    return {
        "name": "near_duplicates",
        "fingerprints": recordings,
        "landmarks": recordings * each,
        "disk_mb": round(disk / 1e6),
        "memory_mb": round(peak_mb() - before),
        "cpu_s": round(time.process_time() - began, 1),
        "planted": _PLANTED,
        "found": right,
        "false": len(told) - right,
    }


if __name__ == "__main__":
    main()

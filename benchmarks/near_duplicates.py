"""Near-duplicates: how many of the copies that were made are found, what else is, what it costs, and how much it holds.

    python -m benchmarks.near_duplicates [--distinct N] [--copied N] [--seconds S] [--seed N]
    python -m benchmarks.near_duplicates --real FOLDER [FOLDER ...]
    python -m benchmarks.near_duplicates --scale N [--landmarks M]

Distinct conversations are made of two voices (`benchmarks.chatter`): words that a synthesiser spoke once and that recur in all
conversations of a voice, each time at another pitch, rate and level, above the noise of a room. Kind by kind, copies of
the first ones join all distinct ones; a copy is found where it and its original, or two copies of it, are told as one.
--real: recordings instead. --scale: landmarks that are drawn by chance, from as few values as landmarks of speech have,
with a hundred planted copies, in a process of its own. Bounds were set on seed 0 and on real recordings.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.chatter import Chatter
from benchmarks.copies import COPIES, Tracks
from visavis.schemas import SAMPLE_RATE
from visavis.stages.duplicates.landmarks import Landmarks, landmarks
from visavis.stages.duplicates.matches import Matches
from visavis.stages.duplicates.verdict import Duplicate, near_duplicates
from visavis.stages.media.audio import read_audio

_VALUES = 1 << 26
"""From so many values as often two are equal as of landmarks of two recordings of speech."""
_PLANTED = 100
_SOUNDS = (".wav", ".mp4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distinct", type=int, default=2000)
    parser.add_argument("--copied", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--scale", type=int, metavar="N", help="recordings")
    parser.add_argument("--landmarks", type=int, default=60, help="of each recording of --scale")
    options = parser.parse_args()
    if options.scale:
        print(json.dumps(scale(options.scale, options.landmarks)))
        return
    if options.real:
        files = sorted(file for folder in options.real for file in folder.iterdir() if file.suffix in _SOUNDS)
        corpus: Iterator[Tracks] = ((audio_N, np.zeros_like(audio_N)) for audio_N in map(read_audio, map(str, files)))
        rows = table(corpus, len(files), options.seed)
    else:
        chatter = Chatter(options.seed, options.seconds)
        rows = table(map(chatter.conversation, range(options.distinct)), options.copied, options.seed)
    for row in rows:
        print(" ".join(f"{value:>10}" if n else f"{value:<16}" for n, value in enumerate(row.values())), flush=True)


def table(corpus: Iterator[Tracks], copied: int, seed: int) -> Iterator[dict[str, object]]:
    """Kind, copies, found, recall, false; the distinct ones alone first, with seconds of work for an hour of sound."""
    random = np.random.default_rng([seed, 9])
    originals, distinct, spent, heard = list[Tracks](), list[Landmarks](), 0.0, 0.0
    for tracks in corpus:
        began = time.process_time()
        distinct.append(landmarks(sum(tracks)))
        spent += time.process_time() - began
        heard += len(tracks[0]) / SAMPLE_RATE
        if len(originals) < copied:
            originals.append(tracks)
    began = time.process_time()
    yield _row("none", 0, joined(distinct), len(distinct))
    joining = time.process_time() - began
    for kind, make in COPIES.items():
        copies = [landmarks(sum(make(one, originals[n - 1], random))) for n, one in enumerate(originals)]
        yield _row(kind, len(copies), joined(distinct + copies), len(distinct))
    per_hour = f"{3600 * spent / heard:.2f} s", f"{3600 * joining / heard:.2f} s"
    yield {"what": "work an hour", "landmarks": per_hour[0], "join": per_hour[1], "heard": f"{heard / 3600:.1f} h"}


def joined(found: list[Landmarks]) -> list[Duplicate]:
    matches = Matches()
    for number, each in enumerate(found):
        matches.add(number, each)
    duplicates = near_duplicates(matches, [each.seconds for each in found])
    matches.close()
    return duplicates


def _row(kind: str, copies: int, told: list[Duplicate], distinct: int) -> dict[str, object]:
    """Copies come after all distinct ones, in the order of their originals."""

    def original(number: int) -> int:
        return number - distinct if number >= distinct else number

    right = {original(each.number) for each in told if original(each.number) == original(each.kept)}
    wrong = len(told) - len(right)
    recall = f"{len(right) / copies:.3f}" if copies else ""
    return {"kind": kind, "copies": copies, "found": len(right), "recall": recall, "false": wrong}


def scale(recordings: int, each: int) -> dict[str, object]:
    """Memory and time of so many fingerprints. The last hundred are later pieces of the first ones, a bit faster."""
    random = np.random.default_rng(0)
    before, began = _peak_mb(), time.process_time()
    matches = Matches()
    planted = []
    for number in range(recordings):
        frames = np.sort(random.integers(0, 3000, each)).astype(np.int32)
        found = Landmarks(random.integers(0, _VALUES, each).astype(np.uint32) << np.uint32(6), frames)
        if number < _PLANTED:
            planted.append(found)
        elif number >= recordings - _PLANTED:
            hashes, frames = planted[number - recordings + _PLANTED]
            kept = slice(each // 4, None)
            found = Landmarks(hashes[kept], np.round((frames[kept] - frames[each // 4]) / 1.01).astype(np.int32))
        matches.add(number, found)
    disk = matches.bytes
    told = near_duplicates(matches, np.full(recordings, 60.0))
    matches.close()
    right = sum(one.number - one.kept == recordings - _PLANTED for one in told)
    return {
        "name": "near_duplicates",
        "fingerprints": recordings,
        "landmarks": recordings * each,
        "disk_mb": round(disk / 1e6),
        "memory_mb": round(_peak_mb() - before),
        "cpu_s": round(time.process_time() - began, 1),
        "planted": _PLANTED,
        "found": right,
        "false": len(told) - right,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

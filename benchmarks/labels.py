"""How well labels are found where it is known what happens: F1 by kind.

    python -m benchmarks.labels                                  # made conversations
    python -m benchmarks.labels --demo RUN MEDIA                 # a build of the demo's rendered films, too

Made conversations: turns of `benchmarks.reactive` with barge-ins, given as a diarizer gives them, each edge up to
0.08 s off and back-channels unmarked; motion that drifts, and on it nods as deep as real ones (4° on average,
log-normal, up to three cycles, a quarter upwards: Kato 2026), smiles, laughs and raised brows. Of a rendered film the
truth is its script's pitch and smile. An event counts where it overlaps a true one, each once. The bounds of
`LabelsConfig` were set on seed 1 and the demo's talk0 to talk2; neither judges here.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.listeners import REAL, drift
from benchmarks.reactive import AVATAR, USER, Corpus, Talk, make_talk
from visavis.schemas import FPS
from visavis.schemas.labels import KINDS
from visavis.schemas.rows import Turn
from visavis.schemas.windows_config import BackchannelsConfig, LabelsConfig
from visavis.stages.media.audio import speech_state
from visavis.stages.voice.backchannels import mark_backchannels
from visavis.training.events import column_readouts
from visavis.training.labels import happened
from visavis.training.runs import runs

SEEDS = (11, 12, 13, 14, 15)
SET_BY = ("talk0", "talk1", "talk2")
NAMES = (
    *("pitch", "yaw", "roll", "x", "y", "log_size", "jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp"),
    *("eyeBlinkLeft", "eyeBlinkRight"),
)
DRIFT = np.array([0.015, 0.02, 0.01, 0.05, 0.05, 0.02, 0.01, 0.04, 0.04, 0.04, 0.03, 0.03])
Spans = dict[tuple[str, int], list[tuple[int, int]]]
"""By kind and person."""


def conversation(seed: int, number: int, seconds: int = 120) -> tuple[Spans, Spans]:
    """True events, and those that are found."""
    talk = make_talk(Corpus(seconds=seconds, seed=seed, barge_ins=0.5), number)
    random = np.random.default_rng([seed, number, 9])
    state = heard(talk, seconds * FPS, random)
    true: Spans = defaultdict(list)
    motion = [move(random, seconds * FPS, state >> person & 1 > 0, person, true) for person in (USER, AVATAR)]
    for person in (USER, AVATAR):
        true["backchannel", person] = [hum for hum in talk.backchannels[person] if _listens(talk, person, hum)]
    for onset, yields in talk.barge_ins:
        end = next(last for first, last in talk.phrases[AVATAR] if first < onset < last)
        gives_up = next(last for first, last in talk.phrases[USER] if first == onset)
        true["interruption" if yields else "attempt", USER].append((onset, min(end, gives_up)))
    return true, found_in(motion, state)


def _listens(talk: Talk, person: int, hum: tuple[int, int]) -> bool:
    """Whether the other spoke before and goes on, and oneself is silent for a second before and after, as VAP has it
    (Ekstedt and Skantze 2022): a hum beside one's own turn is a part of it."""
    said = sorted((*span, who) for who in (USER, AVATAR) for span in talk.phrases[who])
    before = [who for first, _, who in said if first <= hum[0]][-1:]
    after = [who for first, _, who in said if first > hum[0]][:1]
    quiet = all(end < hum[0] - FPS or first > hum[1] + FPS for first, end in talk.phrases[person])
    return quiet and before == after == [1 - person]


def heard(talk: Talk, frames: int, random: np.random.Generator) -> np.ndarray:
    """State as of a diarizer's turns."""
    spans = [
        (person, *span) for person in (USER, AVATAR) for span in (*talk.phrases[person], *talk.backchannels[person])
    ]
    turns = []
    for person, first, end in sorted(spans, key=lambda span: span[1:]):
        a, b = np.array([first, end]) / FPS + random.uniform(-0.08, 0.08, 2)
        turns.append(Turn(speaker=person, start=max(0.0, float(a)), end=max(0.04, float(b))))
    return speech_state(mark_backchannels(turns, BackchannelsConfig()), frames)


def move(random: np.random.Generator, frames: int, speaks_T: np.ndarray, person: int, true: Spans) -> np.ndarray:
    """float64 [T, D]: drift, the jaw in speech, and an event every three to six seconds."""
    motion: np.ndarray = np.stack([drift(random, frames, 40) for _ in NAMES], axis=1) * DRIFT
    motion[:, 6] += speaks_T * 0.15 * (1 + np.sin(np.arange(frames) * random.uniform(0.8, 1.2)))
    at = int(random.integers(20, 80))
    while at < frames - 150:
        kind = str(random.choice(["nod", "smile", "laugh", "brow"], p=[0.45, 0.25, 0.15, 0.15]))
        kind = "smile" if kind == "laugh" and speaks_T[at : at + 60].any() else kind
        length = _perform(motion, kind, at, random)
        true[kind, person].append((at, at + length))
        if kind == "laugh":
            true["smile", person].append((at, at + length))
        at += length + int(random.integers(60, 130))
    return motion


def _perform(motion_TD: np.ndarray, kind: str, at: int, random: np.random.Generator) -> int:
    """Add an event; returns its length."""
    if kind == "nod":
        cycles = int(random.choice(3, p=REAL.nod_cycles)) + 1
        deep = REAL.nod_depth * np.exp(REAL.nod_spread * random.standard_normal() - REAL.nod_spread**2 / 2)
        shape = np.concatenate([_bump(REAL.nod_frames) * REAL.nod_fade**n for n in range(cycles)])
        motion_TD[at : at + len(shape), 0] += shape * deep * (-1 if random.random() < REAL.nod_upwards else 1)
        return len(shape)
    length = int(random.integers(12, 25) if kind == "brow" else random.integers(30, 100))
    columns = (9,) if kind == "brow" else (7, 8)
    flat = np.clip(np.minimum(np.arange(length), length - 1 - np.arange(length)) / (length / 3), 0, 1)
    motion_TD[at : at + length, columns] += (random.uniform(0.35, 0.9) * flat)[:, None]
    if kind == "laugh":
        for n in range(int(random.integers(2, 5))):
            first = at + length // 3 + 8 * n
            motion_TD[first : first + 7, 6] += random.uniform(0.2, 0.5) * _bump(7)
    return length


def _bump(frames: int) -> np.ndarray:
    return np.asarray(np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2)


def found_in(motion: list[np.ndarray], state: np.ndarray, names: tuple[str, ...] = NAMES) -> Spans:
    signals = column_readouts(len(names), range(3), range(6, len(names)), names)
    valid = [np.ones(len(state), bool)] * 2
    found: Spans = defaultdict(list)
    for kind, person, first, end in happened(motion, valid, state, signals, LabelsConfig(), named=True).events.tolist():
        found[KINDS[kind], person].append((first, end))
    return found


def agreed(true: list[tuple[int, int]], found: list[tuple[int, int]]) -> int:
    """Pairs of events that overlap, each in one."""
    taken: set[int] = set()
    for first, end in found:
        near = (i for i, (a, b) in enumerate(true) if i not in taken and a < end and b > first)
        taken |= {i for i in [next(near, None)] if i is not None}
    return len(taken)


def demo(run: Path, media: Path) -> Iterator[tuple[str, Spans, Spans]]:
    """Name, nods and smiles of a film's script, and those that its build's dyads have."""
    from visavis.pipeline.demo.dialogue import read_truth
    from visavis.pipeline.demo.truth import _participants
    from visavis.pipeline.plan.outputs import read_outputs
    from visavis.stages.ingest import IngestStage
    from visavis.stages.windows import WindowsStage

    truths = {tuple(sorted(t.files)): t for t in map(read_truth, sorted(media.glob("*.truth.json")))}
    dyads = {dyad.conversation: dyad for _, dyad in read_outputs(str(run), WindowsStage)}
    for _, conversation in read_outputs(str(run), IngestStage):
        files = [Path(each.uri).name for each in conversation.media]
        truth = truths.get(tuple(sorted(files)))
        if truth is None or conversation.id not in dyads:
            continue
        true: Spans = {}
        for person, other in enumerate(_participants(truth, files)):
            pitch, smile = (np.array(getattr(truth.participants[other], name)) for name in ("pitch", "smile"))
            sway = np.convolve(np.pad(pitch, 50, mode="edge"), np.ones(101) / 101, mode="valid")
            true["nod", person] = runs(pitch - sway > np.deg2rad(2.5))
            true["smile", person] = runs(smile > 0.15)
        found: Spans = defaultdict(list)
        for kind, person, first, end in dyads[conversation.id].events.tolist():
            found[KINDS[kind], person].append((first, end))
        yield truth.name, true, found


def table(name: str, pairs: list[tuple[Spans, Spans]]) -> None:
    print(f"\n{name}: kind, true, found, precision, recall, F1")
    for kind in dict.fromkeys(kind for true, _ in pairs for kind, _ in true):
        both = [(true.get((kind, p), []), found.get((kind, p), [])) for true, found in pairs for p in (0, 1)]
        hits = sum(agreed(*each) for each in both)
        trues, founds = (sum(len(each[side]) for each in both) for side in (0, 1))
        shares = [hits / max(1, founds), hits / max(1, trues), 2 * hits / max(1, trues + founds)]
        print(f"  {kind:14} {trues:5d} {founds:5d}  " + "  ".join(f"{share:.3f}" for share in shares), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", nargs=2, type=Path, metavar=("RUN", "MEDIA"))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--conversations", type=int, default=10, help="of each seed")
    args = parser.parse_args()
    made = [conversation(seed, number) for seed in args.seeds for number in range(args.conversations)]
    table(f"{len(made)} made conversations of 120 s, seeds {args.seeds}", made)
    if args.demo:
        films = [(name, true, found) for name, true, found in demo(*args.demo) if name not in SET_BY]
        table(f"rendered films {', '.join(name for name, *_ in films)}", [film[1:] for film in films])


if __name__ == "__main__":
    main()

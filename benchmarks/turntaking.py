"""How surely strangers are told from people who talk with each other, by the length of a recording.

    python -m benchmarks.turntaking [--media ../shared/media]

Drawn dialogues: turns and pauses of log-normal length, floor transfers around 0.2 s (Levinson and Torreira 2015) with a
deviation of 0.5 s, 5 to 30 % of the speech overlapped, back-channels near pauses, and one dialogue in ten in which one
narrates and the other hardly speaks. But for the 0.2 s these are assumptions, made wide, and no published figures.
Strangers are halves of different ones. The factors in `stages.voice.turntaking` were set on other draws (seed 1). Its
prior of overlap and the limit of 4 nats were chosen when the real dialogues below had been seen, so these do not judge
it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.config import BindConfig, DiarizeConfig
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import read_audio, speech_state
from visavis.stages.voice.turntaking import dialogue_evidence

Spans = list[tuple[float, float]]

LENGTHS = (10, 20, 60, 300, 1200)
_LEAD = 30.0  # seconds before a recording begins


def draw_dialogue(rng: np.random.Generator, seconds: float, lively: float | None = None) -> tuple[Spans, Spans]:
    """Who speaks when in a dialogue. lively: 0 (calm) … 1 (a third of the speech is overlapped)."""
    lively = float(rng.uniform()) if lively is None else lively
    turn_P = rng.lognormal(np.log(2.5), 0.5, 2) * np.where(rng.random(2) < 0.15, 5, 1)
    if rng.random() < 0.1:
        turn_P = np.array([rng.uniform(20, 60), 0.8])
    phrase_P, pause_P = rng.lognormal(np.log(1.6), 0.3, 2), rng.lognormal(np.log(0.5), 0.3, 2)
    gap = rng.normal(0.25, 0.12) - 0.8 * lively**2 + (rng.uniform(0, 0.3) if rng.random() < 0.2 else 0)
    spread, listening = rng.uniform(0.35, 0.65), rng.uniform(0, 0.6, 2)
    cuts_in = rng.uniform(0, 0.02) + 0.4 * lively**2 * rng.uniform(0.3, 1)  # a second of turns that are not long
    said: tuple[Spans, Spans] = ([], [])
    at, who = rng.uniform(-3, 2) - _LEAD, int(rng.integers(2))
    while at < seconds:
        stop = at + turn_P[who] * rng.lognormal(0, 0.9)
        for start in np.sort(
            rng.uniform(at + 0.5, max(at + 0.6, stop), rng.poisson(cuts_in * min(1, 2.5 / turn_P[who]) * (stop - at)))
        ):
            length = rng.lognormal(np.log(0.9), 0.5)
            said[1 - who].append((start, start + length))
            if rng.random() < 0.5 and start + length < stop:  # … and gets the floor
                stop = start + length
                break
        for last in _say(rng, said[who], at, stop, phrase_P[who], pause_P[who]):
            if rng.random() < listening[1 - who]:
                start = last + rng.normal(0.1, 0.3)
                said[1 - who].append((start, start + rng.uniform(0.25, 0.8)))
        if rng.random() < 0.12:  # nobody answers
            at = stop + rng.exponential(1.5)
            continue
        at = max(stop + rng.normal(gap, spread) + rng.exponential(0.15), at + 0.3)
        who = 1 - who
    return said


def draw_monologue(rng: np.random.Generator, seconds: float) -> Spans:
    """Somebody who talks all the time."""
    said: Spans = []
    list(_say(rng, said, -_LEAD, seconds, rng.lognormal(np.log(2.0), 0.4), rng.lognormal(np.log(0.6), 0.3)))
    return said


def _say(rng: np.random.Generator, said: Spans, at: float, stop: float, phrase: float, pause: float) -> Iterator[float]:
    """Phrases with pauses; yields where each ends."""
    while at < stop:
        last = min(stop, at + phrase * rng.lognormal(0, 0.6))
        said.append((at, last))
        yield last
        at = last + max(0.2, pause * rng.lognormal(0, 0.6))


def state_of(one: Spans, other: Spans, seconds: float) -> np.ndarray:
    """The speech state of two tracks, by the rules of `stages.diarize`."""
    from visavis.stages.diarize import tidy

    turns = [Turn(speaker=i, start=a, end=b) for i, spans in enumerate((one, other)) for a, b in spans]
    return speech_state(tidy(turns, seconds, DiarizeConfig()), round(seconds * FPS))


Draw = Callable[[np.random.Generator, float], tuple[Spans, Spans]]


def _strangers(rng: np.random.Generator, seconds: float) -> tuple[Spans, Spans]:
    return draw_dialogue(rng, seconds)[int(rng.integers(2))], draw_dialogue(rng, seconds)[int(rng.integers(2))]


def _monologues(rng: np.random.Generator, seconds: float) -> tuple[Spans, Spans]:
    return draw_monologue(rng, seconds), draw_monologue(rng, seconds)


def _listener(rng: np.random.Generator, seconds: float) -> tuple[Spans, Spans]:
    """Back-channels anywhere, which is the worst case: real ones come near pauses."""
    starts = np.sort(rng.uniform(0, seconds, rng.poisson(rng.uniform(2, 14) * seconds / 60)))
    return draw_monologue(rng, seconds), [(t, t + rng.uniform(0.25, 1.0)) for t in starts]


def _lively(rng: np.random.Generator, seconds: float) -> tuple[Spans, Spans]:
    return draw_dialogue(rng, seconds, lively=1.0)


KINDS: dict[str, Draw] = {
    "strangers (halves of two dialogues)": _strangers,
    "strangers (two monologues)": _monologues,
    "dialogues": draw_dialogue,
    "lively dialogues": _lively,
    "a monologue and a listener": _listener,
}


def evidence_of(draw: Draw, seconds: float, count: int, seed: int) -> tuple[np.ndarray, float]:
    """(nats of so many recordings, mean share of the speech that is overlapped)."""
    rng = np.random.default_rng([seed, round(seconds)])
    states = [state_of(*draw(rng, seconds), seconds) for _ in range(count)]
    overlap = np.mean([(s == 3).sum() / max(1, (s > 0).sum()) for s in states])
    return np.array([dialogue_evidence(s) for s in states]), float(overlap)


def real_states(media: Path) -> dict[str, np.ndarray]:
    """Labelled exchanges of two voices, and dialogues with a track each."""
    from visavis.stages.diarize import channel_turns, tidy
    from visavis.stages.models.networks import load_voice_activity

    states: dict[str, np.ndarray] = {}
    said: dict[str, dict[str, Spans]] = {}
    for line in (line.split() for file in sorted(media.glob("*/*.rttm")) for line in file.read_text().splitlines()):
        said.setdefault(line[1], {}).setdefault(line[7], []).append((float(line[3]), float(line[3]) + float(line[4])))
    for name, voices in said.items():
        one, other = voices.values()
        states[name] = state_of(one, other, max(end for _, end in one + other))
    activity = load_voice_activity()
    for first in sorted((media / "flame").glob("*_speaker1.wav")):
        tracks = [read_audio(str(p)) for p in (first, first.with_name(first.name.replace("1.wav", "2.wav")))]
        frames = min(map(len, tracks)) // 640
        turns = tidy(channel_turns([t[: frames * 640] for t in tracks], activity), frames / FPS, DiarizeConfig())
        states[f"flame/{first.name[:4]}…"] = speech_state(turns, frames)
    return states


def real_strangers(states: dict[str, np.ndarray], shortest: float = 20.0) -> np.ndarray:
    """Evidence of all pairs of tracks of different recordings, each also shifted against the other."""
    tracks = [(k, s >> i & 1) for k, s in states.items() if len(s) >= shortest * FPS for i in (0, 1)]
    found = []
    for (k, one), (other_k, other) in combinations(tracks, 2):
        if k[:3] != other_k[:3]:  # dev00 and dev01 are one meeting
            frames = min(len(one), len(other))
            turned = (np.roll(other, shift * FPS)[:frames] for shift in range(0, 20, 5))
            found += [dialogue_evidence(one[:frames] | (part << 1)) for part in turned]
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=Path(__file__).parents[2] / "shared" / "media")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=12)
    args = parser.parse_args()
    doubts = (2.0, 3.0, BindConfig().strangers, 6.0)
    print(f"share refused (%) at {', '.join(f'{d:g}' for d in doubts)} nats, by seconds; overlap of the speech\n")
    for kind, draw in KINDS.items():
        for seconds in LENGTHS:
            count = args.count if seconds < 1000 else args.count // 4
            nats, overlap = evidence_of(draw, seconds, count, args.seed)
            cells = "  ".join(f"{100 * np.mean(nats < -doubt):5.1f}" for doubt in doubts)
            print(f"{kind:36} {seconds:5d} s  {cells}   overlap {100 * overlap:3.0f} %", flush=True)
    states = real_states(args.media)
    print("\nreal exchanges: nats for a dialogue")
    print("\n".join(f"  {k:28} {len(s) / FPS:5.1f} s  {dialogue_evidence(s):+5.2f}" for k, s in states.items()))
    found = real_strangers(states)
    cells = ", ".join(f"{100 * np.mean(found < -d):.0f} %" for d in doubts)
    print(f"\n{len(found)} pairs of real strangers, 23 to 30 s: refused {cells}; median {np.median(found):+.1f} nats")


if __name__ == "__main__":
    main()

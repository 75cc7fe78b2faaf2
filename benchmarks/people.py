"""Who is the same person in two conversations, by voice? Errors on real people, and what splits leak.

    python -m benchmarks.people --media ../shared/media        # pairs of real people, then a corpus of them and others
    python -m benchmarks.people --scale 100000                 # seconds and memory of linking so many participants

Pairs: what each person of the labelled recordings says alone is cut into pieces of 2 to 6 s that share nothing; two
pieces of one person are heard through two different microphones and rooms (`through`), and so are two of different
people. `OF_VOICES` (`stages.crowd.likeness`) was fitted on every other person (`fitted`, printed) and is judged on the
rest.

Corpus: everybody has two conversations and more, with partners by chance, each through a microphone of its own.
Without names everybody is somebody new; with wrong names every fifth participant has somebody else's. Leak: of the
people who have a held-out conversation, how many are in training too.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt

from benchmarks.speech import _alone, dialogues
from visavis.pipeline.demo.script import PHRASES
from visavis.pipeline.demo.voices import VOICES, synthesise
from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.plan.people import person_numbers, tied
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.stages.balance import held_out, name_number
from visavis.stages.crowd.likeness import OF_VOICES
from visavis.stages.crowd.linking import linked
from visavis.stages.models.networks import load_voice_encoder
from visavis.stages.voice.voiceprints import LEAST, Voiceprint, voiceprint

ALIASES = {"dev01-0": "dev00-0", "dev01-1": "dev00-1"}
"""Both recordings of the AMI corpus are of the same two people."""
PIECE = (2.0, 6.0)
SEEDS = 20


class Piece(NamedTuple):
    person: str
    real: bool
    seconds: float
    embedding: np.ndarray


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=Path("../shared/media"))
    parser.add_argument("--scale", type=int, default=0, help="participants: only the cost of linking")
    options = parser.parse_args()
    if options.scale:
        scale(options.scale)
        return
    pieces = list(heard(options.media))
    real = [piece for piece in pieces if piece.real]
    people = sorted({piece.person for piece in real})
    print(f"{len(people)} real people, {len(real)} pieces; {len(pieces) - len(real)} pieces of synthetic voices")
    for name, chosen in (("fitted on", people[::2]), ("judged on", people[1::2])):
        pairs([piece for piece in real if piece.person in chosen], name)
    pairs([piece for piece in pieces if not piece.real], "synthetic")
    leaks(real, "real")
    leaks(pieces, "real and synthetic")


def heard(media: Path) -> list[Piece]:
    """Voiceprints of all pieces."""
    encoder, rng, found = load_voice_encoder(), np.random.default_rng(7), list[Piece]()
    for person, real, audio_N in said(media):
        for part_N in cut(audio_N, rng):
            sound_N = through(part_N, rng)
            state_T = np.ones(len(sound_N) // SAMPLES_PER_FRAME, np.uint8)
            print_: Voiceprint = voiceprint(encoder, sound_N, state_T, 0)
            if print_.embedding.any():
                found.append(Piece(person, real, print_.seconds, print_.embedding))
    return found


def said(media: Path) -> list[tuple[str, bool, np.ndarray]]:
    """Who, whether real, and what that person says alone in one recording."""
    found = []
    for speech in dialogues(media):
        for me in (0, 1):
            parts = _alone(speech, me)
            name = f"{speech.name}-{me}"
            found.append((ALIASES.get(name, name), True, np.concatenate([*parts, np.zeros(0, np.float32)])))
    for number, pair in enumerate(VOICES):
        for who, phrases in enumerate(synthesise(pair, PHRASES)):
            found.append((f"espeak{number}-{who}", False, np.concatenate(phrases)))
    return found


def cut(audio_N: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Pieces that share nothing; one that is too short for two is halved if both halves still say something."""
    least, most = (round(s * SAMPLE_RATE) for s in PIECE)
    if len(audio_N) < 2 * least:
        return np.array_split(audio_N, 2) if len(audio_N) >= 2 * LEAST * SAMPLE_RATE else [audio_N]
    edges = [0]
    while len(audio_N) - edges[-1] >= 2 * least:
        edges.append(edges[-1] + int(rng.integers(least, min(most, len(audio_N) - edges[-1] - least) + 1)))
    return np.split(audio_N, edges[1:])


def through(audio_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As another microphone in another room hears it: band, reverberation of 0.15 to 0.5 s, noise 15 to 35 dB below."""
    low, high = rng.uniform(50, 250), rng.uniform(3500, 7500)
    sound_N = sosfilt(butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), audio_N)
    length = rng.uniform(0.15, 0.5)
    decay_N = np.exp(-6.9 * np.arange(round(length * SAMPLE_RATE)) / SAMPLE_RATE / length)
    echo_N = rng.standard_normal(len(decay_N)) * decay_N
    echo_N *= rng.uniform(0.1, 0.5) / np.linalg.norm(echo_N)
    echo_N[0] += 1
    sound_N = fftconvolve(sound_N, echo_N)[: len(audio_N)]
    noise_N = rng.standard_normal(len(sound_N)) * sound_N.std() * 10 ** (-rng.uniform(15, 35) / 20)
    return np.asarray(sound_N + noise_N, np.float32)


def pairs(pieces: list[Piece], name: str) -> None:
    """Equal-error rate, errors at the bounds of corpora of several sizes, and the constants that would fit best."""
    two = list(itertools.combinations(pieces, 2))
    same_N = np.array([a.person == b.person for a, b in two])
    cosine_N = np.array([float(a.embedding @ b.embedding) for a, b in two])
    one_N, other_N = (np.array([pair[i].seconds for pair in two]) for i in (0, 1))
    nats_N = OF_VOICES.evidence(cosine_N, one_N, other_N)
    line = f"{name}: {same_N.sum()} pairs of one person, {(~same_N).sum()} of two; equal-error rate"
    print(f"{line} {equal_error(nats_N, same_N):.1%} (cosine alone {equal_error(cosine_N, same_N):.1%})")
    for count in (2, 30, 1000, 100_000):
        bound = OF_VOICES.bound(count)
        missed, mixed = (nats_N[same_N] <= bound).mean(), (nats_N[~same_N] > bound).mean()
        print(f"    bound of {count:>7} participants: {missed:.1%} missed, {mixed:.2%} of strangers taken for one")
    known = OF_VOICES
    share_N = np.sqrt(known.share(one_N) * known.share(other_N))
    same = float((cosine_N * share_N)[same_N].sum() / (share_N**2)[same_N].sum())
    stray = np.where(same_N, cosine_N - same * share_N, cosine_N - cosine_N[~same_N].mean())
    deviation = [float(np.sqrt((stray[which] ** 2).mean())) for which in (same_N, ~same_N)]
    fit = f"SAME {same:.2f} OTHER {cosine_N[~same_N].mean():.2f} DEVIATION {deviation[0]:.2f} and {deviation[1]:.2f}"
    print(f"    fitted: {fit}; used: {known.same} {known.other} {known.deviation}")


def equal_error(score_N: np.ndarray, same_N: np.ndarray) -> float:
    """Where as large a share of one person's pairs is missed as of others is taken for one."""
    order = np.argsort(score_N)
    missed = np.cumsum(same_N[order]) / same_N.sum()
    mixed = 1 - np.cumsum(~same_N[order]) / (~same_N).sum()
    at = int(np.argmin(np.abs(missed - mixed)))
    return float((missed[at] + mixed[at]) / 2)


def leaks(pieces: list[Piece], whose: str) -> None:
    """What splits leak, by how people are told: means over made corpora."""
    rows: dict[str, list[float]] = {}
    linking: list[tuple[float, float]] = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        talks = conversations(pieces, rng)
        ids = np.arange(1, len(talks) + 1, dtype=np.uint64)
        people, index = np.unique([p.person for talk in talks for p in talk], return_inverse=True)
        true_N2 = index.reshape(-1, 2)
        own = np.array([name_number(f"{seed}/{n}") for n in range(2 * len(talks))], np.uint64).reshape(-1, 2)
        named = np.array([name_number(str(person)) for person in people], np.uint64)
        wrong = np.where(rng.random(true_N2.shape) < 0.2, rng.integers(len(people), size=true_N2.shape), true_N2)
        prints_N2E = np.array([[p.embedding for p in talk] for talk in talks], np.float16)
        seconds_N2 = np.array([[p.seconds for p in talk] for talk in talks])
        voices = person_numbers(ids, prints_N2E, seconds_N2)
        for name, numbers in {
            "no names": own,
            "names of which every fifth is wrong": named[wrong],
            "voices": voices,
            "both, of wrong names": tied(named[wrong], voices),
            "right names": named[true_N2],
        }.items():
            held = held_out(numbers, 0.2)
            inside, outside = np.unique(true_N2[held]), np.unique(true_N2[~held])
            rows.setdefault(name, []).append(float(np.isin(inside, outside).mean()) if len(inside) else np.nan)
            rows.setdefault(f"{name}, held out", []).append(float(held.mean()))
        one, same = (np.equal.outer(x.ravel(), x.ravel()) for x in (voices, true_N2))
        upper = np.triu(np.ones_like(one), 1)
        right = (one & same & upper).sum()
        linking.append((right / (same & upper).sum(), right / max((one & upper).sum(), 1)))
    recall, precision = np.mean(linking, axis=0)
    print(f"{SEEDS} made corpora of {whose} voices, {len(talks)} conversations and {len(people)} people each")
    print(f"    pairs of one person that are linked: {recall:.1%}; of the linked, of one person: {precision:.1%}")
    for name in (name for name in rows if not name.endswith("held out")):
        leak, share = np.nanmean(rows[name]), np.mean(rows[f"{name}, held out"])
        print(f"    splits by {name:<36} {leak:6.1%} of held-out people are in training too ({share:.0%} held out)")


def conversations(pieces: list[Piece], rng: np.random.Generator) -> list[tuple[Piece, Piece]]:
    """Pieces in twos of different people who meet in small circles, as in a corpus: everybody is in two and more."""
    by_person: dict[str, list[Piece]] = {}
    for n in rng.permutation(len(pieces)).tolist():
        by_person.setdefault(pieces[n].person, []).append(pieces[n])
    several = [person for person, found in by_person.items() if len(found) > 1]
    order = rng.permutation(len(several)).tolist()
    talks: list[tuple[Piece, Piece]] = []
    for first in range(0, len(order) - 1, 4):
        circle = [by_person[several[n]][:4] for n in order[first : first + 4]]
        left = [list(found) for found in circle]
        while sum(map(bool, left)) > 1:
            one, other = sorted(range(len(left)), key=lambda n: -len(left[n]))[:2]
            talks.append((left[one].pop(), left[other].pop()))
    return talks


def scale(count: int) -> None:
    """People with five conversations each on average, voiceprints as alike as those of real ones."""
    rng = np.random.default_rng(0)
    people = rng.standard_normal((count // 5, 192)).astype(np.float32)
    who = rng.integers(len(people), size=count)
    prints_NE = people[who] + np.float32(0.5) * rng.standard_normal((count, 192)).astype(np.float32)
    prints_NE /= np.linalg.norm(prints_NE, axis=1, keepdims=True)
    before, start = peak_mb(), time.perf_counter()
    found = linked(prints_NE, np.full(count, 20.0), np.arange(count) // 2)
    seconds = time.perf_counter() - start
    held = peak_mb()
    print(f"{count} participants: {seconds:.0f} s, {held - before:.0f} MB more ({held:.0f} MB in all);")
    print(f"    {len(np.unique(found))} people found of {len(np.unique(who))}")


if __name__ == "__main__":
    main()

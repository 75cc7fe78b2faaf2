"""A made corpus in DualTalk's layout, whose listener follows the rule of `benchmarks.reactive`.

    python -m benchmarks.corpora runs/made --conversations 200

Motion of the rule is mapped to FLAME's columns: pitch, yaw, roll to the head, the jaw's column to its opening, smiles
and drifts to the first scores of expression, the others being small drifts that fall off as a face model's do.
Speaker 1 is the user, speaker 2 the avatar. The last tenth of the conversations is `test`. Voices are synthetic speech
(extra `demo`): noise with a syllable's envelope, as `benchmarks.reactive` has it, is no speech to a detector of voices,
so whatever hears who speaks would find silence.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.listeners import JAW, PITCH, Rule
from benchmarks.reactive import AVATAR, HOP, USER, Corpus, Talk, make_envelope, make_motion, make_talk
from visavis.pipeline.demo.script import NOISE, PHRASES
from visavis.pipeline.demo.voices import LEVEL, VOICES, synthesise
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

_EXPRESSION = 50
_FADE = SAMPLE_RATE // 50
_HUM = "mm-hmm"
_JAW_OPENS = 0.1  # rad of the jaw for one unit of the rule's
_DRIFT, _FALLS_OFF = 0.4, 0.99  # a score's deviation, and what is left of it from one to the next
_TREMBLE = {"exp": 0.04, "head": 0.0025}  # deviation of a frame, rad of the head: jerk as that of real fits


def flame_of(motion_TD: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The rule's 12 columns as `exp` [T, 50] and `pose` [T, 6] (head, jaw), float32."""
    frames = len(motion_TD)
    random = np.random.default_rng(seed)
    exp_TE = np.zeros((frames, _EXPRESSION))
    exp_TE[:, :5] = motion_TD[:, JAW + 1 :]
    knots_KE = random.standard_normal((frames // 20 + 2, _EXPRESSION - 5)) * _DRIFT * _FALLS_OFF ** np.arange(45)
    at_T = np.arange(frames) / 20
    for column in range(_EXPRESSION - 5):
        exp_TE[:, 5 + column] = np.interp(at_T, np.arange(len(knots_KE)), knots_KE[:, column])
    pose_T6 = np.zeros((frames, 6))
    pose_T6[:, :3] = motion_TD[:, PITCH : PITCH + 3]
    pose_T6[:, 3] = _JAW_OPENS * np.maximum(motion_TD[:, JAW], 0)
    exp_TE += _TREMBLE["exp"] * random.standard_normal(exp_TE.shape)
    pose_T6[:, :3] += _TREMBLE["head"] * random.standard_normal((frames, 3))
    return {"exp": exp_TE.astype(np.float32), "pose": pose_T6.astype(np.float32)}


def write_dualtalk(folder: Path, conversations: int, seconds: int = 25, seed: int = 0) -> None:
    """Write NAME_speakerN.npz and .wav below `train` and `test`. The same arguments give the same numbers."""
    corpus, rule = Corpus(train=conversations, val=0, seconds=seconds, seed=seed), Rule()
    for number in range(conversations):
        split = folder / ("test" if number >= conversations - max(1, conversations // 10) else "train")
        split.mkdir(parents=True, exist_ok=True)
        talk = make_talk(corpus, number)
        motions = make_motion(corpus, rule, number, talk)
        for person, speaker in ((USER, 1), (AVATAR, 2)):
            stem = f"made{number:05d}_speaker{speaker}"
            sound_N = spoken(corpus, number, talk, person)
            heard_T = loudness(sound_N) - make_envelope(corpus, number, talk, person).reshape(-1, HOP).mean(axis=1)
            motions[person][:, JAW] += rule.jaw_gain * heard_T  # the jaw follows what is heard
            np.savez(split / f"{stem}.npz", **flame_of(motions[person], seed + 2 * number + person))  # type: ignore[arg-type]
            soundfile.write(split / f"{stem}.wav", sound_N, SAMPLE_RATE)


def spoken(corpus: Corpus, number: int, talk: Talk, person: int) -> np.ndarray:
    """A person's track, float32 [N]: speech in the phrases, cut to them, hums as back-channels, a quiet room."""
    random = np.random.default_rng([corpus.seed, number, 3, person])
    speech_N, hum_N = _voice(number % len(VOICES), person)
    sound_N = (NOISE * random.standard_normal(corpus.seconds * SAMPLE_RATE)).astype(np.float32)
    for spans, what_N in ((talk.phrases[person], speech_N), (talk.backchannels[person], hum_N)):
        for first, end in spans:
            length = (end - first) * SAMPLES_PER_FRAME
            begin = 0 if what_N is hum_N else int(random.integers(len(speech_N)))
            said_N = np.take(what_N, np.arange(begin, begin + length), mode="wrap" if what_N is speech_N else "clip")
            edge_N = np.minimum(np.arange(length), np.arange(length)[::-1]) / _FADE
            sound_N[first * SAMPLES_PER_FRAME :][:length] += said_N * np.minimum(edge_N, 1)
    return sound_N


def loudness(sound_N: np.ndarray) -> np.ndarray:
    """Of each frame, about 0 to 1, [T]."""
    power_T = np.square(sound_N.reshape(-1, SAMPLES_PER_FRAME), dtype=np.float64).mean(axis=1)
    return np.asarray(np.minimum(np.sqrt(power_T) / (2 * LEVEL), 1))


@lru_cache(maxsize=2 * len(VOICES))
def _voice(pair: int, person: int) -> tuple[np.ndarray, np.ndarray]:
    """Speech without a pause, and a hum that ends in silence."""
    (said,) = synthesise([VOICES[pair][person]], [*PHRASES, _HUM])
    return np.concatenate(said[:-1]), np.append(said[-1], np.float32(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_dualtalk(args.out, args.conversations, args.seconds, args.seed)
    print(f"{args.conversations} conversations, {args.seconds * FPS} frames each, in {args.out}")


if __name__ == "__main__":
    main()

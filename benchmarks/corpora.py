"""A made corpus in DualTalk's layout, whose listener follows the rule of `benchmarks.reactive`.

    python -m benchmarks.corpora runs/made --conversations 200

Motion of the rule is mapped to FLAME's columns: pitch, yaw, roll to the head, the jaw's column to its opening, smiles
and drifts to the first scores of expression, the others being small drifts that fall off as a face model's do.
Speaker 1 is the user, speaker 2 the avatar. The last tenth of the conversations is `test`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.listeners import JAW, PITCH, Rule
from benchmarks.reactive import AVATAR, USER, Corpus, make_motion, make_talk, make_voices
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.sample import decode_audio

_EXPRESSION = 50
_JAW_OPENS = 0.1  # rad of the jaw for one unit of the rule's
_FALLS_OFF = 0.9  # of a score's deviation from one to the next


def flame_of(motion_TD: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The rule's 12 columns as `exp` [T, 50] and `pose` [T, 6] (head, jaw), float32."""
    frames = len(motion_TD)
    random = np.random.default_rng(seed)
    exp_TE = np.zeros((frames, _EXPRESSION))
    exp_TE[:, :5] = motion_TD[:, JAW + 1 :]
    knots_KE = random.standard_normal((frames // 20 + 2, _EXPRESSION - 5)) * 0.5 * _FALLS_OFF ** np.arange(45)
    at_T = np.arange(frames) / 20
    for column in range(_EXPRESSION - 5):
        exp_TE[:, 5 + column] = np.interp(at_T, np.arange(len(knots_KE)), knots_KE[:, column])
    pose_T6 = np.zeros((frames, 6))
    pose_T6[:, :3] = motion_TD[:, PITCH : PITCH + 3]
    pose_T6[:, 3] = _JAW_OPENS * np.maximum(motion_TD[:, JAW], 0)
    return {"exp": exp_TE.astype(np.float32), "pose": pose_T6.astype(np.float32)}


def write_dualtalk(folder: Path, conversations: int, seconds: int = 25, seed: int = 0) -> None:
    """Write NAME_speakerN.npz and .wav below `train` and `test`. The same arguments give the same numbers."""
    corpus, rule = Corpus(train=conversations, val=0, seconds=seconds, seed=seed), Rule()
    for number in range(conversations):
        split = folder / ("test" if number >= conversations - max(1, conversations // 10) else "train")
        split.mkdir(parents=True, exist_ok=True)
        motions = make_motion(corpus, rule, number, make_talk(corpus, number))
        voices = make_voices(corpus, number)
        for person, speaker in ((USER, 1), (AVATAR, 2)):
            stem = f"made{number:05d}_speaker{speaker}"
            np.savez(split / f"{stem}.npz", **flame_of(motions[person], seed + 2 * number + person))  # type: ignore[arg-type]
            sound = decode_audio(voices.audio[person].tobytes())
            soundfile.write(split / f"{stem}.wav", sound[: seconds * SAMPLE_RATE], SAMPLE_RATE)


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

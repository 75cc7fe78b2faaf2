"""Does a model yield when its user barges in? Trained on listeners that do, with its user and without.

    python -m benchmarks.yielding --out FOLDER

In half of the avatar's turns the user begins to speak; after one to two seconds the avatar's voice stops in six cases
of ten, in the others the user gives up. In all of them the brows go up a fifth of a second after the onset, long before
the voice could tell. `training.yielding` says what is measured; conversations that judge are not trained on. Resumes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.listeners import Rule
from benchmarks.reactive import Corpus, write_corpus
from benchmarks.reactivity import recipe
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.training.events import readouts
from visavis.training.sequences import checkpoint_sequences
from visavis.training.train import train
from visavis.training.yielding import Yielding

FIGURES = ("reacts", "reacts_chance", "reacts_p", "mouth_stops", "mouth_stops_chance", "mouth_stops_p")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=400, help="conversations of a minute")
    parser.add_argument("--val", type=int, default=60)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    corpus = Corpus(train=args.train, val=args.val, seed=args.seed, speaking=0.5, barge_ins=0.5)
    data = args.out / "dataset"
    if not (data / MANIFEST_NAME).exists():
        write_corpus(data, corpus, Rule())
    config = recipe("block", args.steps).model_copy(update={"seed": args.seed})
    began = time.monotonic()
    checkpoint = train(str(data), args.out / "model", config)
    print(f"trained {args.steps} steps in {time.monotonic() - began:.0f} s", flush=True)
    manifest, _, made = checkpoint_sequences(checkpoint, str(data), "val")
    recorded = [each.recorded for each in made]
    ruler = Yielding(recorded, readouts(manifest))
    half = [np.roll(each.truth, len(each.truth) // 2, axis=0) for each in recorded]
    rows = {
        "ground_truth": [each.truth for each in recorded],
        "model": [each.motions["full"][0] for each in made],
        "model_no_user": [each.motions["no_user"][0] for each in made],
        "shifted": half,
    }
    print(f"{len(ruler.moments)} barge-ins in {len(recorded)} sequences\n{'':14}" + "  ".join(FIGURES))
    for name, motions in rows.items():
        found = ruler.figures(motions)
        print(f"{name:14}" + "  ".join(f"{found[figure]:{len(figure)}.3f}" for figure in FIGURES), flush=True)


if __name__ == "__main__":
    main()

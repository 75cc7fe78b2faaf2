"""`python -m visavis.training CONFIG DATASET --out OUT`: the training loop on a machine that has nothing but what it
needs.

For several processes: `torchrun --nproc-per-node 8 -m visavis.training CONFIG DATASET --out OUT`, on each machine, with
what torchrun wants to know of the others. Exit 0 done; 1 failed; 2 wrong use; 130 stopped, with a checkpoint to go on
from.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from visavis.schemas.errors import UsageError, VisavisError
from visavis.schemas.recipes import load_config
from visavis.schemas.secrets import guard_output, safe
from visavis.schemas.train import TrainConfig
from visavis.training.home import ensure_home
from visavis.training.ranks import ranks, signature
from visavis.training.stopping import EXIT_CODE, answer_requests_to_stop
from visavis.training.train import Stopped, train

_LINE_SECONDS = 10.0


def main() -> int:
    """Entry point: every expected error becomes one line on stderr, and an exit code. Each process says why it ends."""
    parser = argparse.ArgumentParser("python -m visavis.training", description="Train the causal listener on shards.")
    parser.add_argument("config", help="recipe, for example configs/train/tiny.yaml")
    parser.add_argument("dataset", help="folder or URL that holds manifest.json and its shards")
    parser.add_argument("--out", "-o", type=Path, required=True, help="folder of checkpoints and metrics")
    parser.add_argument("--init", type=Path, help="checkpoint to start from")
    parser.add_argument("--pairs", help="folder or URL of a pairs dataset: preference tuning of --init")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting")
    guard_output(sys.argv)
    given = parser.parse_args()
    answer_requests_to_stop("training")
    ensure_home()
    try:
        first = ranks().rank == 0
        config = load_config(given.config, TrainConfig, given.set)
        path = train(given.dataset, given.out, config, init=given.init, pairs=given.pairs, progress=_Lines())
    except VisavisError as error:
        return _fail(" ".join(str(error).split()), 2 if isinstance(error, UsageError) else 1)
    except Stopped as stopped:
        return _fail(f"{stopped}; run the same command again to go on", EXIT_CODE)
    except KeyboardInterrupt:
        return _fail("stopped before a checkpoint was written", EXIT_CODE)
    if first:
        print(path, flush=True)
    return 0


class _Lines:
    """A line every few seconds."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, step: int, steps: int, latest: dict[str, float]) -> None:
        if step < steps and time.monotonic() - self._said < _LINE_SECONDS:
            return
        self._said = time.monotonic()
        figures = ", ".join(f"{name} {latest[name]:.4g}" for name in ("loss", "samples_s", "eta_s") if name in latest)
        print(f"step {step}/{steps}  {figures}", file=sys.stderr, flush=True)


def _fail(text: str, code: int) -> int:
    print(f"training: {signature()}{safe(text)}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

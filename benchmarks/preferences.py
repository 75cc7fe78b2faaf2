"""What preferences teach a listener, by many objectives, beside the same further steps without pairs.

    python -m benchmarks.preferences table [--quick | --one-base] [--out FOLDER] [--jobs N] [--corpus NAME …]
                                           [--rows NAME …] [--recipes FILE.yaml]

A base is trained by `benchmarks.reactivity`'s recipe on one of the corpora of `benchmarks.listeners`, pairs are made
with it, and further steps are taken: with pairs, or without (`control`, which the literature lacks), as many steps or
as many passes. What each model then does on held-out windows is held against the corpus' rule (`benchmarks.reactions`).
Rows lie in `benchmarks/rows.yaml`; those of another file are taken by `--recipes`.

Figures are means over seeds of training with 95 % intervals (`benchmarks.intervals`); `left` is a row's error as a
share of the control's. What may be called a difference in rPCC is the truth's `rpcc_…_floor`: that between two halves
of the truth. Passes are counted in windows: through the model that learns, through the frozen one, and to sample the
pairs.

A folder that is given is kept, and a run that was stopped goes on there: what lies there is not made again unless what
it was made by has changed. With --quick or --one-base all seeds start from one base for each corpus, so its
intervals are those of the further steps alone. Every job takes one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.further import work
from benchmarks.intervals import against, over_seeds
from benchmarks.listeners import CORPORA
from benchmarks.places import Scale
from benchmarks.processes import say
from benchmarks.reactivity import Row, plain_row
from benchmarks.rows import CONTROL, ROWS, Rows, read_rows

SHOWN = ("recall", "chance", "gain", "nod_delay_ms", "alarms_min", "jaw", "rpcc_expression")
QUICK = Scale(conversations=60, held_out=12, steps=1000, further=40, lr=1e-3, seeds=(0, 1, 2), one_base=True)
WHOLE = Scale(conversations=160, held_out=60, steps=2400, further=300, lr=3e-4, seeds=(0, 1, 2), one_base=False)
TABLE = ("lively", "dull", "real")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["table"])
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--one-base", action="store_true", help="one base a corpus for all seeds, as the quick form")
    parser.add_argument("--out", type=Path, help="keep everything here, and go on with what lies here")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once; 0: in this process")
    parser.add_argument("--corpus", nargs="+", choices=CORPORA, default=TABLE, help="by default %(default)s")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="these and the control; all, if none is named")
    parser.add_argument("--recipes", type=Path, default=ROWS, metavar="FILE", help="where rows are described")
    options = parser.parse_args()
    try:
        rows = read_rows(options.recipes).chosen(options.rows, quick=options.quick)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as scratch:
        scale = QUICK if options.quick else replace(WHOLE, one_base=options.one_base)
        result = bench(scale, options.corpus, rows, options.out or Path(scratch), options.jobs)
    print(json.dumps(result))


def bench(scale: Scale, corpora: list[str], rows: Rows, out: Path, jobs: int) -> dict[str, Any]:
    """Rows and truth, by corpus."""
    truths, found, failed = work(scale, corpora, rows, out, jobs)
    tables = {corpus: summarised(found[corpus], truths[corpus]) for corpus in corpora}
    for corpus, table in tables.items():
        show(corpus, truths[corpus], table)
    for line in failed:
        say(f"failed: {line}")
    return {
        "name": "preferences",
        "corpora": {
            corpus: {
                "truth": plain_row(truths[corpus]),
                "rows": {name: plain_row(row) for name, row in table.items()},
            }
            for corpus, table in tables.items()
        },
        "failed": failed,
        "against": "the same steps without pairs, and the rule",
        "intervals": "95 %, Student's t over seeds" + (" of further steps from one base" if scale.one_base else ""),
        "seeds": len(scale.seeds),
        "steps": [scale.steps, scale.further],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def summarised(by_seed: dict[str, dict[int, Row]], truth: Row) -> dict[str, Row]:
    """By row, of rows by seed; a seed at which a row or the control failed is left out of what is compared."""
    table = {}
    control = by_seed.get(CONTROL, {})
    for name, rows in by_seed.items():
        if not rows:
            continue
        table[name] = over_seeds(list(rows.values()))
        both = [seed for seed in rows if seed in control]
        if both and name != CONTROL:
            table[name] |= against([rows[seed] for seed in both], [control[seed] for seed in both], truth)
    return table


def show(corpus: str, truth: Row, table: dict[str, Row]) -> None:
    """The table for people."""
    heads = [
        *SHOWN,
        "recall − control",
        "nods left",
        "smiles left",
        "chosen rise",
        "passes: learn",
        "frozen",
        "pairs",
        "CPU s",
    ]
    widths = [max(len(head) + 2, 15) for head in heads]
    say(f"\n{corpus:26}" + "".join(head.rjust(width) for head, width in zip(heads, widths, strict=True)))
    say(f"{'truth':26}" + "".join(f"{truth[key]:{width}.3f}" for key, width in zip(SHOWN, widths, strict=False)))
    for name, row in table.items():
        cells = [f"{row[key]:.3f} ±{row[f'{key}_ci']:.3f}" for key in SHOWN]
        if "recall_change" in row:
            cells += [f"{row['recall_change']:+.3f} ±{row['recall_change_ci']:.3f}"]
            cells += [f"{row['recall_left']:.0%}", f"{row['gain_left']:.0%}"]
        else:
            cells += [""] * 3
        rise = row.get("val_chosen_rise")
        cells += ["" if rise is None else f"{rise:+.1%}"]
        cells += [f"{row[f'passes_{kind}']:.0f}" for kind in ("learning", "frozen", "pairs")] + [f"{row['cpu_s']:.0f}"]
        say(f"{name:26}" + "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


if __name__ == "__main__":
    main()

"""`visavis evaluate` on whole sequences: figures that stand beside published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visavis.pipeline.cli.evaluate import names_of
from visavis.pipeline.cli.protocols import known_protocol, lengths, protocol_table
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.terminal import Terminal, say, say_json
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.manifest import Manifest, Split
from visavis.schemas.words import counted
from visavis.training.checkpoint import checkpoint_id
from visavis.training.protocol_rows import clips_of, part_columns, protocol_rows
from visavis.training.protocols import Protocol
from visavis.training.sequences import Generated, checkpoint_sequences


def evaluate_sequences(
    checkpoints: Sequence[Path],
    dataset: str,
    split: Split,
    seeds: Sequence[int],
    *,
    protocol: str,
    limit: int | None,
    encoder: str | None,
    whole: bool,
    as_json: bool,
) -> None:
    """Generate, score, and say it: tables, or JSON."""
    needs("metrics", "visavis evaluate --protocol")
    known, reporter = known_protocol(protocol), Reporter()
    made: dict[str, list[Generated]] = {}
    for name, checkpoint in zip(names_of(checkpoints), checkpoints, strict=True):
        with reporter.training("generate") as progress:
            manifest, made[name] = checkpoint_sequences(
                checkpoint, dataset, split, seeds, limit=limit, encoder=encoder, progress=progress
            )
    figures = _score(known, manifest, made, reporter, whole=whole)
    some = next(iter(made.values()))
    scored = lengths([int(each.recorded.valid.sum()) for each in some])
    result: dict[str, Any] = {
        "protocol": known,
        "checkpoints": {name: checkpoint_id(path) for name, path in zip(made, checkpoints, strict=True)},
        "split": split,
        "seeds": list(seeds),
        **scored,
        "not_compared": sum(len(each.recorded.valid) for each in some) - scored["frames"],
        "columns": {name: columns.tolist() for name, columns in part_columns(manifest).items()},
        "figures": figures,
    }
    if as_json:
        say_json(result)
        return
    said = f"{counted(scored['sequences'], split + ' sequence')} of {scored['shortest']} to {scored['longest']} frames"
    say(f"{said}, {scored['median']} in the middle; {counted(result['not_compared'], 'frame')} not valid, left out")
    for of, rows in figures.items():
        Terminal().print(protocol_table(known, of, rows))
    reporter.end(f"{said}, {counted(len(seeds), 'seed')}", advice="--all shows every baseline, --json every digit")


def _score(
    protocol: Protocol, manifest: Manifest, made: dict[str, list[Generated]], reporter: Reporter, *, whole: bool
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Rows of each checkpoint, with its user and without, and what stands beside them."""
    columns, clips = part_columns(manifest), {}
    for name, sequences in made.items():
        own = ("model", "model_no_user") if len(made) == 1 else (name, f"{name}, no user")
        clips[own[0]], parts = clips_of(sequences, columns, "full")
        if whole or len(made) == 1:
            clips[own[1]], _ = clips_of(sequences, columns, "no_user")
    if not next(iter(clips.values())):
        raise UsageError("no sequence has two frames in which both faces are valid")
    with reporter.items(protocol, len(clips) + (6 if whole else 3)) as done:
        return protocol_rows(protocol, clips, parts, whole=whole, scored=done)

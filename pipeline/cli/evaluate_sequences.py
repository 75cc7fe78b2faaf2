"""`visavis evaluate` on whole sequences: figures that stand beside published ones, and reaction timing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visavis.pipeline.cli.evaluate import names_of
from visavis.pipeline.cli.flame import FlameFiles
from visavis.pipeline.cli.protocols import known_protocol, lengths, partial_lines, protocol_table, reaction_tables
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.terminal import Terminal, say, say_json
from visavis.schemas.coefficients import groups_of
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.manifest import Manifest, Split
from visavis.schemas.sampling import SamplingConfig
from visavis.schemas.storage.store import Store
from visavis.schemas.train import Drop
from visavis.schemas.words import counted
from visavis.stages.face.decode import check_flame, read_codec
from visavis.training.checkpoint import checkpoint_id
from visavis.training.dataset import Dataset
from visavis.training.protocol_rows import LeftOut, Rows, clips_of, part_columns, protocol_rows
from visavis.training.protocols.score import Protocol
from visavis.training.reaction_rows import reaction_rows
from visavis.training.sequences import Generated, checkpoint_sequences


def evaluate_sequences(
    checkpoints: Sequence[Path],
    dataset: str,
    split: Split,
    seeds: Sequence[int],
    *,
    protocol: str | None,
    reactions: bool,
    model: FlameFiles,
    limit: int | None,
    encoder: str | None,
    sampling: SamplingConfig,
    whole: bool,
    as_json: bool,
) -> None:
    """Generate, score, and say it: tables, or JSON."""
    known = known_protocol(protocol) if protocol else None
    if known:
        needs("metrics", "visavis evaluate --protocol")
    if model.model is not None:  # before anything is generated
        codec = Dataset(dataset).manifest.motion.codec
        check_flame(dataset, codec)
        model.upper(groups_of(codec))
    reporter, made = Reporter(), dict[str, list[Generated]]()
    for name, checkpoint in zip(names_of(checkpoints), checkpoints, strict=True):
        with reporter.training("generate") as progress:
            manifest, settled, made[name] = checkpoint_sequences(
                checkpoint, dataset, split, seeds, limit=limit, encoder=encoder, sampling=sampling, progress=progress
            )
    some = next(iter(made.values()))
    scored = lengths([int(each.recorded.valid.sum()) for each in some])
    if not scored["frames"]:
        raise UsageError(
            "there is no frame in which both faces are valid: where only one person was seen, there is nothing to hold"
            " a listener against; without --protocol and --reactions windows are scored"
        )
    result: dict[str, Any] = {
        "checkpoints": {name: checkpoint_id(path) for name, path in zip(made, checkpoints, strict=True)},
        "split": split,
        "seeds": list(seeds),
        "sampling": settled.model_dump(),
        **scored,
        "not_compared": sum(len(each.recorded.valid) for each in some) - scored["frames"],
    }
    if known:
        columns = {name: columns.tolist() for name, columns in _parts(known, manifest).items()}
        figures, partial, vertices = _score(known, manifest, made, reporter, model, whole=whole)
        result |= {"partial_means": partial}
        result |= {"protocol": known, "columns": columns, "figures": figures}
        if vertices:
            result["vertices"] = vertices
    if reactions:
        result["reactions"] = _react(dataset, manifest, made, reporter, whole=whole)
    if as_json:
        say_json(result)
        return
    said = f"{counted(scored['sequences'], split + ' sequence')} of {scored['shortest']} to {scored['longest']} frames"
    say(f"{said}, {scored['median']} in the middle; {counted(result['not_compared'], 'frame')} not valid, left out")
    if settled.precision != "float32":
        say(str(settled))
    for line in partial_lines(result.get("partial_means", {})):
        say(line)
    if "vertices" in result:
        say(result["vertices"])
    for of, rows in result.get("figures", {}).items():
        Terminal().print(protocol_table(known or "", of, rows))
    if reactions:
        Terminal().print(*reaction_tables(result["reactions"], whole=whole))
        if untold := result["reactions"]["not_told"]:
            say(f"not told by this motion's columns: {', '.join(untold)}")
    reporter.end(f"{said}, {counted(len(seeds), 'seed')}", advice="--all shows more rows, --json every digit")


def _named(made: dict[str, list[Generated]], *, whole: bool) -> list[tuple[str, list[Generated], Drop]]:
    """Rows of each checkpoint, with its user and without."""
    rows: list[tuple[str, list[Generated], Drop]] = []
    for name, sequences in made.items():
        own = ("model", "model_no_user") if len(made) == 1 else (name, f"{name}, no user")
        rows.append((own[0], sequences, "full"))
        if whole or len(made) == 1:
            rows.append((own[1], sequences, "no_user"))
    return rows


def _react(
    dataset: str, manifest: Manifest, made: dict[str, list[Generated]], reporter: Reporter, *, whole: bool
) -> dict[str, Any]:
    """Reaction timing, row by row."""
    codec = read_codec(Store(dataset), manifest)
    rows = {
        name: [[each.motions[drop][i] for each in sequences] for i in range(len(sequences[0].motions[drop]))]
        for name, sequences, drop in _named(made, whole=whole)
    }
    recorded = [each.recorded for each in next(iter(made.values()))]
    with reporter.items("reactions", len(rows) + 3) as done:
        return reaction_rows(manifest, recorded, rows, None if codec is None else codec.basis, done)


def _parts(protocol: Protocol, manifest: Manifest) -> dict[str, np.ndarray]:
    """The columns that are scored, by part. `react` takes all together, so what no script scores is not among them."""
    parts = part_columns(manifest)
    return {name: columns for name, columns in parts.items() if protocol != "react" or name != "place"}


def _score(
    protocol: Protocol,
    manifest: Manifest,
    made: dict[str, list[Generated]],
    reporter: Reporter,
    model: FlameFiles,
    *,
    whole: bool,
) -> tuple[dict[str, Rows], dict[str, LeftOut], str | None]:
    """Rows of each checkpoint, with its user and without, and what stands beside them; what means leave out; and whose
    vertices FDD is of."""
    columns, clips = _parts(protocol, manifest), {}
    if model.model is not None:
        columns |= _eyes(manifest)
    for name, sequences, drop in _named(made, whole=whole):
        clips[name], parts = clips_of(sequences, columns, drop)
    if not next(iter(clips.values())):
        raise UsageError("no sequence has two frames in which both faces are valid")
    upper, vertices = model.upper(parts) or (None, None)
    parts = {name: span for name, span in parts.items() if name != "eyes"}
    with reporter.items(protocol, len(clips) + (6 if whole else 3)) as done:
        found, left_out = protocol_rows(protocol, clips, parts, whole=whole, upper=upper, scored=done)
    return found, left_out, vertices


def _eyes(manifest: Manifest) -> dict[str, np.ndarray]:
    """Columns of the eyes of FLAME's coefficients, which move lids a little."""
    groups = groups_of(manifest.motion.codec)
    return {"eyes": np.arange(groups["eyes"].start, groups["eyes"].stop)} if "eyes" in groups else {}

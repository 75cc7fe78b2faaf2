"""`visavis pairs`: preference pairs by the corpus, by a reward of the user's own, or by what people voted for."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from visavis.pipeline.cli.options import Address, Checkpoint, Data, Encoder, Engine, Json, Overrides, Reconfigure
from visavis.pipeline.engine.terminal import Terminal, say, say_json
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.plain import to_json
from visavis.schemas.words import counted, in_words

pairing = typer.Typer()


@pairing.command()
def pairs(
    dataset: Data,
    checkpoint: Checkpoint,
    out: Annotated[str, typer.Option("--out", "-o", help="Folder or URL of the run.")] = "runs/pairs",
    config: Annotated[
        str | None, typer.Option(help="Recipe; without it the defaults and the checkpoint's sampler.")
    ] = None,
    rejected: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another checkpoint to make the rejected motion, under every condition."),
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="Your own reward: (samples, motion [W, T, D]) to [W] numbers."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Rewards, worked out before: .csv, .jsonl, .parquet of key, chosen, rejected."
        ),
    ] = None,
    votes: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE|FOLDER", help="Pairs that people decided: votes on --study; repeat for several."),
    ] = None,
    study: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --votes: the study, whose DATASET this is.")
    ] = None,
    encoder: Encoder = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Try at most so many windows.")] = None,
    engine: Engine = None,
    address: Address = None,
    set_: Overrides = None,
    reconfigure: Reconfigure = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make pairs of a few windows to estimate yield and time; write nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make preference pairs: the recorded motion, and the model's without the user's signals.

    Or rank the model's own motions (--set chosen=best --set rejected=own --set per_window=8), by your own reward
    (--scorer); or take what people preferred in a study (--votes).
    """
    needs("build", "visavis pairs")
    if bool(votes) != bool(study):
        raise UsageError("--votes and --study go together: what people said, and what they were shown")
    if votes and (rejected or scorer or scores or limit or dry_run):
        raise UsageError("--votes: people decided already; no --rejected, --scorer, --scores, --limit, --dry-run")
    import psutil

    from visavis.pipeline.cli.commands import engine_of
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.cli.tables import pairs_table
    from visavis.pipeline.engine.progress import Reporter
    from visavis.pipeline.plan.pairs import build_pairs
    from visavis.pipeline.plan.pairs_order import PairsRequest, check_pairs
    from visavis.pipeline.plan.pairs_preview import trial_lines, try_pairs
    from visavis.schemas.config import RunConfig
    from visavis.schemas.manifest import Histogram
    from visavis.schemas.pairs import PairsConfig
    from visavis.schemas.recipes import load_config, parse_config
    from visavis.stages.pairing.shortfall import shortfall_line
    from visavis.training.checkpoint import load_checkpoint

    chosen = {"rejected": rejected and "checkpoint", "rejected_checkpoint": rejected and str(rejected)}
    chosen |= {"encoder": encoder, "scorer": scorer, "scores": scores and str(scores)}
    named = [f"{name}={to_json(value)}" for name, value in chosen.items() if value]
    overrides = [*named, *(set_ or [])]
    if config:
        recipe = load_config(config, PairsConfig, overrides)
    else:
        sampler = load_checkpoint(checkpoint, whole=False).config.sampler.model_dump(mode="json")
        recipe = parse_config(to_json({"sampler": sampler}), PairsConfig, overrides, where="pairs")
    request, reporter = PairsRequest(dataset_folder(dataset), str(checkpoint), recipe, limit), Reporter()
    if votes and study:
        from visavis.pipeline.cli.voted import voted_request

        request = voted_request(request, study, votes, reporter)
    if dry_run:
        found = try_pairs(check_pairs(request), before=time.time() - psutil.Process().create_time())
        if as_json:
            say_json(found)
            return
        figures = {name: Histogram.model_validate(each) for name, each in found["figures"].items()}
        Terminal().print(pairs_table(figures, recipe.gate.model_dump()))
        *lines, last = trial_lines(found)
        say("\n".join(lines))
        reporter.end(last, advice="next: the same without --dry-run")
        return
    run = parse_config(to_json({"engine": engine or "ray", "address": address}), RunConfig, where="pairs")
    summary = build_pairs(request, out, engine_of(run), reporter, reconfigure=reconfigure)
    if as_json:
        plain = {name: found.model_dump() for name, found in summary.figures.items()}
        say_json(asdict(summary) | {"figures": plain, "sampling": [each.model_dump() for each in summary.sampling]})
        return
    left_out = f", left out: {in_words(summary.gated)}" if summary.gated else ""
    say(f"{counted(summary.kept, 'pair')} of {summary.tried} tried{left_out}")
    if short := shortfall_line(summary.shortfall):
        say(short)
    for sampling in summary.sampling:
        if sampling.precision != "float32":
            say(str(sampling))
    say(summary.dataset)
    again = ("train", "CONFIG", dataset, "--init", str(checkpoint), "--pairs", out)
    reporter.end(f"{counted(summary.kept, 'pair')} of {counted(summary.windows, 'window')}", *again)

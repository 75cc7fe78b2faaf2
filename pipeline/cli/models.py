"""The commands that make, use and fetch models. What they need is imported when they run: torch takes seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from visavis.pipeline.cli.options import Address, Checkpoint, Data, Encoder, Engine, Json, Overrides, Reconfigure
from visavis.pipeline.engine.terminal import Terminal, say, say_json
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.plain import to_json
from visavis.schemas.words import counted, in_words

if TYPE_CHECKING:
    from visavis.pipeline.engine.progress import Reporter

models = typer.Typer()


@models.command()
def train(
    config: Annotated[str, typer.Argument(help="Recipe, for example configs/train/tiny.yaml.")],
    dataset: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoint.safetensors and metrics.")] = Path(
        "runs/train"
    ),
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from.")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Pairs of `visavis pairs`: preference tuning of --init, which is its reference.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Train in so many processes on Ray, with a GPU each where there are some.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="With --num-workers: a Ray cluster, auto or host:port. None: one is started here."),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Train the causal listener on shards, or tune it by preference pairs. Running it again resumes.

    Ctrl-C or SIGTERM finishes the step and writes a checkpoint. torchrun … -m visavis train works, too.
    """
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.schemas.manifest import MANIFEST_NAME, parse_manifest
    from visavis.schemas.recipes import load_config
    from visavis.schemas.storage.store import Store
    from visavis.schemas.train import TrainConfig
    from visavis.training import train as training
    from visavis.training.ranks import ranks

    if address and num_workers is None:
        raise UsageError("--address goes with --num-workers")
    recipe = load_config(config, TrainConfig, set_ or [])
    reporter = Reporter()
    first = ranks().rank == 0  # of the processes that torchrun may have started
    run: Callable[..., Path] = training.train
    if num_workers is not None:
        needs("build", "--num-workers")
        from visavis.pipeline.engine.ray_train import train_on_ray

        run = partial(train_on_ray, workers=num_workers, address=address)
    inputs = {"init": init, "pairs": dataset_folder(pairs) if pairs else None}
    steps, latest = recipe.dpo.steps if pairs else recipe.optim.steps, dict[str, float]()
    with reporter.training("dpo" if pairs else "train", steps if first else None) as progress:

        def follow(step: int, of: int, line: dict[str, float]) -> None:
            latest.update(line, step=step)
            progress(step, of, line)

        try:
            path = run(dataset_folder(dataset), out, recipe, **inputs, progress=follow)
        except training.Stopped as stopped:
            if first:
                reporter.line(str(stopped))
            raise
    if not first:
        return
    say(str(path))
    loss = f", loss {latest['loss']:.3f}" if "loss" in latest else ""
    at = f"step {latest['step']:.0f} of {steps}{loss}" if latest else f"{counted(steps, 'step')} cached"
    held_out = parse_manifest(Store(dataset_folder(dataset)).read(MANIFEST_NAME)).of("val")
    split = () if held_out else ("--split", "train")
    reporter.end(at, "evaluate", str(path), dataset, *split)


@models.command()
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
        say_json(asdict(summary) | {"figures": plain})
        return
    left_out = f", left out: {in_words(summary.gated)}" if summary.gated else ""
    say(f"{counted(summary.kept, 'pair')} of {summary.tried} tried{left_out}")
    if short := shortfall_line(summary.shortfall):
        say(short)
    say(summary.dataset)
    again = ("train", "CONFIG", dataset, "--init", str(checkpoint), "--pairs", out)
    reporter.end(f"{counted(summary.kept, 'pair')} of {counted(summary.windows, 'window')}", *again)


@models.command()
def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CHECKPOINT…", help="Checkpoints, each a column.")],
    dataset: Data,
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    seeds: Annotated[int, typer.Option(min=1, help="Generate with so many seeds and average.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Windows per class; none: all.")] = None,
    encoder: Encoder = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Score whole sequences as dim, dualtalk, unils or react do; --limit counts sequences."),
    ] = None,
    reactions: Annotated[
        bool, typer.Option("--reactions", help="When the avatar reacts, on whole sequences; --limit counts sequences.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="All metrics and baselines, and how far off they may be.")
    ] = False,
    by_class: Annotated[bool, typer.Option("--by-class", help="Tables for every class, too.")] = False,
    as_json: Json = False,
) -> None:
    """Score checkpoints beside the ground truth and simple baselines, with a verdict on each.

    With --protocol the windows of a conversation are put together, each checkpoint generates them as one stream, and
    what comes is scored by the definitions of a public script, beside the noise floor. With --reactions nods, smiles
    and other events are found in it, and held against what the user did and against chance.
    """
    from visavis.pipeline.cli.evaluate import evaluation_tables, names_of, verdict
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.training import evaluate as scoring

    if split not in ("train", "val"):
        raise UsageError(f"--split is train or val, not {split}")
    if protocol or reactions:
        if by_class:
            raise UsageError("--by-class goes with neither --protocol nor --reactions: whole sequences are of no class")
        from visavis.pipeline.cli.evaluate_sequences import evaluate_sequences

        evaluate_sequences(
            checkpoints, dataset_folder(dataset), "val" if split == "val" else "train", range(seeds),
            protocol=protocol, reactions=reactions, limit=limit, encoder=encoder, whole=all_, as_json=as_json,
        )  # fmt: skip
        return
    reporter, results = Reporter(), dict[str, dict[str, Any]]()
    for name, checkpoint in zip(names_of(checkpoints), checkpoints, strict=True):
        with reporter.training("evaluate") as progress:
            results[name] = scoring.evaluate(
                checkpoint, dataset_folder(dataset), "val" if split == "val" else "train", seeds=range(seeds),
                limit=limit, encoder=encoder, progress=progress,
            )  # fmt: skip
    result = next(iter(results.values()))
    if as_json:
        say_json(result if len(results) == 1 else {"checkpoints": results})
        return
    counts = ", ".join(f"{n} {label}" for label, n in result["windows"].items() if label != "all")
    say(f"{counted(result['windows']['all'], result['split'] + ' window')}: {counts}")
    for label in result["windows"] if by_class else ("all",):
        Terminal().print(*evaluation_tables(results, label, whole=all_))
    for name, found in results.items():
        say(verdict(name, found))
    windows = f"{counted(result['windows']['all'], 'window')}, {counted(seeds, 'seed')}"
    reporter.end(windows, "generate", str(checkpoints[-1]), dataset, "KEY")


@models.command()
def metrics(
    truth: Annotated[
        Path, typer.Argument(help="Recorded motion of the avatar: a folder of .npy or .npz, or one file.")
    ],
    user: Annotated[Path, typer.Argument(help="Motion of the user; TRUTH again, if both speakers lie there.")],
    generated: Annotated[Path, typer.Argument(help="Generated motion, by the names of TRUTH.")],
    protocol: Annotated[str, typer.Option(help="dim, dualtalk, unils or react.")] = "dualtalk",
    columns: Annotated[
        str | None, typer.Option(help="Parts, as exp=0:50,jaw=50:53,pose=53:56; those where motion has 56 columns.")
    ] = None,
    listening: Annotated[
        Path | None, typer.Option(help="Frames in which the avatar listens, bool [T], by the names of TRUTH.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All baselines.")] = False,
    as_json: Json = False,
) -> None:
    """Score motion in plain files as a public protocol of this field does, beside its noise floor.

    Arrays are [frames, columns] in raw units; [K, frames, columns] of several motions for one user. What each figure is
    stands in the docs, under evaluation.
    """
    needs("metrics", "visavis metrics")
    from visavis.pipeline.cli.arrays import parts_of, read_clips
    from visavis.pipeline.cli.protocols import known_protocol, protocol_table, summary
    from visavis.pipeline.engine.progress import Reporter
    from visavis.training.protocol_rows import protocol_rows

    known, reporter = known_protocol(protocol), Reporter()
    clips, left_out = read_clips(truth, user, generated, listening)
    parts = parts_of(columns, next(iter(clips.values())).truth.shape[1])
    found = protocol_rows(known, {"generated": list(clips.values())}, parts, whole=all_)
    if as_json:
        say_json({"protocol": known, "sequences": len(clips), "left_out": left_out, "figures": found})
        return
    for of, rows in found.items():
        Terminal().print(protocol_table(known, of, rows))
    reporter.end(summary(clips, left_out), advice="--all shows every baseline, --json every digit")


@models.command()
def generate(
    checkpoint: Checkpoint,
    dataset: Data,
    key: Annotated[str, typer.Argument(help="A sample's key, as `visavis report` lists them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for KEY.generated.npy and others.")] = Path(
        "runs/generated"
    ),
    drop: Annotated[str, typer.Option(help="Conditions left: full, no_user, no_avatar or none.")] = "full",
    encoder: Encoder = None,
) -> None:
    """Generate the motion of one sample, beside its truth. `visavis report` draws it."""
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.schemas.train import Drop
    from visavis.training import evaluate as scoring

    if drop not in get_args(Drop):
        raise UsageError(f"--drop is one of {', '.join(get_args(Drop))}, not {drop}")
    reporter, folder = Reporter(), dataset_folder(dataset)
    path = scoring.generate(checkpoint, folder, key, out, drop=drop, encoder=encoder)  # type: ignore[arg-type]
    say(str(path))
    reporter.end(f"1 window generated, conditions {drop}", "report", str(path))


@models.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint.pt, or weights of torch.save (.pt, .pth, .bin).")],
    to: Annotated[
        Path | None, typer.Option(help="The new file; none: FILE's name with .safetensors, beside it.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of a checkpoint that was trained on an encoder: its weights in training. They are converted, too,"
            " and the new checkpoint names the new file's sha256; it serves with that file alone.",
        ),
    ] = None,
) -> None:
    """Make safetensors of what was pickled: nothing else is read. The old file stays.

    It is unpickled by a process of its own, without rights worth having. A half-done preference run is best ended
    before: a converted initial checkpoint is another file to it.
    """
    from visavis.pipeline.engine.progress import Reporter
    from visavis.training.checkpoint import checkpoint_id
    from visavis.training.convert import convert as converted

    reporter, made = Reporter(), list(converted(file, to, encoder))
    say("\n".join(f"{path}  sha256 {checkpoint_id(path)}" for path in made))
    reporter.end(f"{counted(len(made), 'file')} converted", advice=f"{file} stays; use the new one in its place")


assets = typer.Typer(help="List, fetch and check the production models.", invoke_without_command=True)
Folder = Annotated[
    str | None,
    typer.Option(
        "--in", "--to", metavar="FOLDER", help="Where models are fetched to; none: the caches of this machine."
    ),
]


@assets.callback()
def list_assets(context: typer.Context, folder: Folder = None, as_json: Json = False) -> None:
    """List the production models: what they are for, their licences, and which are at hand. None is needed at first."""
    if context.invoked_subcommand is not None:
        return
    from visavis.pipeline.cli.assets import at_hand, read_assets
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    rows = [(asset, at_hand(asset, folder)) for asset in read_assets()]
    if as_json:
        plain = [a.model_dump(mode="json") | {"at_hand": path is not None, "path": str(path or "")} for a, path in rows]
        say_json({"assets": plain})
        return
    for asset, path in rows:
        gated = ", gated: accept its terms and set HF_TOKEN" if asset.gated else ""
        known = f"at hand: {path}" if path else "not at hand"
        say(f"{asset.name}: {asset.what}\n    {asset.licence}, {asset.size_mb:.0f} MB, {known}{gated}")
        say(f"    from {asset.source}, used by {asset.used_by}")
    there = sum(path is not None for _, path in rows)
    reporter.end(f"{counted(len(rows), 'model')}, {there} at hand", "assets", "fetch", "NAME", *_at(folder))


@assets.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Names as listed, or OWNER/MODEL of the model hub.")],
    folder: Folder = None,
) -> None:
    """Fetch models. A gated one needs its terms accepted on its page, and HF_TOKEN."""
    from visavis.pipeline.cli.assets import at_hand, converted, damage, named_assets
    from visavis.pipeline.cli.download import fetch_file, fetch_hub
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    for asset in named_assets(names):
        path = at_hand(asset, folder)
        if path is None or damage(asset, path):
            reporter.line(f"{asset.name}: fetching from {asset.url}")
            if asset.hub_id:
                path = fetch_hub(asset.hub_id, folder, asset.files, reporter, again=path is not None)
            else:
                path = asset.file(folder)
                sha256 = fetch_file(asset.url, path, asset.sha256, reporter)
                if asset.sha256 is None:
                    reporter.line(f"{asset.name}: sha256 {sha256}, not pinned: compare it with what others have")
                path = converted(asset, path)
        say(f"{asset.name}: {path}")
        if asset.setting and (folder or not asset.hub_id):
            value = asset.setting.format(path=path, folder=folder)
            say(f"    use it with --set {value}")
    reporter.end(f"{counted(len(names), 'model')} at hand", "assets", "check", *names, *_at(folder))


@assets.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Names as listed; none: all that are at hand.")] = None,
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Check that fetched models are whole. Exit 1 if one is damaged, or one that was named is not at hand."""
    from visavis.pipeline.cli.assets import at_hand, damage, named_assets, read_assets
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    rows: list[dict[str, Any]] = []
    for asset in named_assets(names) if names else read_assets():
        path = at_hand(asset, folder)
        if path or names:
            findings = damage(asset, path) if path else ["not at hand"]
            rows.append({"name": asset.name, "path": str(path or ""), "findings": findings})
    if as_json:
        say_json({"assets": rows})
    for row in rows if not as_json else ():
        say(f"{row['name']}: {', '.join(row['findings']) or 'intact'}{row['path'] and '  ' + row['path']}")
    if not rows and not as_json:
        say("no model is at hand")
    raise typer.Exit(_say_checked(rows, reporter, folder, as_json=as_json))


def _at(folder: str | None) -> tuple[str, ...]:
    """The folder as the next command has to name it."""
    return ("--to", folder) if folder else ()


def _say_checked(rows: list[dict[str, Any]], reporter: Reporter, folder: str | None, *, as_json: bool) -> int:
    """The last line, and the exit code."""
    damaged = [row["name"] for row in rows if row["findings"]]
    if not as_json:
        counts = f"{counted(len(rows), 'model')} looked at, {len(damaged)} damaged or absent"
        reporter.end(counts, "assets", *(("fetch", *damaged) if damaged else ()), *_at(folder))
    return 1 if damaged else 0

"""What the commands do, apart from parsing their arguments.

Those that train import torch when they run: the driver of a large build has no use for it.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, get_args

import psutil
import typer
from rich.table import Table

from pipeline.build import Build, BuildSummary
from pipeline.chain import check_chain
from pipeline.crew import Engine, local_engine
from pipeline.dataset import DATASET
from pipeline.figures import doubt_tables, metrics_tables, pairs_table
from pipeline.fleet import ray_engine
from pipeline.folder import RUN_FILE
from pipeline.machines import start_ray
from pipeline.preview import preview, preview_table
from pipeline.progress import Reporter, command
from pipeline.replay import outline, replay
from pipeline.sources import Sources, access_to, find_sources, source_name
from pipeline.terminal import Terminal, say, say_json, table
from schemas.config import BuildConfig, RunConfig, load_config, parse_config
from schemas.dyads import WindowClass
from schemas.errors import UsageError
from schemas.manifest import MANIFEST_NAME, Histogram, Split, parse_manifest
from schemas.pairs import PairsConfig
from schemas.rows import Source
from schemas.train import Drop, TrainConfig
from schemas.words import counted, duration
from stages import diarize, whisper
from stages.ffmpeg import check_decoders
from stages.landmarker import check_landmarker
from stages.separator import check_separator
from stages.store import Store

_SHOWN = 20  # conversations that --dry-run lists


def run_build(
    config_path: str,
    inputs: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    out: str,
    overrides: Sequence[str],
    *,
    reconfigure: bool,
    dry_run: bool,
    only: str | None,
    item: str | None,
    as_json: bool,
) -> None:
    """`visavis build`."""
    if (only is None) != (item is None):
        raise UsageError("--only STAGE and --item ITEM go together")
    config = load_config(config_path, BuildConfig, overrides)
    access = access_to(config.sources, inputs, pairs)
    sources = find_sources(inputs, pairs, access)
    diarize.check_models(config.diarize)
    whisper.check_models(config.transcribe)
    check_landmarker(config.faces)
    check_decoders(config.faces)
    check_separator(config.separate)
    if only and item:
        _replay(Build(config, out, local_engine, Reporter(), access), sources, only, item, as_json=as_json)
        return
    if dry_run:
        _show_plan(config, sources, out, reconfigure=reconfigure, as_json=as_json)
        return
    reporter, began = Reporter(), time.monotonic()
    for line in sources.notes.lines():
        reporter.line(line)
    summary = Build(config, out, engine_of(config.run), reporter, access).run(sources, reconfigure=reconfigure)
    if as_json:
        plain = {"plan": summary.plan.model_dump(mode="json"), "notes": asdict(sources.notes)}
        say_json(asdict(summary) | plain)
        return
    Terminal().print(summary_table(summary))
    if summary.rejected:
        left_out = ", ".join(f"{n} {reason}" for reason, n in summary.rejected.items())
        say(f"left out: {left_out}; `{command('status', out)}` says more")
    Terminal().print(f"dataset: {summary.dataset}", highlight=False, markup=False, soft_wrap=True)
    done = f"{counted(summary.processed, 'item')} done" if summary.processed else "nothing was left to do, seen"
    reporter.end(f"{done} in {duration(time.monotonic() - began)}", "train", "configs/train/tiny.yaml", out)


def _replay(build: Build, sources: Collection[Source], stage: str, item: str, *, as_json: bool) -> None:
    done = replay(build, sources, stage, item)
    plain = {
        "stage": stage,
        "key": done.task.key,
        "item": done.task.item,
        "ledger": done.known,
        "rejected": done.reason.value if done.reason else None,
        "detail": done.detail,
        "rows": [outline(row) for row in done.rows],
        "seconds": round(done.seconds, 3),
    }
    say_json(plain, for_people=not as_json)


def run_train(
    config_path: str,
    dataset: str,
    out: Path,
    init: Path | None,
    pairs: str | None,
    overrides: Sequence[str],
    workers: int | None,
    address: str | None,
) -> None:
    """`visavis train`."""
    from training.ranks import ranks
    from training.train import Stopped, train

    if address and workers is None:
        raise UsageError("--address goes with --num-workers")
    config = load_config(config_path, TrainConfig, overrides)
    reporter = Reporter()
    first = ranks().rank == 0  # of the processes that torchrun may have started
    run: Callable[..., Path] = train
    if workers is not None:
        from pipeline.ray_train import train_on_ray

        run = partial(train_on_ray, workers=workers, address=address)
    inputs = {"init": init, "pairs": dataset_folder(pairs) if pairs else None}
    steps, began, latest = config.dpo.steps if pairs else config.optim.steps, time.monotonic(), dict[str, float]()
    with reporter.training("dpo" if pairs else "train", steps if first else None) as progress:

        def follow(step: int, of: int, line: dict[str, float]) -> None:
            latest.update(line, step=step)
            progress(step, of, line)

        try:
            path = run(dataset_folder(dataset), out, config, **inputs, progress=follow)
        except Stopped as stopped:
            if first:
                reporter.line(str(stopped))
            raise
    if not first:
        return
    say(str(path))
    loss = f", loss {latest['loss']:.3f}" if "loss" in latest else ""
    at = f"step {latest['step']:.0f} of {steps}{loss}" if latest else f"{counted(steps, 'step')} done before"
    held_out = parse_manifest(Store(dataset_folder(dataset)).read(MANIFEST_NAME)).of("val")
    split = () if held_out else ("--split", "train")
    reporter.end(f"{at}, {duration(time.monotonic() - began)}", "evaluate", str(path), dataset, *split)


def run_pairs(
    dataset: str,
    checkpoint: Path,
    out: str,
    config_path: str | None,
    rejected: Path | None,
    limit: int | None,
    engine: str,
    address: str | None,
    overrides: Sequence[str],
    *,
    reconfigure: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """`visavis pairs`."""
    from pipeline.pairs import build_pairs, check_pairs, in_words
    from training.checkpoint import load_checkpoint

    other = ["rejected=checkpoint", f"rejected_checkpoint={json.dumps(str(rejected))}"] if rejected else []
    if config_path:
        config = load_config(config_path, PairsConfig, [*other, *overrides])
    else:
        sampler = load_checkpoint(checkpoint, whole=False).config.sampler.model_dump(mode="json")
        config = parse_config(json.dumps({"sampler": sampler}), PairsConfig, [*other, *overrides], where="pairs")
    folder = dataset_folder(dataset)
    if dry_run:
        from pipeline.trial import trial_lines, try_pairs

        order = check_pairs(folder, str(checkpoint), config, limit)
        found = try_pairs(order, before=time.time() - psutil.Process().create_time())
        if as_json:
            say_json(found)
            return
        figures = {name: Histogram.model_validate(each) for name, each in found["figures"].items()}
        Terminal().print(pairs_table(figures, config.gate.model_dump()))
        say("\n".join(trial_lines(found)))
        return
    run = parse_config(json.dumps({"engine": engine, "address": address}), RunConfig, where="pairs")
    began = time.monotonic()
    summary = build_pairs(
        folder, str(checkpoint), out, config, engine_of(run), Reporter(), limit=limit, reconfigure=reconfigure
    )
    if as_json:
        plain = {name: found.model_dump() for name, found in summary.figures.items()}
        say_json(asdict(summary) | {"figures": plain})
        return
    left_out = f", left out: {in_words(summary.gated)}" if summary.gated else ""
    say(f"{counted(summary.kept, 'pair')} of {summary.tried} tried{left_out}\n{summary.dataset}")
    took = f"of {counted(summary.windows, 'window')} in {duration(time.monotonic() - began)}"
    again = ("train", "CONFIG", dataset, "--init", str(checkpoint), "--pairs", out)
    Reporter().end(f"{counted(summary.kept, 'pair')} {took}", *again)


def run_evaluate(
    checkpoint: Path,
    dataset: str,
    split: str,
    seeds: int,
    limit: int | None,
    encoder: str | None,
    *,
    by_class: bool,
    as_json: bool,
) -> None:
    """`visavis evaluate`."""
    from training.evaluate import evaluate

    if split not in ("train", "val"):
        raise UsageError(f"--split is train or val, not {split}")
    side: Split = "val" if split == "val" else "train"
    reporter, began = Reporter(), time.monotonic()
    with reporter.training("evaluate") as progress:
        result = evaluate(
            checkpoint, dataset_folder(dataset), side, seeds=range(seeds), limit=limit, encoder=encoder,
            progress=progress,
        )  # fmt: skip
    if as_json:
        say_json(result)
        return
    counts = ", ".join(f"{n} {label}" for label, n in result["windows"].items() if label != "all")
    say(f"{counted(result['windows']['all'], result['split'] + ' window')}: {counts}")
    for label in result["windows"] if by_class else ("all",):
        title = "" if label == "all" else label
        Terminal().print(*metrics_tables({name: row[label] for name, row in result["rows"].items()}, title))
        Terminal().print(*doubt_tables(result, label))
    windows = f"{counted(result['windows']['all'], 'window')}, {counted(seeds, 'seed')}"
    reporter.end(f"{windows}, {duration(time.monotonic() - began)}", "generate", str(checkpoint), dataset, "KEY")


def run_generate(checkpoint: Path, dataset: str, key: str, out: Path, drop: str, encoder: str | None) -> None:
    """`visavis generate`."""
    from training.evaluate import generate

    if drop not in get_args(Drop):
        raise UsageError(f"--drop is one of {', '.join(get_args(Drop))}, not {drop}")
    began = time.monotonic()
    path = generate(checkpoint, dataset_folder(dataset), key, out, drop=drop, encoder=encoder)  # type: ignore[arg-type]
    say(str(path))
    Reporter().end(f"generated in {duration(time.monotonic() - began)}", "report", str(path))


def run_convert(file: Path, to: Path | None, encoder: Path | None) -> None:
    """`visavis convert`."""
    from training.checkpoint import checkpoint_id
    from training.convert import convert

    for made in convert(file, to, encoder):
        say(f"{made}  sha256 {checkpoint_id(made)}")


def run_verify(dataset: str, *, quick: bool, as_json: bool) -> bool:
    """`visavis verify`; whether all is well."""
    from pipeline.verify import verify_dataset

    try:
        folder = dataset_folder(dataset)
    except UsageError:  # a run without a dataset: that is what is found
        folder = dataset
    began = time.monotonic()
    findings = verify_dataset(folder, decode=not quick)
    if as_json:
        say_json({"dataset": folder, "findings": findings})
        return not findings
    say("\n".join(findings) or f"{folder}: sound")
    what = "every byte" if quick else "every byte and sample"
    advice = "remove what is named and run the command that made it again" if findings else f"{what} was looked at"
    Reporter().line(f"{counted(len(findings), 'finding')} in {duration(time.monotonic() - began)}; {advice}")
    return not findings


def engine_of(config: RunConfig) -> Engine:
    """The engine that a config names."""
    return local_engine if config.engine == "local" else ray_engine(config)


def dataset_folder(path: str) -> str:
    """A dataset's folder, also where its run's folder is named.

    Raises:
        UsageError: a run's folder that has no dataset.
    """
    inside = f"{path.rstrip('/')}/{DATASET}"
    if _has_manifest(path):
        return path
    if _has_manifest(inside):
        return inside
    with suppress(PermissionError):
        if Store(path).exists(RUN_FILE):
            how_far = f"`{command('status', path)}` says how far it is"
            raise UsageError(f"{path} is a run that has no dataset yet; {how_far}")
    return path


def _has_manifest(folder: str) -> bool:
    with suppress(PermissionError):  # what S3 says of an absent object to those who may read but not list
        return Store(folder).exists(MANIFEST_NAME)
    return False


def summary_table(summary: BuildSummary) -> Table:
    """What a build kept, and how balancing changes what is drawn."""
    kept = f"{counted(summary.sources, 'conversation')} in, {summary.kept} kept, {counted(summary.samples, 'sample')}"
    caption = "seconds, each conversation from both sides; drawn: of as many as are for training, by balance.mixture"
    made = table(kept, "class", "for training", "drawn", "held out", caption=caption)
    for label in WindowClass:
        seconds = (summary.plan.seconds_before[label], summary.plan.seconds_after[label], summary.held_out[label])
        made.add_row(label.value, *(f"{each:.0f}" for each in seconds))
    return made


def _show_plan(config: BuildConfig, sources: Sources, out: str, *, reconfigure: bool, as_json: bool) -> None:
    check_chain()
    cluster: dict[str, Any] = {}
    if config.run.engine == "ray" and config.run.address:
        import ray

        start_ray(config.run.address)
        cluster = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
    build = Build(config, out, local_engine, Reporter())
    left, quality = build.remaining(sources), preview(out, build.fingerprints["cast"], config.quality)
    changed, anew = build.changes()
    refused = "" if reconfigure else changed
    if as_json:
        listed = [s.model_dump(mode="json") for s in sources]
        plan: dict[str, Any] = {
            "conversations": listed,
            "out": out,
            "cluster": cluster,
            "to_do": dict(sorted(left.items())),
            "quality": quality,
            "notes": asdict(sources.notes),
        }
        plan |= {"changed": changed or None, "anew": anew, "refused": bool(refused)}
        say_json(plan)
        if refused:
            raise typer.Exit(2)
        return
    for source in itertools.islice(sources, _SHOWN):
        say(f"{'one file each' if len(source.uris) > 1 else 'one frame':<14} {source_name(source)}")
    if len(sources) > _SHOWN:
        say(f"… and {len(sources) - _SHOWN} more")
    for line in sources.notes.lines():
        say(line)
    where = f"Ray cluster {cluster}" if cluster else f"this machine ({config.run.engine})"
    to_do = ", ".join(f"{count} from {stage} on" for stage, count in left.items()) or "none"
    say(f"{counted(len(sources), 'conversation')} → {out} on {where}; to do: {to_do}")
    if quality["measured"]:
        Terminal().print(preview_table(quality))
    if changed:
        redone = f"done anew: {', '.join(anew)}" if anew else "nothing is measured again"
        say(f"{out} was built with {changed}; {redone}")
    if refused:
        raise UsageError(
            "nothing was written, and without --reconfigure this build is refused: add it, or choose another --out"
        )
    say("settings and models are in order, nothing was written")

"""What several commands share, and what a build prints."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import typer
from rich.table import Table

from visavis.pipeline.engine.cluster import start_ray
from visavis.pipeline.engine.executor import Engine, local_engine
from visavis.pipeline.engine.progress import Reporter, command
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.engine.terminal import Terminal, say, say_json, table
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.preview import preview, preview_table
from visavis.pipeline.plan.sizing import sizing_of
from visavis.pipeline.plan.sources import Sources, source_name
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.config import BuildConfig, RunConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.words import counted
from visavis.stages import diarize
from visavis.stages.dnsmos import check_dnsmos
from visavis.stages.face.landmarker import check_faces
from visavis.stages.faceprints import check_faceprints
from visavis.stages.media.ffmpeg import check_decoders
from visavis.stages.voice import whisper
from visavis.stages.voice.separator import check_separator
from visavis.stages.voiceprints import check_voiceprints

_SHOWN = 20  # conversations that --dry-run lists


def check_models(config: BuildConfig) -> None:
    """See that a build has the models and programs that its settings ask for.

    Raises:
        UsageError: some are not there; says of each how to get it.
    """
    checks: list[tuple[Callable[[Any], None], Any]] = [
        (diarize.check_models, config.diarize),
        (whisper.check_models, config.transcribe),
        (check_faces, config.faces),
        (check_decoders, config.faces),
        (check_separator, config.separate),
        (check_dnsmos, config.dnsmos),
        (check_voiceprints, config.voiceprints),
        (check_faceprints, config.faceprints),
    ]
    missing = []
    for check, section in checks:
        try:
            check(section)
        except UsageError as error:
            missing.append(str(error))
    if missing:
        raise UsageError("; and ".join(missing))


def engine_of(config: RunConfig) -> Engine:
    """The engine that a config names."""
    return local_engine if config.engine == "local" else ray_engine(config)


def summary_table(summary: BuildSummary) -> Table:
    """What a build kept, and how balancing changes what is drawn."""
    said = f"{counted(summary.sources, 'conversation')} in, {summary.kept} kept, {counted(summary.samples, 'sample')}"
    caption = "seconds, each conversation from both sides; drawn: of as many as are for training, by balance.mixture"
    made = table(said, "class", "for training", "drawn", "held out", caption=caption)
    for label in WindowClass:
        seconds = (summary.plan.seconds_before[label], summary.plan.seconds_after[label], summary.held_out[label])
        made.add_row(label.value, *(f"{each:.0f}" for each in seconds))
    return made


def end_build(summary: BuildSummary, out: str, reporter: Reporter) -> None:
    """The last lines of a build or an import."""
    if summary.rejected:
        left_out = ", ".join(f"{n} {reason}" for reason, n in summary.rejected.items())
        say(f"left out: {left_out}; `{command('status', out, '--left-out')}` lists them")
    Terminal().print(f"dataset: {summary.dataset}", highlight=False, markup=False, soft_wrap=True)
    done = f"{counted(summary.processed, 'item')} done" if summary.processed else "nothing was left to do"
    kept = f"{summary.kept} of {counted(summary.sources, 'conversation')} kept"
    reporter.end(f"{done}, {kept}, {counted(summary.samples, 'sample')}", "train", "configs/train/tiny.yaml", out)


def _say_sources(sources: Sources) -> None:
    for source in itertools.islice(sources, _SHOWN):
        say(f"{'one file each' if len(source.uris) > 1 else 'one frame':<14} {source_name(source)}")
    if len(sources) > _SHOWN:
        say(f"… and {len(sources) - _SHOWN} more")
    for line in sources.notes.lines():
        say(line)


def show_plan(
    config: BuildConfig, sources: Sources, out: str, reporter: Reporter, *, reconfigure: bool, as_json: bool
) -> None:
    """Print what a build would do.

    Raises:
        UsageError: it would be refused, for a folder of other settings.
    """
    cluster: dict[str, Any] = {}
    if config.run.engine == "ray" and config.run.address:
        import ray

        start_ray(config.run.address)
        cluster = {name: ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
    build = Build(config, out, local_engine, reporter)
    sizing = sizing_of(sources)
    left, quality = build.remaining(sources), preview(out, build.fingerprints, config.quality)
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
            "sizing": sizing.plain(),
            "notes": asdict(sources.notes),
        }
        plan |= {"changed": changed or None, "anew": anew, "refused": bool(refused)}
        say_json(plan)
        if refused:
            raise typer.Exit(2)
        return
    _say_sources(sources)
    where = f"Ray cluster {cluster}" if cluster else f"this machine ({config.run.engine})"
    to_do = ", ".join(f"{count} from {stage} on" for stage, count in left.items()) or "none"
    say(f"{counted(len(sources), 'conversation')} → {out} on {where}; to do: {to_do}")
    if sizing.turns or sizing.boxes:
        say(f"given: turns for {counted(sizing.turns, 'file')}, boxes for {sizing.boxes}")
    say(sizing.line())
    if quality["measured"]:
        Terminal().print(preview_table(quality))
    if changed:
        redone = f"done anew: {', '.join(anew)}" if anew else "nothing is measured again"
        say(f"{out} was built with {changed}; {redone}")
    if refused:
        raise UsageError(
            "nothing was written, and without --reconfigure this build is refused: add it, or choose another --out"
        )
    reporter.end("settings and models are in order, nothing was written", advice="next: the same without --dry-run")

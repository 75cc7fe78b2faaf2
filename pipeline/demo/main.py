"""The demo: from rendered conversations to a preference-tuned listener, with everything in between, for real."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import visavis
from visavis.pipeline.cli.commands import engine_of, summary_table
from visavis.pipeline.cli.tables import metrics_tables
from visavis.pipeline.demo.dialogue import Clip, demo_corpus, make_clip
from visavis.pipeline.demo.truth import check_build
from visavis.pipeline.engine.progress import Reporter, command
from visavis.pipeline.engine.terminal import table
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.pairs import build_pairs
from visavis.pipeline.plan.pairs_order import PairsRequest
from visavis.pipeline.plan.sources import find_sources
from visavis.schemas.config import BuildConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.plain import to_json
from visavis.schemas.recipes import load_config
from visavis.schemas.train import TrainConfig
from visavis.schemas.words import counted, duration, in_words
from visavis.training.evaluate import evaluate
from visavis.training.train import train

RECIPES = Path(visavis.__file__).parent / "configs"
_SHOWN = ("rpcc", "lagged_best", "lagged_delay", "var", "sid", "fd_pooled")
_EVALUATION_SEEDS = 2
_PAIRS_PER_TASK = 128  # so that every core has some of a few hundred windows
_EVALUATED = 96  # windows per class


def run_demo(out: Path, engine: str) -> None:
    """`visavis demo`. What is done already in `out` is not done again."""
    started = time.monotonic()
    reporter, console = Reporter(), Console()
    media, run, pairs = out / "media", str(out / "build"), str(out / "pairs")
    config = load_config(RECIPES / "demo.yaml", BuildConfig, [f"run.engine={engine}"])
    recipe = load_config(RECIPES / "train" / "tiny.yaml", TrainConfig)

    make_media(media, reporter)
    summary = Build(config, run, engine_of(config.run), reporter).run(find_sources([str(media / "corpus.jsonl")]))
    with reporter.training("train", recipe.optim.steps) as progress:
        base = train(summary.dataset, out / "base", recipe, progress=progress)
    wanted = PairsConfig(sampler=recipe.sampler, unit=_PAIRS_PER_TASK)
    made = build_pairs(PairsRequest(summary.dataset, str(base), wanted), pairs, engine_of(config.run), reporter)
    with reporter.training("dpo", recipe.dpo.steps) as progress:
        tuned = train(summary.dataset, out / "dpo", recipe, init=base, pairs=made.dataset, progress=progress)
    figures = _evaluate({"base": base, "base + DPO": tuned}, summary.dataset, reporter)
    (out / "evaluation.json").write_text(to_json(figures, indent=1) + "\n", encoding="utf-8")

    console.print(summary_table(summary))
    console.print(_truth_table(run, media))
    left_out = f", left out: {in_words(made.gated)}" if made.gated else ""
    console.print(f"{counted(made.kept, 'pair')} of {made.tried} tried{left_out}", highlight=False)
    console.print(*_metrics(figures))
    took = duration(time.monotonic() - started)
    places = Table(title=f"done in {took}; everything lies in {out}", show_header=False)
    for name, path in {
        "conversations": media,
        "dataset": summary.dataset,
        "pairs": made.dataset,
        "base model": base,
        "tuned model": tuned,
        "measurements": out / "evaluation.json",
    }.items():
        places.add_row(name, str(path))
    console.print(places)
    console.print(f"look at it: {command('report', str(out))} --page", highlight=False, soft_wrap=True)
    reporter.end("demo done, talk to it", "live", str(tuned), summary.dataset)


def make_media(folder: Path, reporter: Reporter) -> None:
    """Write the demo's conversations and the list of them, unless they are there."""
    clips = demo_corpus()
    corpus = folder / "corpus.jsonl"
    if corpus.exists():
        reporter.before("media", len(clips))
        return
    folder.mkdir(parents=True, exist_ok=True)
    with reporter.items("media", len(clips)) as advance:
        rows = _render(folder, clips, advance)
    lines = "".join(to_json(row) + "\n" for clip in clips for row in rows[clip.name])
    partial = corpus.with_suffix(".part")
    partial.write_text(lines, encoding="utf-8")
    partial.replace(corpus)


def _render(folder: Path, clips: tuple[Clip, ...], advance: Any) -> dict[str, list[dict[str, str]]]:
    """Rows of the list by clip. Each clip depends on its seed alone, so processes share the work."""
    rows: dict[str, list[dict[str, str]]] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
        waiting = {pool.submit(make_clip, folder, clip): clip for clip in clips}
        for future in as_completed(waiting):
            source = future.result()
            names = source.participants or ("",)
            rows[waiting[future].name] = [
                {"uri": Path(uri).name}
                | ({"conversation": source.conversation or "", "participant": who} if who else {})
                for uri, who in zip(source.uris, names, strict=True)
            ]
            advance()
    return rows


def _evaluate(models: dict[str, Path], dataset: str, reporter: Reporter) -> dict[str, Any]:
    """Metrics on held-out listening windows: every model, and the truth and baselines once."""
    rows: dict[str, Any] = {}
    with reporter.items("evaluate", len(models)) as advance:
        for name, checkpoint in models.items():
            try:
                found = evaluate(checkpoint, dataset, seeds=range(_EVALUATION_SEEDS), limit=_EVALUATED)["rows"]
            except UsageError as error:
                raise UsageError(f"evaluate {name}: {error}") from error
            rows[name] = found.pop("model")
            rows[f"{name}, no user"] = found.pop("model_no_user")
            rows |= found
            advance()
    return rows


def _metrics(figures: dict[str, Any]) -> list[Table]:
    shown = {
        name: {m: v for m, v in row.get("listening", row["all"]).items() if m.rsplit("_", 1)[0] in _SHOWN}
        for name in ("ground_truth", "hold_still", "base", "base + DPO")
        for row in [figures[name]]
    }
    title = f"held-out listening windows ({counted(_EVALUATION_SEEDS, 'sampling seed')}, one training seed)"
    return metrics_tables(shown, title)


def _truth_table(run: str, media: Path) -> Table:
    columns = ("dialogue", "layout", "DER", "turn borders within", "turns on the right face", "head pitch r")
    made = table("the build against what was rendered", *columns, left=("layout",))
    for check in check_build(run, media):
        made.add_row(
            check.name, check.layout, f"{check.der:.1%}", f"{check.turn_error:.2f} s", f"{check.bound:.0%}",
            f"{check.pitch:.3f}",
        )  # fmt: skip
    return made

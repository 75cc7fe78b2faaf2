"""What `visavis study` does to make a page: windows, motion, films, the key."""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from visavis.pipeline.cli.evaluate import names_of
from visavis.pipeline.cli.folders import dataset_folder
from visavis.pipeline.cli.study import plan_lines
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.terminal import say, say_json
from visavis.pipeline.page.study import PAGE, QUESTIONS, design, write_study
from visavis.pipeline.page.study_motion import (
    Shown,
    add_generated,
    add_pairs,
    choose_windows,
    film_clip,
    jumbled,
    measure_windows,
    with_figures,
)
from visavis.pipeline.page.votes import KEY_NAME, MOST_QUESTIONS, MOST_SYSTEMS, RECORDED, Clip, Key, Question, Trial
from visavis.pipeline.view.looks import Looks, run_of
from visavis.pipeline.view.portrait_sources import read_portrait
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import Split
from visavis.schemas.plain import to_json
from visavis.schemas.words import counted
from visavis.training.dataset import Dataset


@dataclass(frozen=True)
class Order:
    """What was asked for on the command line."""

    source: str
    checkpoints: tuple[Path, ...]
    recorded: bool
    trials: int
    checks: int
    ask: tuple[str, ...]
    ties: bool
    seed: int
    label: str
    split: str
    side: int
    portrait: Path | None
    title: str
    note: str
    encoder: str | None


def make_study(order: Order, out: Path, *, as_json: bool) -> None:
    """Write a study's folder whole, or nothing.

    Raises:
        UsageError: wrong use; a folder that has a study already, whose votes would lose their key.
    """
    reporter = Reporter()
    questions = questions_of(order.ask)
    if (out / KEY_NAME).exists() or (out / PAGE).exists():
        raise UsageError(f"{out} has a study already, and votes need its key; choose another --out")
    data = Dataset(dataset_folder(order.source))
    names = _check(order, data)
    windows = _windows(order, data, reporter)
    for_trials, for_checks = windows[: order.trials], windows[len(windows) - min(order.checks, len(windows)) :]
    origin = {"dataset": data.hash}
    if data.manifest.kind == "pairs":
        systems = add_pairs(windows)
    else:
        systems = [*names, *([RECORDED] if order.recorded else [])]
        with reporter.items("motion", len(names) * len(for_trials)) as advance:
            checkpoints = dict(zip(names, order.checkpoints, strict=True))
            origin |= add_generated(for_trials, checkpoints, data, order.seed, order.encoder, advance)
    measure_windows(for_trials, data)
    secret = secrets.token_bytes(16)
    keys = [[each.sample.key for each in some] for some in (for_trials, for_checks)]
    key = design(
        keys[0], systems, questions, checks=keys[1], trials=order.trials, seed=order.seed, ties=order.ties,
        secret=secret, origin=origin,
    )  # fmt: skip
    by_key = {each.sample.key: each for each in windows}
    key = key.model_copy(update={"trials": tuple(with_figures(t, by_key[t.window]) for t in key.trials)})
    _write(order, out, key, secret, by_key, data.manifest.window, reporter)
    real = sum(not trial.check for trial in key.trials)
    if as_json:
        say_json({"page": str(out / PAGE / "index.html"), "key": str(out / KEY_NAME), "study": key.study,
                  "trials": real, "checks": len(key.trials) - real, "systems": systems})  # fmt: skip
        return
    if real < order.trials:
        reporter.line(f"{counted(real, 'trial')} of {order.trials}: there are no more windows")
    say(str(out / PAGE / "index.html"))
    for line in plan_lines(real):
        reporter.line(line)
    reporter.end(
        f"{counted(real, 'trial')} and {counted(len(key.trials) - real, 'check')} of {', '.join(systems)}",
        "study", "--count", "VOTES", "--key", str(out),
    )  # fmt: skip


def questions_of(asked: tuple[str, ...]) -> list[Question]:
    """Questions by name, or in words of one's own.

    Raises:
        UsageError: too many, one twice, or too long.
    """
    if len(asked) > MOST_QUESTIONS:
        raise UsageError(f"at most {MOST_QUESTIONS} questions, not {len(asked)}")
    made = []
    for number, words in enumerate(asked, 1):
        if not words.strip() or len(words) > 500:
            raise UsageError(f"question {number}: between 1 and 500 letters")
        known = words in QUESTIONS
        if not known and re.fullmatch(r"\w+", words):
            raise UsageError(f"--ask {words}: one of {', '.join(QUESTIONS)}, or a question in your own words")
        made.append(Question(code=words if known else f"own-{number}", text=QUESTIONS[words] if known else words))
    if len({question.code for question in made}) < len(made):
        raise UsageError("--ask: each question once")
    return made


def _check(order: Order, data: Dataset) -> list[str]:
    """Names of the checkpoints. Raises UsageError: sources that do not go together."""
    names = names_of(order.checkpoints) if order.checkpoints else []
    if data.manifest.kind == "pairs":
        if names or order.recorded:
            raise UsageError(f"{data.location} are pairs, whose sides are compared; checkpoints go with a dataset")
        return []
    count = len(names) + order.recorded
    if count < 2:
        raise UsageError("name two checkpoints or more, --checkpoint A --checkpoint B, or one and --recorded")
    if count > MOST_SYSTEMS or RECORDED in names:
        raise UsageError(f"at most {MOST_SYSTEMS} systems, and no checkpoint called {RECORDED}")
    if order.split not in get_args(Split):
        raise UsageError(f"--split is {' or '.join(get_args(Split))}, not {order.split}")
    return names


def _windows(order: Order, data: Dataset, reporter: Reporter) -> list[Shown]:
    labels = [label.value for label in WindowClass]
    if order.label not in (*labels, "any"):
        raise UsageError(f"--class is any or one of {', '.join(labels)}, not {order.label}")
    pairs = data.manifest.kind == "pairs"
    label = None if order.label == "any" or pairs else WindowClass(order.label)
    splits: list[Split] = ["val", "train"] if pairs else [order.split]  # type: ignore[list-item]
    portrait = read_portrait(order.portrait) if order.portrait else None
    looks = Looks((None, portrait), run_of(data.location), reporter.line)
    return choose_windows(data, order.trials + order.checks, order.seed, looks, label=label, splits=splits)


def _write(
    order: Order, out: Path, key: Key, secret: bytes, by_key: dict[str, Shown], frames: int, reporter: Reporter
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / f".{PAGE}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with reporter.items("clips", 2 * len(key.trials)) as advance:

            def film(trial: Trial, clip: Clip, path: Path) -> None:
                shown = by_key[trial.window]
                motions = shown.motions
                motion = jumbled(motions[RECORDED]) if clip.system == trial.check else motions[clip.system]
                film_clip(shown, motion, path, order.side)
                advance()

            write_study(unfinished, key, secret, film, frames, order.title, order.note)
        (out / KEY_NAME).write_text(to_json(key.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        unfinished.rename(out / PAGE)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

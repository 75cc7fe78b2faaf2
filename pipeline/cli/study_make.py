"""What `visavis study` does to make a page: windows, motion, films, the key."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from visavis.pipeline.cli.evaluate import names_of
from visavis.pipeline.cli.flame import flame_face
from visavis.pipeline.cli.folders import dataset_folder
from visavis.pipeline.cli.options import refuse
from visavis.pipeline.cli.study import plan_lines
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.terminal import say, say_json
from visavis.pipeline.page.preferences import MOTIONS_NAME, dump_motions
from visavis.pipeline.page.study import PAGE, QUESTIONS, design, write_study
from visavis.pipeline.page.study_motion import (
    Shown,
    add_generated,
    add_pairs,
    choose_windows,
    deal,
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
class StudyRequest:
    """What was asked for on the command line. given: the parameters that people typed (`options.typed`)."""

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
    size: int
    portrait: Path | None
    title: str
    note: str
    encoder: str | None
    flame: Path | None
    flame_landmarks: Path | None
    given: Mapping[str, str]


def make_study(request: StudyRequest, out: Path, *, as_json: bool) -> None:
    """Write a study's folder whole, or nothing.

    Raises:
        UsageError: wrong use; a folder that has a study already, whose votes would lose their key.
    """
    reporter = Reporter()
    questions = questions_of(request.ask)
    if (out / KEY_NAME).exists() or (out / PAGE).exists():
        raise UsageError(f"{out} has a study already, and votes need its key; choose another --out")
    data = Dataset(dataset_folder(request.source))
    names = _check(request, data)
    windows = _windows(request, data, reporter)
    for_trials, for_checks = deal(windows, request.trials, request.checks)
    origin = {"dataset": data.hash}
    if data.manifest.kind == "pairs":
        systems = add_pairs(windows)
    else:
        systems = [*names, *([RECORDED] if request.recorded else [])]
        with reporter.items("motion", len(names) * len(for_trials)) as advance:
            checkpoints = dict(zip(names, request.checkpoints, strict=True))
            origin |= add_generated(for_trials, checkpoints, data, request.seed, request.encoder, advance)
    measure_windows(for_trials, data)
    secret = secrets.token_bytes(16)
    keys = [[each.sample.key for each in some] for some in (for_trials, for_checks)]
    key = design(
        keys[0], systems, questions, checks=keys[1], trials=request.trials, seed=request.seed, ties=request.ties,
        secret=secret, origin=origin,
    )  # fmt: skip
    by_key = {each.sample.key: each for each in windows}
    key = key.model_copy(update={"trials": tuple(with_figures(t, by_key[t.window]) for t in key.trials)})
    _write(request, out, key, secret, by_key, data.manifest.window, reporter)
    real = sum(not trial.check for trial in key.trials)
    checks = len(key.trials) - real
    if as_json:
        say_json({"page": str(out / PAGE / "index.html"), "key": str(out / KEY_NAME), "study": key.study,
                  "trials": real, "checks": checks, "systems": systems})  # fmt: skip
        return
    for made, wanted, name in ((real, request.trials, "trial"), (checks, request.checks, "check")):
        if made < wanted:
            reporter.line(f"{counted(made, name)} of {wanted}: there are no more windows")
    say(str(out / PAGE / "index.html"))
    for line in plan_lines(real):
        reporter.line(line)
    reporter.end(
        f"{counted(real, 'trial')} and {counted(checks, 'check')} of {', '.join(systems)}",
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


def _check(request: StudyRequest, data: Dataset) -> list[str]:
    """Names of the checkpoints. Raises UsageError: sources that do not go together."""
    names = names_of(request.checkpoints) if request.checkpoints else []
    if data.manifest.kind == "pairs":
        refuse(request.given, "pairs", "label", "split", "encoder")
        if names or request.recorded:
            raise UsageError(f"{data.location} are pairs, whose sides are compared; checkpoints go with a dataset")
        return []
    count = len(names) + request.recorded
    if count < 2:
        raise UsageError("name two checkpoints or more, --checkpoint A --checkpoint B, or one and --recorded")
    if count > MOST_SYSTEMS or RECORDED in names:
        raise UsageError(f"at most {MOST_SYSTEMS} systems, and no checkpoint called {RECORDED}")
    if request.split not in get_args(Split):
        raise UsageError(f"--split is {' or '.join(get_args(Split))}, not {request.split}")
    return names


def _windows(request: StudyRequest, data: Dataset, reporter: Reporter) -> list[Shown]:
    labels = [label.value for label in WindowClass]
    if request.label not in (*labels, "any"):
        raise UsageError(f"--class is any or one of {', '.join(labels)}, not {request.label}")
    pairs = data.manifest.kind == "pairs"
    label = None if request.label == "any" or pairs else WindowClass(request.label)
    splits: list[Split] = ["val", "train"] if pairs else [request.split]  # type: ignore[list-item]
    portrait = read_portrait(request.portrait) if request.portrait else None
    flame = flame_face(request.flame, request.flame_landmarks)
    looks = Looks((None, portrait), None if flame else run_of(data.location), reporter.line, flame)
    return choose_windows(data, request.trials + request.checks, request.seed, looks, label=label, splits=splits)


def _write(
    request: StudyRequest, out: Path, key: Key, secret: bytes, by_key: dict[str, Shown], frames: int, reporter: Reporter
) -> None:
    """Page and key come to lie in the folder at the very end: no key without its page, and no page without its key."""
    existed = out.is_dir()
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / f".{PAGE}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        with reporter.items("clips", 2 * len(key.trials)) as advance:

            def film(trial: Trial, clip: Clip, path: Path) -> None:
                shown = by_key[trial.window]
                motions = shown.motions
                motion = jumbled(motions[RECORDED]) if clip.system == trial.check else motions[clip.system]
                film_clip(shown, motion, path, request.size)
                advance()

            write_study(unfinished / PAGE, key, secret, film, frames, request.title, request.note)
        text = to_json(key.model_dump(mode="json"), indent=1) + "\n"
        (unfinished / KEY_NAME).write_text(text, encoding="utf-8")
        real = [(by_key[trial.window], clip) for trial in key.trials if not trial.check for clip in trial.clips]
        shown = dump_motions({clip.code: window.motions[clip.system] for window, clip in real})
        (unfinished / MOTIONS_NAME).write_bytes(shown)
        put_study(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not existed and not any(out.iterdir()):
            out.rmdir()


def put_study(unfinished: Path, out: Path) -> None:
    """Move a page, the motion that it shows and its key to where they stay: all, or nothing."""
    moved = []
    try:
        for name in (PAGE, MOTIONS_NAME, KEY_NAME):
            if (unfinished / name).exists():
                (unfinished / name).rename(out / name)
                moved.append(name)
    except BaseException:
        for name in moved:
            (out / name).rename(unfinished / name)
        raise

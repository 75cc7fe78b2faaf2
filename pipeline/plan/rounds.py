"""Preference tuning in rounds, with what `pairs` and `train` are made of:

    BASE ─► pairs of its motion ─► steps against it ─► round 1 ─► pairs of its motion ─► … ─► checkpoint

    OUT/tune.json            the settings
    OUT/rounds.jsonl         a line for each round that is done: what came of it
    OUT/round-001/pairs      its pairs: a run's folder
    OUT/round-001/train      its training run
    OUT/round-001/settled.safetensors   its model, taken back where reactions go beyond the recorded ones
    OUT/checkpoint.safetensors   what came out of the last round that was accepted

A round that was begun goes on where it was: pairs and steps resume as they do alone. Rounds end early where the chosen
side gets worse, or where the gate leaves no pair or nothing falls short any more, for then there is nothing left that
these pairs could teach.

Where reactions then go beyond the recorded ones, a round's model is taken back part of its way (`settle`); how far it
went is told by the pairs that the next round would begin with.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from visavis.pipeline.engine.executor import Engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.pairs import NothingLeft, build_pairs
from visavis.pipeline.plan.pairs_order import PairsRequest
from visavis.pipeline.plan.settle import share_of_way
from visavis.schemas.errors import UsageError
from visavis.schemas.markers import shaping
from visavis.schemas.names import Count, Sha256, Text
from visavis.schemas.plain import MOST_BYTES, fitted, read_strict, to_json
from visavis.schemas.secrets import written
from visavis.schemas.storage.held import held
from visavis.schemas.storage.store import Store
from visavis.schemas.tune import TuneConfig
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import first_difference
from visavis.stages.pairing.shortfall import shortfall_line
from visavis.training.checkpoint import CHECKPOINT_NAME, between, checkpoint_id, load_checkpoint, save_checkpoint
from visavis.training.dataset import Dataset
from visavis.training.log import METRICS_NAME
from visavis.training.preferences.groups import Shortfall, growth
from visavis.training.train import Worsened, train

SETTINGS_NAME, LEDGER_NAME, SETTLED_NAME = "tune.json", "rounds.jsonl", "settled.safetensors"
_WATCHED = ("val_loss", "val_user_gain", "val_implicit_accuracy", "val_margin", "val_chosen_rise")


class Round(BaseModel):
    """What came of a round: a line of the ledger.

    checkpoint: sha256 of what the next round starts from: the round's, or the one before where it was not accepted.
    rise: by how much the chosen side's error is above the base's, over all rounds. validation: the last line of it, as
    `metrics.jsonl` has it. ended: why no round comes after this one; empty where one may.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    number: int = Field(ge=1, le=100_000)
    seed: int
    pairs: Count
    tried: Count
    gated: dict[Text, Count] = Field(max_length=1000)
    steps: Count
    seconds: float = Field(ge=0)
    accepted: bool
    settled: float = Field(1.0, gt=0, le=1)  # share of the way that was kept
    checkpoint: Sha256
    rise: float
    validation: dict[Text, float | None] = Field(max_length=1000)
    score_margin: float | None  # median over all pairs that were tried
    shortfall: dict[Text, float | None] = Field({}, max_length=1000)  # as the manifest of the pairs has it
    ended: str = Field("", max_length=2000)


@dataclass(frozen=True)
class TuneRequest:
    """Rounds on a dataset, from the checkpoint `init`."""

    dataset: str
    init: Path
    out: Path
    config: TuneConfig


@dataclass(frozen=True)
class TuneSummary:
    """checkpoint: the model that came out; the base itself, if no round was accepted."""

    checkpoint: Path
    rounds: list[Round]

    @property
    def ended(self) -> str:
        """Why rounds ended early, or nothing."""
        return self.rounds[-1].ended if self.rounds else ""


def tune(request: TuneRequest, engine: Engine, reporter: Reporter) -> TuneSummary:
    """Make the rounds that are not done yet.

    Raises:
        UsageError: inputs that do not belong together, or a folder of other settings, or one in use.
        RunFailed: pairs or training failed, or the first round has no pair or gets worse at once.
        Stopped: somebody asked to stop; the same call goes on.
    """
    out = request.out
    with held(out, "`visavis tune`", "wait for it, or choose another --out"):
        _check_settings(request)
        done = read_ledger(out)
        current = _current(request, done)
        while len(done) < request.config.rounds and not (done and done[-1].ended):
            done.append(_round(request, len(done) + 1, current, done, engine, reporter))
            Store(str(out)).write(LEDGER_NAME, "".join(f"{to_json(each.model_dump())}\n" for each in done).encode())
            current = _current(request, done)
        final = current
        if final != request.init:
            final = out / CHECKPOINT_NAME
            with current.open("rb") as source, Store(str(out)).writer(CHECKPOINT_NAME) as target:
                shutil.copyfileobj(source, target)
    return TuneSummary(final, done)


def _round(
    request: TuneRequest, number: int, current: Path, done: list[Round], engine: Engine, reporter: Reporter
) -> Round:
    began = time.monotonic()
    rise = done[-1].rise if done else 0.0
    found: dict[str, Any] = {"checkpoint": checkpoint_id(current), "accepted": False, "rise": rise, "steps": 0}
    found |= {"number": number, "validation": {}, "score_margin": None}
    reporter.line(f"round {number} of {request.config.rounds}: pairs")
    found |= _pairs(request, number, current, engine, reporter)
    if "ended" not in found:
        found |= _steps(request, number, current, rise, reporter)
    if found["accepted"] and _weighs_shortfall(request.config):
        found |= _settle(request, number, current, found, engine, reporter)
    return Round(**found, seconds=round(time.monotonic() - began, 1))


def _pairs(request: TuneRequest, number: int, current: Path, engine: Engine, reporter: Reporter) -> dict[str, Any]:
    """Make a round's pairs; what its line of the ledger says of them, and why the round ends with them, if it does."""
    config, root = request.config, round_folder(request.out, number) / "pairs"
    seed = config.pairs.sampler.seed + (number - 1) * config.pairs.per_window
    sampler = config.pairs.sampler.model_copy(update={"seed": seed})
    asked = PairsRequest(request.dataset, str(current), config.pairs.model_copy(update={"sampler": sampler}))
    try:
        made = build_pairs(asked, str(root), engine, reporter)
    except NothingLeft as error:
        if number == 1:
            raise
        tried, gated = error.summary.tried, error.summary.gated
        found = {"seed": seed, "pairs": 0, "tried": tried, "gated": gated, "shortfall": error.summary.shortfall}
        return found | {"ended": f"round {number}: {error}"}
    margin = made.figures.get("score_margin", made.figures["reactivity_margin"]).quantile(0.5)
    found = {"seed": seed, "pairs": made.kept, "tried": made.tried, "gated": made.gated, "shortfall": made.shortfall}
    found |= {"score_margin": margin if math.isfinite(margin) else None}
    if short := shortfall_line(made.shortfall):
        reporter.line(f"round {number}: {short}")
    if _nothing_short(config, made.shortfall, number):
        found["ended"] = f"round {number}: nothing is left to teach: {short}"
    return found


def _steps(request: TuneRequest, number: int, current: Path, rise: float, reporter: Reporter) -> dict[str, Any]:
    """Take a round's steps; what its line says of them. rise: of the chosen side's error, in the rounds before."""
    config, folder = request.config, round_folder(request.out, number)
    training = config.train.model_copy(update={"seed": config.train.seed + number - 1})
    wanted = training.dpo.steps
    try:
        with reporter.training(f"round {number}", wanted) as progress:
            path = train(
                request.dataset, folder / "train", training, init=current, pairs=str(folder / "pairs" / DATASET),
                progress=progress,
            )  # fmt: skip
    except Worsened as error:
        if number == 1:
            raise
        return {"ended": f"round {number}: {error}"}
    steps = load_checkpoint(path, whole=False).step
    seen = _validation(folder / "train", steps)
    total = (1 + rise) * (1 + (seen.get("val_chosen_rise") or 0.0)) - 1
    found: dict[str, Any] = {"steps": steps, "rise": total, "validation": seen}
    if config.max_rise is not None and total > config.max_rise:
        said = f"the chosen side is {total:.1%} worse than the base's, so it is left out (max_rise)"
        return found | {"ended": f"round {number}: {said}"}
    if steps < wanted:
        said = f"ended at step {steps} of {wanted}, before the chosen side got worse"
        found["ended"] = f"round {number}: {said}"
    return found | {"accepted": True, "checkpoint": checkpoint_id(path)}


def _nothing_short(config: TuneConfig, shortfall: Shortfall, number: int) -> bool:
    """Whether no group weighs anything that is weighed by what it falls short by. Groups of which nothing is known are
    tried in the first round alone, or rounds would go on for ever."""
    names = config.train.dpo.groups or tuple(shortfall)
    if not _weighs_shortfall(config) or any(growth(shortfall.get(name) or 0.0) for name in names):
        return False
    known = bool(names) and all(shortfall.get(name) is not None for name in names)
    return known or number > 1 or config.train.dpo.group_weights == "shortfall"


def _settle(
    request: TuneRequest, number: int, current: Path, found: dict[str, Any], engine: Engine, reporter: Reporter
) -> dict[str, Any]:
    """Take a round's model back where its reactions go beyond the recorded ones; what changes of its line."""
    tuned = round_folder(request.out, number) / "train" / CHECKPOINT_NAME
    reporter.line(f"round {number}: how far it went")
    after = _pairs(request, number + 1, tuned, engine, reporter)["shortfall"]
    share = share_of_way(found["shortfall"], after)
    if share == 1:
        return {}
    path = round_folder(request.out, number) / SETTLED_NAME
    save_checkpoint(between(load_checkpoint(current), load_checkpoint(tuned), share), path)
    said = f"reactions are as large as the recorded ones at {share:.0%} of the way"
    return {"settled": share, "checkpoint": checkpoint_id(path), "ended": f"round {number}: {said}"}


def _weighs_shortfall(config: TuneConfig) -> bool:
    dpo = config.train.dpo
    return dpo.objective == "groups" and dpo.group_weights != "equal" and config.pairs.asks_shortfall


def _model_of(out: Path, done: Round) -> Path:
    """What a round that was accepted made."""
    folder = round_folder(out, done.number)
    return folder / "train" / CHECKPOINT_NAME if done.settled == 1 else folder / SETTLED_NAME


def round_folder(out: Path, number: int) -> Path:
    return out / f"round-{number:03d}"


def read_ledger(out: Path) -> list[Round]:
    """The rounds that are done.

    Raises:
        UsageError: it is not what a run writes.
    """
    path = out / LEDGER_NAME
    if not path.exists():
        return []
    with parsing(lambda why: UsageError(f"{path} is not what `visavis tune` writes ({why})")):
        rows = [fitted(Round, read_strict(line, MOST_BYTES)) for line in path.read_text("utf-8").splitlines()]
        if [row.number for row in rows] != list(range(1, len(rows) + 1)):
            raise ValueError("rounds are not in order")
    return rows


def _current(request: TuneRequest, done: list[Round]) -> Path:
    """What the next round starts from.

    Raises:
        UsageError: the checkpoint of a round that is done is not there, or is another one.
    """
    accepted = next((row for row in reversed(done) if row.accepted), None)
    if accepted is None:
        return request.init
    path = _model_of(request.out, accepted)
    if not path.exists() or checkpoint_id(path) != accepted.checkpoint:
        raise UsageError(f"{path} is not what round {accepted.number} wrote; remove {request.out} and begin again")
    return path


def _check_settings(request: TuneRequest) -> None:
    """Remember what rounds are made by, or see that it is the same."""
    path = request.out / SETTINGS_NAME
    made_of = {"dataset": Dataset(request.dataset).hash, "init": checkpoint_id(request.init)}
    settings = written(shaping(request.config) | made_of)
    if not path.exists():
        Store(str(request.out)).write(SETTINGS_NAME, f"{to_json(settings, indent=1)}\n".encode())
        return
    with parsing(lambda why: UsageError(f"{path} is not what `visavis tune` writes ({why})")):
        before = read_strict(path.read_bytes(), MOST_BYTES)
        if not isinstance(before, dict):
            raise ValueError("no settings")
    if changed := first_difference(before, json.loads(to_json(settings))):
        raise UsageError(f"{request.out} was tuned with {changed}; set it back, or choose another --out")


def _validation(folder: Path, step: int) -> dict[str, float | None]:
    """The line of validation at a step."""
    lines = [json.loads(line) for line in (folder / METRICS_NAME).read_text("utf-8").splitlines()]
    found = [line for line in lines if line["step"] == step and any(name in line for name in _WATCHED)]
    return {name: found[-1].get(name) for name in _WATCHED if name in found[-1]} if found else {}

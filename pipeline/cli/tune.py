"""`visavis tune`: preference tuning in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visavis.pipeline.cli.options import Address, Data, Encoder, Engine, Json, Overrides
from visavis.pipeline.engine.terminal import Terminal, say, say_json, table
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.plain import to_json
from visavis.schemas.words import counted

if TYPE_CHECKING:
    from rich.table import Table

    from visavis.pipeline.plan.rounds import Round
    from visavis.schemas.tune import TuneConfig

tuning = typer.Typer()


@tuning.command()
def tune(
    dataset: Data,
    init: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to start from.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of rounds, and of checkpoint.safetensors.")] = Path(
        "runs/tune"
    ),
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds at most; may be raised later.")] = None,
    config: Annotated[
        str | None,
        typer.Option(help="Recipe with sections pairs and train; of one that is not there: the settings of --init."),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(metavar="FILE.py:FUNCTION", help="Your own reward, as of `visavis pairs`.")
    ] = None,
    encoder: Encoder = None,
    engine: Engine = None,
    address: Address = None,
    set_: Overrides = None,
    as_json: Json = False,
) -> None:
    """Tune by preferences in rounds: pairs of what the model does now, steps against it, and again.

    Running it again resumes. Rounds end early where the chosen side gets worse, or no pair is left.
    """
    needs("build", "visavis tune")
    from visavis.pipeline.cli.commands import engine_of
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.pipeline.plan.rounds import TuneRequest
    from visavis.pipeline.plan.rounds import tune as make_rounds
    from visavis.schemas.config import RunConfig
    from visavis.schemas.recipes import parse_config

    named = {"pairs.scorer": scorer, "pairs.encoder": encoder, "train.features.weights": encoder, "rounds": rounds}
    overrides = [f"{name}={to_json(value)}" for name, value in named.items() if value]
    recipe = tune_config(init, config, [*overrides, *(set_ or [])])
    run = parse_config(to_json({"engine": engine or "ray", "address": address}), RunConfig, where="tune")
    reporter = Reporter()
    summary = make_rounds(TuneRequest(dataset_folder(dataset), init, out, recipe), engine_of(run), reporter)
    if as_json:
        found = {"checkpoint": str(summary.checkpoint), "rounds": [each.model_dump() for each in summary.rounds]}
        say_json(found | {"ended": summary.ended or None})
        return
    Terminal().print(rounds_table(summary.rounds))
    if summary.ended:
        say(summary.ended)
    say(str(summary.checkpoint))
    accepted = sum(each.accepted for each in summary.rounds)
    of = f"{counted(accepted, 'round')} of {recipe.rounds}"
    reporter.end(of, "evaluate", str(init), str(summary.checkpoint), dataset)


def tune_config(init: Path, recipe: str | None, overrides: list[str]) -> TuneConfig:
    """Settings of rounds. Those of a section that the recipe does not name are the base's, and of pairs its sampler.

    Where the base's files lay (encoder, cache) is not followed: a checkpoint may come from others.

    Raises:
        UsageError: no such checkpoint or recipe, or settings that do not fit.
    """
    from visavis.schemas.recipes import load_config, parse_config
    from visavis.schemas.tune import TuneConfig
    from visavis.training.checkpoint import load_checkpoint
    from visavis.training.distill import check_goes_on

    start = load_checkpoint(init, whole=False)
    check_goes_on(start)
    base = start.config.model_dump(mode="json")
    base |= {"device": "auto", "features": base["features"] | {"weights": None}}
    base |= {"dpo": base["dpo"] | {"cache": None}, "optim": base["optim"] | {"compile": False}}
    given = {"train": base, "pairs": {"sampler": base["sampler"]}}
    if recipe is not None:
        found = load_config(recipe, TuneConfig)
        given |= found.model_dump(mode="json", exclude_unset=True)
    made = parse_config(to_json(given), TuneConfig, overrides, where=recipe or "tune")
    if made.pairs.scores is not None:
        raise UsageError("a file of scores is of one model's motion; rounds want a scorer (--scorer FILE.py:FUNCTION)")
    return made


def rounds_table(rounds: list[Round]) -> Table:
    """What came of each round; fits 80 columns."""
    made = table("rounds", "round", "pairs", "margin", "steps", "accuracy", "chosen", "in all", "val loss", "kept")
    for each in rounds:
        seen = each.validation
        made.add_row(
            str(each.number), f"{each.pairs} / {each.tried}", _number(each.score_margin, "+.3f"), str(each.steps),
            _number(seen.get("val_implicit_accuracy"), ".3f"), _number(seen.get("val_chosen_rise"), "+.2%"),
            f"{each.rise:+.2%}", _number(seen.get("val_loss"), ".4f"), _kept(each),
        )  # fmt: skip
    return made


def _kept(each: Round) -> str:
    if not each.accepted:
        return "no"
    return "yes" if each.settled == 1 else f"{each.settled:.0%} of the way"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)

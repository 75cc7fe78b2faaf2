"""`visavis report`: a dataset in words, a generated window as a picture, or a whole run as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from visavis.pipeline.cli.options import Flame, FlameLandmarks, Json
from visavis.pipeline.plan.file_names import GENERATED
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs

reports = typer.Typer()
_MADE = {
    "summary": "the summary of a dataset",
    "picture": f"the picture of a generated window (KEY{GENERATED})",
    "page": "a page",
}
_FOR = {"--samples": ("summary",), "--dataset": ("picture",), "--out": ("picture", "page"),
        "--flame": ("picture",), "--flame-landmarks": ("picture",)}  # fmt: skip
"""What an option is for; those that are not here are for a page."""


@reports.command()
def report(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Dataset or run of `visavis build` or `visavis pairs`, or a KEY.generated.npy. With --page"
            " also a folder that holds a build, pairs, trainings and evaluation.json.",
        ),
    ],
    samples: Annotated[
        int | None, typer.Option(min=0, help="Sample keys to list per class and split; none: 2.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The picture, or the page's folder; none: beside what it is of.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="For a picture: where the dataset lies, if it was moved since.")
    ] = None,
    page: Annotated[
        bool, typer.Option("--page", help="Write a page that opens by double click, without a network: RUN-page.")
    ] = False,
    pairs: Annotated[list[str] | None, typer.Option(metavar="RUN", help="Page: pairs that lie elsewhere.")] = None,
    training: Annotated[
        list[Path] | None, typer.Option(metavar="FOLDER", help="Page: trainings that lie elsewhere.")
    ] = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Page: what `visavis evaluate … --json` printed.")
    ] = None,
    conversations: Annotated[
        int | None, typer.Option(min=0, help="Page: conversations that can be opened; none: 200.")
    ] = None,
    with_media: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Page: copy the films of so many; others, and all without it, are played where they lie.",
        ),
    ] = None,
    with_motion: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Page: draw so many beside their films, none: 1; without films all are.",
        ),
    ] = None,
    pairs_shown: Annotated[
        int | None, typer.Option(min=0, help="Page: pairs of each set that can be played; none: 10.")
    ] = None,
    flame: Flame = None,
    flame_landmarks: FlameLandmarks = None,
    as_json: Json = False,
) -> None:
    """Summarise a dataset: classes, shards, balance, codec, pairs. Or draw what `visavis generate` wrote.

    With --page, everything of a run as a page: what came in and why it was left out, thresholds as sliders, each
    conversation and pair to be played, training and evaluation.
    """
    amounts = {"conversations": conversations, "media": with_media, "motion": with_motion, "pairs": pairs_shown}
    names = ("--conversations", "--with-media", "--with-motion", "--pairs-shown")
    beside = {"--pairs": pairs, "--training": training, "--evaluation": evaluation}
    given = {"--samples": samples, "--dataset": dataset, "--out": out, "--flame": flame,
             "--flame-landmarks": flame_landmarks, **beside}  # fmt: skip
    kind = "page" if page else "picture" if what.endswith(GENERATED) else "summary"
    _refuse(given | dict(zip(names, amounts.values(), strict=True)), kind)
    from visavis.pipeline.cli.report import report_dataset, report_generated, report_page

    if kind == "page":
        needs("build", "a page")
        from visavis.pipeline.page.report import Wanted

        wanted = Wanted(**{name: amount for name, amount in amounts.items() if amount is not None})
        report_page(what, out, (pairs or [], training or [], evaluation or []), wanted, as_json=as_json)
    elif kind == "picture":
        needs("build", "a picture")
        picture = out or Path(what.removesuffix(GENERATED) + ".png")
        report_generated(what, picture, dataset, (flame, flame_landmarks), as_json=as_json)
    else:
        report_dataset(what, 2 if samples is None else samples, as_json=as_json)


def _refuse(given: dict[str, Any], kind: str) -> None:
    """Options that would be ignored."""
    for option, value in given.items():
        wanted = _FOR.get(option, ("page",))
        if value not in (None, []) and kind not in wanted:
            advice = ": add --page" if "page" in wanted else ""
            raise UsageError(
                f"{option} is for {' or '.join(_MADE[each] for each in wanted)}, not for {_MADE[kind]}{advice}"
            )

"""`visavis study`: makes a blind comparison as a page, and counts its votes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from visavis.pipeline.cli.options import Encoder, Flame, FlameLandmarks, Json, Portrait, refuse, typed
from visavis.pipeline.engine.terminal import Terminal, say, say_json, table
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.words import counted

studies = typer.Typer()
_DIFFER = (0.1, 0.15)
"""Deviations of the share between people and between clips that the last line assumes beside none."""
_OF_COUNTS = {"sources", "count", "out", "key", "failed_checks", "as_json"}


@studies.command()
def study(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="DATASET | PAIRS | VOTES…", help="Dataset or pairs; with --count, files of votes."),
    ],
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint", "-c", metavar="FILE", help="Compare it, on held-out windows of DATASET; for each."
        ),
    ] = None,
    recorded: Annotated[bool, typer.Option("--recorded", help="Also compare the recorded motion.")] = False,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for page/, which people get, and key.json, which they must not."),
    ] = Path("runs/study"),
    trials: Annotated[int, typer.Option(min=1, max=500, help="Comparisons a person makes, at most.")] = 30,
    checks: Annotated[int, typer.Option(min=0, max=20, help="Attention checks among them, in addition.")] = 4,
    ask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|TEXT",
            help="Question: listening (the default), natural, responsive, rich, voice,"
            " overall, or your own words; repeat for several.",
        ),
    ] = None,
    ties: Annotated[bool, typer.Option("--ties/--no-ties", help="Whether `no difference` is offered.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the windows that are drawn, and of the sampler's noise.")] = 0,
    label: Annotated[str, typer.Option("--class", help="Class of the windows, or any.")] = "listening",
    split: Annotated[str, typer.Option(help="Of DATASET: val or train.")] = "val",
    size: Annotated[int, typer.Option(min=128, max=1024, help="Height of each picture, pixels.")] = 384,
    portrait: Portrait = None,
    flame: Flame = None,
    flame_landmarks: FlameLandmarks = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Which one listens?",
    note: Annotated[str, typer.Option(help="Shown before the start: who asks, why, whom to write to.")] = "",
    encoder: Encoder = None,
    count: Annotated[bool, typer.Option("--count", help="Count VOTES by --key.")] = False,
    key: Annotated[Path | None, typer.Option(help="With --count: key.json of the study, or its folder.")] = None,
    failed_checks: Annotated[
        int | None,
        typer.Option(min=0, help="With --count: attention checks that a person may fail; none: a quarter."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a blind comparison of checkpoints, or of the sides of pairs, as a page that works offline; or count votes.

    People get FOLDER/page and hand in a file of votes. FOLDER/key.json says which clip is whose: keep it.
    """
    given = typed(context)
    if count:
        refuse(given, "--count", *(name for name in given if name not in _OF_COUNTS))
        refuse(given, "--key", *(["out"] if key else []))
        _count(sources, key or out, failed_checks, as_json=as_json)
        return
    refuse(given, "making a study, only with --count", "key", "failed_checks")
    needs("build", "visavis study")
    from visavis.pipeline.cli.study_make import StudyRequest, make_study

    if len(sources) != 1:
        raise UsageError(
            f"one dataset or set of pairs makes a study, not {len(sources)}; votes are counted with --count"
        )
    request = StudyRequest(
        source=sources[0], checkpoints=tuple(checkpoint or ()), recorded=recorded, trials=trials, checks=checks,
        ask=tuple(ask or ("listening",)), ties=ties, seed=seed, label=label, split=split, size=size, portrait=portrait,
        title=title, note=note, encoder=encoder, flame=flame, flame_landmarks=flame_landmarks, given=given,
    )  # fmt: skip
    make_study(request, out, as_json=as_json)


def plan_lines(trials: int, people: int = 10) -> list[str]:
    """How sure a count will be: half the interval's width if votes were independent, and as people usually differ."""
    from visavis.pipeline.page.shares import expected_half_width, people_needed

    alone = expected_half_width(trials, people)
    usual = expected_half_width(trials, people, people_differ=_DIFFER[0], clips_differ=_DIFFER[1])
    wanted = 0.1
    needed = people_needed(trials, wanted, _DIFFER)
    enough = (
        f"{counted(needed, 'person', 'people')} for ± {wanted:.0%}" if needed else f"more trials for ± {wanted:.0%}"
    )
    return [
        f"{counted(trials, 'trial')} × {counted(people, 'person', 'people')}: ± {alone:.0%} if votes were independent,"
        f" ± {usual:.0%} if people differ by {_DIFFER[0]:.0%} and clips by {_DIFFER[1]:.0%}; then it takes {enough}"
    ]


def _count(files: list[str], key: Path, failed_checks: int | None, *, as_json: bool) -> None:
    from visavis.pipeline.engine.progress import Reporter
    from visavis.pipeline.page.count import count_votes
    from visavis.pipeline.page.votes import KEY_NAME, read_key, read_votes

    reporter = Reporter()
    path = key / KEY_NAME if key.is_dir() else key
    if not path.is_file():
        raise UsageError(f"{path} is not there; name the study's folder, or its {KEY_NAME}, with --key")
    known = read_key(path)
    result = count_votes(known, read_votes([Path(file) for file in files], known), failed_checks)
    if as_json:
        say_json(result)
        return
    for code, found in result["questions"].items():
        Terminal().print(*_tables(result["texts"][code], found))
    for line in (*result["people"]["left_out"], *result["people"]["unfinished"], _sides(result["sides"])):
        say(line)
    people = result["people"]
    reporter.end(
        f"{counted(people['files'], 'file')}, {counted(people['counted'], 'person', 'people')} counted",
        advice="--json has all of it, and the preferred clip of every trial",
    )


def _tables(text: str, found: dict[str, Any]) -> list[Table]:
    caption = _agreement(found["agreement"]) if found["shares"] else "no votes on this question"
    columns = ("preferred", "over", "share", "95 %", "Wilson alone", "votes", "same")
    made = table(text, *columns, left=("over",), caption=caption)
    for row in found["shares"]:
        made.add_row(*row["systems"], f"{row['share']:.0%}", _range(row["interval"]), _range(row["wilson"]),
                     str(row["votes"]), str(row["same"]))  # fmt: skip
    tables = [made]
    if found["bradley_terry"]:
        scores = table("Bradley–Terry scores, log odds", "system", "score", "95 %")
        for row in found["bradley_terry"]:
            low, high = row["interval"]
            scores.add_row(row["system"], f"{row['score']:+.2f}", "–" if low != low else f"{low:+.2f} … {high:+.2f}")
        tables.append(scores)
    return [*tables, *(_measured(row["systems"], found["measurements"]) for row in found["shares"])]


def _measured(systems: list[str], measurements: list[dict[str, Any]]) -> Table:
    """Of two systems: which measurements go with the votes, those that go most with them first."""
    rows = [row for row in measurements if row["systems"] == systems and row["correlation"] is not None]
    caption = None if rows else "fewer than four clips, or no difference to go by"
    made = table(f"what measurements say, {' less '.join(systems)}", "measurement", "rank corr.", "95 %", "same side",
                 "clips", caption=caption)  # fmt: skip
    for row in sorted(rows, key=lambda row: -abs(row["correlation"])):
        low, high = row["interval"]
        made.add_row(row["measurement"], f"{row['correlation']:+.2f}", f"{low:+.2f} … {high:+.2f}",
                     f"{row['same_side']} of {row['decided']}", str(row["clips"]))  # fmt: skip
    return made


def _range(interval: list[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.0%} … {interval[1]:.0%}"


def _agreement(alpha: float | None) -> str:
    return "agreement (Krippendorff's alpha): " + ("not defined" if alpha is None else f"{alpha:.2f}")


def _sides(sides: dict[str, Any]) -> str:
    if sides["share"] is None:
        return "sides: no vote"
    votes = counted(sides["votes"], "vote")
    return f"sides: left in {sides['share']:.0%} of {votes} ({_range(sides['wilson'])}, p {sides['p']:.2f})"

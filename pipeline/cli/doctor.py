"""`visavis doctor`: judge a corpus as a whole, before or after a build."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from visavis.pipeline.cli.options import Json
from visavis.pipeline.engine.terminal import Terminal, say, say_json, table
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.words import counted

if TYPE_CHECKING:
    from visavis.pipeline.engine.progress import Reporter
    from visavis.stages.doctor.findings import Diagnosis

doctors = typer.Typer()
_SHOWN = 5  # items of a finding that are listed


@doctors.command()
def doctor(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="RUN|DATASET|LIST",
            help="Run of `visavis build` or `import`, a dataset; or, before a build, a list, folder or video.",
        ),
    ],
    items: Annotated[int, typer.Option(min=0, help="Items of each finding to list.")] = _SHOWN,
    voices: Annotated[
        bool,
        typer.Option(
            "--voices",
            help="Of a run without voiceprints: hear all voices, to know people across conversations (2 s each, on a"
            " core). Nothing of it is kept.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a corpus as a whole, how sure that is, and what to do. Exit 1 if it must be mended."""
    needs("build", "visavis doctor")
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    found, kept = diagnosis_of(corpus, reporter, voices=voices)
    if as_json:
        say_json(found.model_dump(mode="json") | {"ill": found.ill})
    else:
        _say(found, items)
        looked = ", ".join(f"{n} {what}" for what, n in found.looked_at.items())
        said = f"{counted(len(found.findings), 'finding')}; looked at {looked}"
        reporter.end(said, *(("report", corpus, "--page") if kept else ()))
    raise typer.Exit(1 if found.ill else 0)


def diagnosis_of(corpus: str, reporter: Reporter, *, voices: bool = False) -> tuple[Diagnosis, bool]:
    """Of whatever was named; and whether it was kept beside it, for `report --page`.

    Raises:
        UsageError: it is nothing that can be examined.
    """
    from visavis.pipeline.plan.doctor_dataset import examine_dataset
    from visavis.pipeline.plan.doctor_list import examine_list
    from visavis.pipeline.plan.doctor_run import examine_run
    from visavis.pipeline.plan.file_names import DIAGNOSIS, RUN_FILE
    from visavis.schemas.manifest import MANIFEST_NAME
    from visavis.schemas.plain import to_json
    from visavis.schemas.secrets import written
    from visavis.schemas.storage.store import Store
    from visavis.schemas.untrusted import first_line

    there = set[str]()
    with suppress(OSError, UsageError, ValueError):  # a list or a video is no folder
        store = Store(corpus)
        there = {name for name in (RUN_FILE, MANIFEST_NAME) if store.exists(name)}
    if RUN_FILE in there:
        found = examine_run(corpus, reporter, listen=voices)
        data = f"{to_json(written(found.model_dump(mode='json')), indent=1)}\n".encode()
        try:
            store.write(DIAGNOSIS, data)
        except (OSError, NotImplementedError) as error:  # a run of somebody else, a full disk, a web server
            reporter.line(f"{DIAGNOSIS} could not be written, so no page will show this: {first_line(error)}")
            return found, False
        return found, True
    if MANIFEST_NAME in there:
        return examine_dataset(corpus, reporter), False
    return examine_list([corpus], reporter), False


def _say(found: Diagnosis, items: int) -> None:
    made = table(found.corpus, "finding", "sure", "items", "of", "what to do", left=("what to do",))
    for finding in found.findings:
        mark = "" if finding.severity == "mend" else " (look)"
        made.add_row(
            f"{finding.what}{mark}", f"{finding.certainty:.0%}", str(finding.count), str(finding.of), finding.advice
        )
    if found.findings:
        Terminal().print(made)
    for finding in found.findings:
        if items:
            say(f"{finding.kind}:")
        for item in finding.items[:items]:
            say(f"  {item.name or item.id}  {item.detail} ({item.certainty:.0%})")
        if 0 < items < finding.count:
            say(f"  and {finding.count - items} more")
    for line in found.notes:
        say(line)
    for line in found.unknown:
        say(f"not asked: {line}")
    if not found.findings:
        say("nothing is wrong, as far as this can be told")

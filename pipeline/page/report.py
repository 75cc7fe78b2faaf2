"""The report of a run as a page: a folder that opens by double click, without a server or a network.

index.html      the corpus, the table of conversations, pairs, training and evaluation
data/           a script of each conversation and each pair, loaded when it is opened
media/          pictures of examples, and files that were copied
static/         scripts and styles
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.base import write_page
from visavis.pipeline.page.folder import new_folder
from visavis.pipeline.page.report_build import build_data
from visavis.pipeline.page.report_find import Found
from visavis.pipeline.page.report_media import Copies
from visavis.pipeline.page.report_pairs import pairs_data
from visavis.pipeline.page.report_parts import plainly
from visavis.pipeline.page.report_training import curves_of, evaluation_of
from visavis.pipeline.plan.file_names import DIAGNOSIS
from visavis.schemas import FPS
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.plain import fitted, read_strict
from visavis.schemas.secrets import safe, safe_all
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line, parsing
from visavis.stages.doctor.findings import Diagnosis

_PARTS = (
    "report.css", "canvas.js", "report_data.js", "avatar.js", "report_table.js", "report_limits.js", "report_player.js",
    "report_timeline.js", "report_conversation.js", "report_corpus.js", "report_doctor.js", "report_pairs.js",
    "report_training.js", "report.js",
)  # fmt: skip
_CURVES = ("vendor/uPlot.iife.min.js", "vendor/uPlot.min.css", "vendor/uPlot.LICENSE")


@dataclass(frozen=True)
class Wanted:
    """How much of a run goes into a page.

    conversations: that have a view of their own. media: of these, whose files are copied. pairs: that can be played.
    motion: of these, whose motion is drawn though their films are at hand; where they are not, it always is.
    examples: pictures for each reason.
    """

    conversations: int = 200
    media: int = 0
    motion: int = 1
    pairs: int = 10
    examples: int = 3


def write_report(found: Found, out: Path, wanted: Wanted, reporter: Reporter) -> dict[str, Any]:
    """Write the page of what was found.

    Returns: how many conversations there are and have a view of their own, and bytes with and without media.

    Raises:
        UsageError: `out` is not ours to write to, or there is nothing to report.
    """
    with new_folder(out) as folder:
        (folder / "data").mkdir()
        training = _readable(found.training, curves_of, found)
        evaluation = _readable(found.evaluation, evaluation_of, found)
        copies = Copies(folder, out, wanted.media)
        built, places = _build(found, folder, copies, wanted, reporter)
        pairs = list(_pairs(found, folder, wanted.pairs, reporter))
        data = {
            "title": found.title,
            "fps": FPS,
            "corpus": built,
            "doctor": _doctor(found),
            "pairs": pairs,
            "places": _needed(places, pairs),
            "training": training,
            "evaluation": evaluation,
            "notes": found.notes,
        }
        parts = (*_CURVES, *_PARTS) if found.training else _PARTS
        title = safe(f"Report: {found.title}")
        write_page(folder, "index.html", "report.html", parts, title=title, data=plainly(safe_all(data)))
        sizes = Counter[bool]()
        for path in folder.rglob("*"):
            if path.is_file():
                sizes[path.is_relative_to(folder / "media")] += path.stat().st_size
    return {
        "page": str(out / "index.html"),
        "conversations": built["total"] if built else 0,
        "opened": built["opened"] if built else 0,
        "bytes": sizes[False],
        "media_bytes": sizes[True],
    }


def _build(
    found: Found, folder: Path, copies: Copies, wanted: Wanted, reporter: Reporter
) -> tuple[dict[str, Any] | None, dict[str, list[dict[str, Any]]]]:
    if not found.build:
        return None, {}
    return build_data(found.build, folder, copies, wanted.conversations, wanted.motion, wanted.examples, reporter)


def _doctor(found: Found) -> dict[str, Any] | None:
    """What `visavis doctor` left in the run, if it was asked; of what cannot be read the page says why."""
    data = Store(found.build).peek(DIAGNOSIS) if found.build else None
    if data is None:
        return None
    try:
        with parsing(lambda why: DatasetError(f"{DIAGNOSIS} is not what `visavis doctor` writes ({why})")):
            return fitted(Diagnosis, read_strict(data)).model_dump(mode="json")
    except DatasetError as error:
        found.notes.append(first_line(error))
        return None


def _readable(places: Sequence[Path], read: Callable[[Path], dict[str, Any]], found: Found) -> list[dict[str, Any]]:
    """What can be read; of the rest the page says why not."""
    made = []
    for place in places:
        try:
            made.append(read(place))
        except (UsageError, OSError) as error:
            found.notes.append(first_line(error))
    return made


def _pairs(found: Found, folder: Path, played: int, reporter: Reporter) -> Iterator[dict[str, Any]]:
    """The sets of pairs that can be read; of others the page says why not."""
    for place in found.pairs:
        try:
            yield pairs_data(place, folder, played, reporter)
        except (DatasetError, UsageError, OSError) as error:
            found.notes.append(f"the pairs of {place} cannot be read: {first_line(error)}")


def _needed(places: dict[str, list[dict[str, Any]]], pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the films of the pairs that are shown lie."""
    wanted = {id_ for each in pairs for id_ in each["table"]["words"]["conversation"]}
    return {id_: media for id_, media in places.items() if id_ in wanted}

"""The report of a run as a page: a folder that opens by double click, without a server or a network.

index.html      the corpus, the table of conversations, pairs, training and evaluation
data/           a script of each conversation and each pair, loaded when it is opened
media/          pictures of examples, and files that were copied
static/         scripts and styles
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.base import write_page
from visavis.pipeline.page.folder import new_folder
from visavis.pipeline.page.report_conversation import conversation_data, conversation_of, moment, motion_data
from visavis.pipeline.page.report_corpus import Corpus, Entry, columns_of, limits_of, read_corpus
from visavis.pipeline.page.report_find import Found
from visavis.pipeline.page.report_media import Copies
from visavis.pipeline.page.report_pairs import pairs_data
from visavis.pipeline.page.report_parts import put, put_codec
from visavis.pipeline.page.report_training import curves_of, evaluation_of
from visavis.pipeline.plan.build import CODECS
from visavis.pipeline.plan.run_folder import read_settings
from visavis.schemas.artifact import load_row
from visavis.schemas.config import QualityConfig
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import DatasetError, Rejected, UsageError
from visavis.schemas.plain import fitted
from visavis.schemas.secrets import safe_all
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line, parsing

_PARTS = (
    "report.css", "report_data.js", "avatar.js", "report_table.js", "report_limits.js", "report_player.js",
    "report_timeline.js", "report_conversation.js", "report_corpus.js", "report_pairs.js", "report_training.js",
    "report.js",
)  # fmt: skip
_CURVES = ("vendor/uPlot.iife.min.js", "vendor/uPlot.min.css", "vendor/uPlot.LICENSE")
_PICTURE_BYTES = 1 << 20  # of all examples


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
    pairs: int = 12
    examples: int = 3


@dataclass
class _Corpus:
    """What the page shows of a build."""

    data: dict[str, Any]
    places: dict[str, list[dict[str, Any]]]  # conversation → its files, for pairs


def write_report(found: Found, out: Path, wanted: Wanted, reporter: Reporter) -> dict[str, Any]:
    """Write the page of what was found.

    Returns: how many conversations there are and have a view of their own, and bytes with and without media.

    Raises:
        UsageError: `out` is not ours to write to, or there is nothing to report.
    """
    with new_folder(out) as folder:
        (folder / "data").mkdir()
        copies = Copies(folder, out, wanted.media)
        built = _corpus(found.build, folder, copies, wanted, reporter) if found.build else None
        pairs = [pairs_data(at, folder, wanted.pairs, reporter) for at in found.pairs]
        data = {
            "title": found.title,
            "corpus": built.data if built else None,
            "pairs": pairs,
            "places": _needed(built.places if built else {}, pairs),
            "training": [curves_of(at) for at in found.training],
            "evaluation": [evaluation_of(at) for at in found.evaluation],
            "notes": found.notes,
        }
        parts = (*_CURVES, *_PARTS) if found.training else _PARTS
        write_page(folder, "index.html", "report.html", parts, title=f"Report: {found.title}", data=safe_all(data))
        sizes = Counter[bool]()
        for path in folder.rglob("*"):
            if path.is_file():
                sizes[path.is_relative_to(folder / "media")] += path.stat().st_size
    listed = built.data["total"] if built else 0
    return {
        "page": str(out / "index.html"),
        "conversations": listed,
        "opened": built.data["opened"] if built else 0,
        "bytes": sizes[False],
        "media_bytes": sizes[True],
    }


def _corpus(root: str, folder: Path, copies: Copies, wanted: Wanted, reporter: Reporter) -> _Corpus:
    store = Store(root)
    settings = read_settings(store)
    with parsing(lambda why: UsageError(f"{root}/run.json has no settings of a build ({why})")):
        quality = fitted(QualityConfig, settings["config"].get("quality", {}))
    corpus = read_corpus(store, settings["fingerprints"])
    chosen = _chosen(corpus, wanted.conversations)
    opened, places, failures = set[str](), dict[str, list[dict[str, Any]]](), []
    codecs, motions = _codecs(store, folder), wanted.motion
    with reporter.items("conversations", len(chosen)) as advance:
        for entry in chosen:
            try:
                conversation = conversation_of(store, entry)
                if conversation is not None:
                    data = conversation_data(store, entry, conversation, copies)
                    filmed = all(media["source"] for media in data["media"])
                    drawn = entry.outcome == "kept" and (motions > 0 or not filmed)
                    motions -= drawn and filmed
                    data["motion"] = motion_data(store, entry, folder, codecs, drawn=drawn)
                    put(folder, f"c-{entry.id}", _safe_but(data, ("motion", "boxes", "peaks", "media", "voices")))
                    places[entry.id] = data["media"]
                    opened.add(entry.id)
            except (DatasetError, OSError) as error:  # one that was damaged or deleted costs the page nothing else
                failures.append(f"{entry.name}: {first_line(error)}")
            advance()
    entries = [entry for entry in corpus.entries if entry.worst]
    rest = [entry for entry in corpus.entries if not entry.worst]
    data = {
        "run": root,
        "total": corpus.total,
        "listed": len(corpus.entries),
        "opened": len(opened),
        "asked": wanted.conversations,
        "counts": dict(corpus.counts),
        "reasons": {reason: len(found) for reason, found in corpus.by_reason().items()},
        "limits": limits_of(corpus, quality),
        "table": columns_of([*entries, *rest], opened),  # measured ones first, as the figures are
        "examples": _examples(store, corpus, copies, wanted.examples, reporter),
        "failures": failures,
        "copied": max(0, min(wanted.media, len(chosen))),
        "codecs": list(codecs),
        "windows": settings["config"].get("windows", {}).get("length"),
    }
    return _Corpus(data, places)


def _chosen(corpus: Corpus, most: int) -> list[Entry]:
    """Conversations with a view of their own: of what was kept and of each reason in turn, in the order of their
    keys, which are hashes; so every reason is there."""
    groups = [[e for e in corpus.entries if e.outcome == "kept" and e.id]]
    groups += [[e for e in found if e.id] for found in corpus.by_reason().values()]
    groups += [[e for e in corpus.entries if e.outcome == "unfinished" and e.id]]
    turns = [(place, number, e) for number, group in enumerate(groups) for place, e in enumerate(group)]
    return [entry for _, _, entry in sorted(turns, key=lambda turn: turn[:2])[:most]]


def _examples(store: Store, corpus: Corpus, copies: Copies, each: int, reporter: Reporter) -> list[dict[str, Any]]:
    """A few pictures of what was kept and of what was left out for each reason, and why there is none."""
    kept = [entry for entry in corpus.entries if entry.outcome == "kept"]
    groups = [("", kept), *corpus.by_reason().items()]
    found, spent = [], 0
    with reporter.items("examples", len(groups)) as advance:
        for reason, entries in groups:
            pictures, why = [], list[str]()
            for entry in entries[:each]:
                made = _moment(store, entry) if spent < _PICTURE_BYTES else "no more pictures were made for this page"
                if isinstance(made, str):
                    why.append(made)
                    continue
                spent += len(made)
                source = copies.write(f"example-{entry.id}.jpg", made)
                pictures.append({"source": source, "id": entry.id, "name": entry.name, "detail": entry.detail})
            if entries:
                more = {"reason": reason, "count": len(entries), "pictures": pictures, "why": list(dict.fromkeys(why))}
                found.append(more | {"detail": entries[0].detail})
            advance()
    return found


def _moment(store: Store, entry: Entry) -> bytes | str:
    try:
        conversation = conversation_of(store, entry) if entry.id else None
        if conversation is None:
            return "left out before any picture of it was looked at"
        return moment(store, entry, conversation)
    except (DatasetError, Rejected, OSError) as error:
        return first_line(error)


def _codecs(store: Store, folder: Path) -> dict[str, Codec]:
    """The codecs of a run by their ids, a script each."""
    found = {}
    for name in store.list(CODECS):
        with parsing(lambda why: DatasetError(f"{store.root}: a codec is not one ({why})")):
            codec = load_row(store.read(f"{CODECS}/{name}"), Codec)
        put_codec(folder, codec)
        found[codec.id] = codec
    return found


def _safe_but(data: dict[str, Any], plain: tuple[str, ...]) -> dict[str, Any]:
    """Texts without keys and control characters; `plain`: fields that hold packed arrays and addresses."""
    return {name: value if name in plain else safe_all(value) for name, value in data.items()}


def _needed(places: dict[str, list[dict[str, Any]]], pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the films of the pairs that are shown lie."""
    wanted = {id_ for each in pairs for id_ in each["table"]["words"]["conversation"]}
    return {id_: media for id_, media in places.items() if id_ in wanted}

"""What a report says of a build: the corpus, examples, and a script of each conversation that can be opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.report_conversation import conversation_data, conversation_of, moment, motion_data
from visavis.pipeline.page.report_corpus import Corpus, Entry, columns_of, limits_of, read_corpus
from visavis.pipeline.page.report_media import Copies
from visavis.pipeline.page.report_parts import put, put_codec
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

_PICTURE_BYTES = 1 << 20  # of all examples


class Conversations:
    """Writes the conversations that can be opened. places: the files of each; failures: what could not be read.

    motions: how many more are drawn although their films are at hand.
    """

    def __init__(self, store: Store, folder: Path, copies: Copies, codecs: Mapping[str, Codec], motions: int) -> None:
        self._store, self._folder, self._copies, self._codecs = store, folder, copies, codecs
        self._motions = motions
        self.places: dict[str, list[dict[str, Any]]] = {}
        self.failures: list[str] = []

    def open(self, entry: Entry) -> None:
        """One that was damaged or deleted costs the page nothing else."""
        try:
            with parsing(lambda why: DatasetError(f"what is there of it does not fit together ({why})")):
                self._open(entry)
        except (DatasetError, OSError) as error:
            self.failures.append(f"{entry.name}: {first_line(error)}")

    def _open(self, entry: Entry) -> None:
        conversation = conversation_of(self._store, entry)
        if conversation is None:
            return
        data = conversation_data(self._store, entry, conversation, self._copies)
        filmed = all(media["source"] for media in data["media"])
        drawn = entry.outcome == "kept" and (self._motions > 0 or not filmed)
        data["motion"] = motion_data(self._store, entry, self._folder, self._codecs, drawn=drawn)
        packed = ("motion", "boxes", "peaks", "media", "voices")  # and addresses, which are used as they are
        safe = {name: value if name in packed else safe_all(value) for name, value in data.items()}
        put(self._folder, f"c-{entry.id}", safe)
        self._motions -= drawn and filmed
        self.places[entry.id] = data["media"]


def build_data(
    root: str, folder: Path, copies: Copies, conversations: int, motions: int, examples: int, reporter: Reporter
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """What the page shows of a build; and by conversation where its files lie, for pairs.

    Args:
        conversations, motions, examples: at most, as `report.Wanted` has them.

    Raises:
        UsageError: not a run's folder.
    """
    store = Store(root)
    settings = read_settings(store)
    with parsing(lambda why: UsageError(f"{root}/run.json has no settings of a build ({why})")):
        quality = fitted(QualityConfig, settings["config"].get("quality", {}))
    corpus = read_corpus(store, settings["fingerprints"])
    chosen = _chosen(corpus, conversations)
    opened = Conversations(store, folder, copies, _codecs(store, folder), motions)
    with reporter.items("conversations", len(chosen)) as advance:
        for entry in chosen:
            opened.open(entry)
            advance()
    measured = [entry for entry in corpus.entries if entry.worst]
    rest = [entry for entry in corpus.entries if not entry.worst]
    data = {
        "total": corpus.total,
        "listed": len(corpus.entries),
        "opened": len(opened.places),
        "asked": conversations,
        "counts": dict(corpus.counts),
        "reasons": {reason: len(found) for reason, found in corpus.by_reason().items()},
        "limits": limits_of(corpus, quality),
        "table": columns_of([*measured, *rest], set(opened.places)),  # measured ones first, as the figures are
        "examples": _examples(store, corpus, copies, examples, reporter),
        "failures": opened.failures,
    }
    return data, opened.places


def _chosen(corpus: Corpus, most: int) -> list[Entry]:
    """Conversations with a view of their own: of what was kept and of each reason in turn, in the order of their
    keys, which are hashes; so every reason is there."""
    groups = [[e for e in corpus.entries if e.outcome == "kept" and e.id]]
    groups += [[e for e in found if e.id] for found in corpus.by_reason().values()]
    groups += [[e for e in corpus.entries if e.outcome == "unfinished" and e.id]]
    turns = [(place, number, e) for number, group in enumerate(groups) for place, e in enumerate(group)]
    chosen = [entry for _, _, entry in sorted(turns, key=lambda turn: turn[:2])[:most]]
    return sorted(chosen, key=lambda entry: entry.outcome != "kept")  # which get copies and drawings first


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
        with parsing(lambda why: DatasetError(f"what is there of it does not fit together ({why})")):
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

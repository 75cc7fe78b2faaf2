"""What lies in the folder of a public corpus: its conversations, with a side that is missing where one is.

    dualtalk   train|test|ood/NAME_speaker1.npz, NAME_speaker1.wav, the same of speaker2; or one split's folder
    unils      one data.mdb somewhere below, and one JSON: split → id → [path, path, frames]
    seamless   V00_S0001_I00000001_P0001.npz and .wav of each participant, anywhere below
    solo       NAME.npz and NAME.wav: one person, nobody beside
    vico       one .csv or more, and .mat and .wav files that they name (`pipeline.plan.vico`)

Nothing is left out here: what has no partner is listed as it is, and rejected with a reason when its turn comes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping

from visavis.pipeline.plan.corpus_folder import SPLITS, TABLE_BYTES, Folder, checked, identity
from visavis.pipeline.plan.seamless import named
from visavis.pipeline.plan.vico import list_vico
from visavis.schemas.errors import UsageError
from visavis.schemas.plain import read_strict
from visavis.schemas.recordings import CorpusLayout, Recorded, RecordedPerson
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import printable, shown
from visavis.schemas.words import counted

_SIDES = ("_speaker1", "_speaker2")
_DATABASE = "data.mdb"


def list_corpus(layout: CorpusLayout, place: str) -> list[Recorded]:
    """The conversations of a corpus, by split and name.

    Raises:
        UsageError: no such folder, or nothing of this layout is in it.
    """
    folder = Folder(place)
    found = list(_LISTED_BY[layout](folder))
    if not found:
        there = f"{counted(len(folder.found), 'file')} of other names" if folder.found else "nothing"
        raise UsageError(f"{printable(shown(place))}: nothing in the layout of {layout} ({there} in it)")
    return sorted(found, key=lambda each: (each.split, each.name))


def _dualtalk(folder: Folder) -> Iterator[Recorded]:
    sides: dict[tuple[str, str], dict[str, dict[str, str]]] = defaultdict(lambda: {side: {} for side in _SIDES})
    for path in folder.found:
        above, _, name = path.rpartition("/")
        stem, _, suffix = name.rpartition(".")
        side = next((each for each in _SIDES if stem.endswith(each)), None)
        if side and suffix.lower() in ("npz", "wav"):
            sides[above, stem.removesuffix(side)][side][suffix.lower()] = path
    for (above, name), both in sides.items():
        yield _recorded("dualtalk", folder, above, name, {f"{name}{side}": both[side] for side in _SIDES})


def _solo(folder: Folder) -> Iterator[Recorded]:
    clips: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in folder.found:
        above, _, name = path.rpartition("/")
        stem, _, suffix = name.rpartition(".")
        if suffix.lower() in ("npz", "wav"):
            clips[above, stem][suffix.lower()] = path
    for (above, name), files in clips.items():
        yield _recorded("solo", folder, above, name, {name: files})


def _seamless(folder: Folder) -> Iterator[Recorded]:
    talks: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for path in folder.found:
        found = named(path)
        if found and found.suffix in (".npz", ".wav"):
            talks[found.conversation][found.participant][found.suffix[1:]] = path
    for name, people in talks.items():
        if len(people) != 2:  # one whose other side is elsewhere, or a crowd: nobody is left out without a word
            people = dict(sorted(people.items())[:1]) | {"nobody else": {}}
        above = next(path for files in people.values() for path in files.values()).rpartition("/")[0]
        yield _recorded("seamless", folder, above, name, dict(sorted(people.items())), places=False)


def _recorded(
    layout: CorpusLayout,
    folder: Folder,
    above: str,
    name: str,
    sides: Mapping[str, Mapping[str, str]],
    *,
    places: bool = True,
) -> Recorded:
    """A conversation of files. above: the folder within the corpus, of which a part may be a split, as the corpus' own
    folder may be one. places: whether it tells people apart; where not, their names do, over all folders."""
    split = next((part for part in above.split("/") if part in SPLITS), folder.own_split)
    prefix = f"{above}/" if above and places else ""
    full = f"{prefix}{name}"
    people = [
        RecordedPerson(
            name=checked(f"{prefix}{person}"),
            motion=folder.uri(files["npz"]) if "npz" in files else "",
            sound=folder.uri(files["wav"]) if "wav" in files else "",
        )
        for person, files in sides.items()
    ]
    stamps = tuple(folder.stamp(path) for files in sides.values() for path in files.values())
    return Recorded(
        id=identity(layout, full), layout=layout, name=checked(full), split=split, people=tuple(people), stamps=stamps
    )


def _unils(folder: Folder) -> Iterator[Recorded]:
    databases = [path for path in folder.found if path.rpartition("/")[2] == _DATABASE]
    tables = [path for path in folder.found if path.endswith(".json")]
    if len(databases) != 1 or not tables:
        raise UsageError(
            f"{shown(folder.place)}: UniLSTalk is one LMDB and a JSON of its splits;"
            f" {counted(len(databases), _DATABASE)} and {counted(len(tables), 'JSON file')} found"
        )
    if len(tables) > 1:
        raise UsageError(f"{shown(folder.place)}: {len(tables)} JSON files; leave the one that lists the splits")
    place = folder.uri(databases[0].rpartition("/")[0])
    if not place.startswith(("file://", "/")):
        raise UsageError(f"{shown(folder.place)}: an LMDB can only be read where it lies on a disk of this machine")
    stamp = (folder.stamp(databases[0]),)
    for split, name, keys in _listed(folder, tables[0]):
        people = tuple(RecordedPerson(name=checked(key), motion=place, sound=place, key=key) for key in keys)
        full = f"{split}/{name}"
        yield Recorded(
            id=identity("unils", full), layout="unils", name=checked(full), split=split, people=people, stamps=stamp
        )


def _listed(folder: Folder, table: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Split, id and the records' keys of each conversation: the base names of its paths."""
    where = f"{folder.place}/{table}"
    with parsing(lambda why: UsageError(f"{shown(where)}: no table of splits ({why})")):
        splits = read_strict(folder.read(table), TABLE_BYTES)
        if not isinstance(splits, dict) or not all(isinstance(each, dict) for each in splits.values()):
            raise ValueError("split → id → [path, path, frames] is expected")
        for split, conversations in splits.items():
            for name, row in conversations.items():
                paths = [path for path in row[:2] if isinstance(path, str)]
                if len({path.rpartition("/")[2] for path in paths}) != 2:
                    raise ValueError(f"{split}/{name}: {json.dumps(row)[:80]} does not name two people")
                yield split, name, tuple(path.rpartition("/")[2] for path in paths)


_LISTED_BY = {"dualtalk": _dualtalk, "unils": _unils, "seamless": _seamless, "solo": _solo, "vico": list_vico}

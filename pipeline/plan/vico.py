"""ViCo (arXiv 2112.13548) as it lies on disk: tables of clips, sounds, and coefficients reconstructed of its films.

    RLD_data.csv      audio, listener, speaker, listener_id, speaker_id, data_split: the whole corpus
    train.csv …       uuid, listener_id, speaker_id: the challenge's, whose names are the splits; or metadata/data.csv

Anywhere below: AUDIO.wav, LISTENER.mat and SPEAKER.mat of the first kind of table, UUID.wav, UUID.listener.mat and
UUID.speaker.mat of the second. Other columns do not count. What a cell names is looked for among the files of the
folder, and nowhere else. `speaker_id` and `listener_id` number the same people, so a person is who has one number.

There is one voice, the speaker's: the listener is silent. A clip that several tables list is one conversation; where
they contradict each other, or a cell is no name, it is rejected with that as the reason; so is a `.mat` that no table
names.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from visavis.pipeline.plan.corpus_folder import SPLITS, Folder, checked, identity
from visavis.pipeline.plan.lists import MISSING
from visavis.pipeline.plan.row_files import Table
from visavis.schemas.errors import UsageError
from visavis.schemas.names import LONGEST_NAME, is_name
from visavis.schemas.recordings import Recorded, RecordedPerson
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import printable, shown

_PEOPLE, _FILES = ("speaker_id", "listener_id"), ("audio", "speaker", "listener")
_COLUMNS = (*_PEOPLE, "uuid", *_FILES, "data_split")
_HEADER = 1 << 12  # bytes of a table in which its header lies
_NEEDED = "speaker_id, listener_id, and uuid or audio, speaker and listener"


class _Clip(NamedTuple):
    """A row. where: of which table; files: sound, speaker's and listener's motion, without suffix."""

    where: str
    files: tuple[str, str, str]
    people: tuple[str, str]
    split: str
    amiss: str = ""


def list_vico(folder: Folder) -> Iterator[Recorded]:
    """The conversations of the folder's tables.

    Raises:
        UsageError: no table, one that lacks columns, or no `.mat` at all.
    """
    files = _Files(folder)
    clips: dict[tuple[str, ...], _Clip] = {}
    for path in _tables(folder):
        for clip in _rows(folder, path):
            key: tuple[str, ...] = (clip.where,) if clip.amiss else clip.files
            clips[key] = _together(clips[key], clip) if key in clips else clip
    if not files.any(".mat"):
        bins = " There are .bin files: those are pickles, which are never read." if files.any(".bin") else ""
        said = "no .mat file, of which its motion is: NAME.mat of Deep3DFaceRecon, with `coeff` [frames, 257]."
        raise UsageError(f"{printable(shown(folder.place))}: {said}{bins}")
    often = Counter(clip.files[0] for clip in clips.values())
    for key, clip in clips.items():
        yield _recorded(folder, files, key, clip, alone=often[clip.files[0]] == 1)
    for path in files.unnamed(".mat"):
        nobody = RecordedPerson(name="nobody", motion=folder.uri(path))
        yield _listed((path,), path, folder.own_split, (nobody,), (folder.stamp(path),), "no table names it")


def _tables(folder: Folder) -> list[str]:
    """Paths of the tables: files whose header names one of ViCo's columns of people."""
    found = [path for path in folder.found if path.lower().endswith(".csv")]
    tables = [path for path in found if any(person.encode() in _header(folder, path) for person in _PEOPLE)]
    if not tables:
        there = f"there: {', '.join(printable(path) for path in found[:5])}" if found else "there is no .csv"
        raise UsageError(f"{printable(shown(folder.place))}: no table with the columns {_NEEDED} ({there})")
    return tables


def _header(folder: Folder, path: str) -> bytes:
    """The first line of a table."""
    return folder.begin(path, _HEADER).replace(b"\0", b"").partition(b"\n")[0]  # UTF-16, too


def _rows(folder: Folder, path: str) -> Iterator[_Clip]:
    name = f"{folder.place}/{path}"
    table = Table(name, ".csv", _COLUMNS, {})
    stem = path.rpartition("/")[2].rpartition(".")[0]
    split = next((part for part in (stem, *path.split("/")) if part in SPLITS), folder.own_split)
    with parsing(table.broken):
        for cells in table.rows(io.BytesIO(folder.read(path))):
            of = {column: _cell(cell) for column, cell in zip(_COLUMNS, cells, strict=True)}
            if absent := _absent(table):
                raise UsageError(f"{printable(shown(name))}: no column {', '.join(absent)}; needed are {_NEEDED}")
            yield _clip(f"{path} row {table.row}", of, split)


def _absent(table: Table) -> list[str]:
    wanted = (*_PEOPLE, "uuid") if "uuid" in table.columns else (*_PEOPLE, *_FILES)
    return [column for column in wanted if column not in table.columns]


def _cell(cell: object) -> str:
    """A cell's text; a number beside a missing one is written as 23.0."""
    text = str(cell or "").strip()
    whole = text.removesuffix(".0")
    return "" if text in MISSING else whole if whole.isdecimal() else text


def _clip(where: str, of: dict[str, str], split: str) -> _Clip:
    uuid = of["uuid"]
    files = (uuid, f"{uuid}.speaker", f"{uuid}.listener") if uuid else (of["audio"], of["speaker"], of["listener"])
    people = (of["speaker_id"], of["listener_id"])
    bad = [name for name in files if not _is_path(name)] + [name for name in people if not name or not is_name(name)]
    amiss = ""
    if bad:
        amiss = f"{where}: {printable(bad[0])[:80] or 'an empty cell'} is no name"
    elif people[0] == people[1]:
        amiss = f"{where}: {people[0]} is speaker and listener"
    elif files[1] == files[2]:
        amiss = f"{where}: {files[1]} is of the speaker and of the listener"
    return _Clip(where, files, people, of["data_split"].lower() or split, amiss)


def _is_path(name: str) -> bool:
    """Whether it can be a file of the folder, or of one below."""
    return is_name(name) and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def _together(first: _Clip, again: _Clip) -> _Clip:
    """A clip that is listed twice. One table may not know its split."""
    split = first.split or again.split
    if first.people == again.people and again.split in ("", split):
        return first._replace(split=split)
    return first._replace(amiss=f"{again.where} contradicts {first.where}: other people, or another split")


class _Files:
    """Files by their names without folders and suffixes, and which of them a table names."""

    def __init__(self, folder: Folder) -> None:
        self._by_name: dict[tuple[str, str], list[str]] = defaultdict(list)
        for path in folder.found:
            stem, point, suffix = path.rpartition(".")
            self._by_name[stem.rpartition("/")[2], f"{point}{suffix.lower()}"].append(path)
        self._named = set[str]()

    def any(self, suffix: str) -> bool:
        return any(each == suffix for _, each in self._by_name)

    def paths(self, name: str, suffix: str) -> list[str]:
        """Those that a cell can mean: of this name, in folders of which it names the last."""
        same = self._by_name.get((name.rpartition("/")[2], suffix), [])
        found = [path for path in same if f"/{path[: -len(suffix)]}".endswith(f"/{name}")]
        self._named.update(found)
        return found

    def unnamed(self, suffix: str) -> list[str]:
        """Those that no cell meant so far."""
        every = (path for (_, each), paths in self._by_name.items() if each == suffix for path in paths)
        return sorted(set(every) - self._named)


def _recorded(folder: Folder, files: _Files, key: tuple[str, ...], clip: _Clip, *, alone: bool) -> Recorded:
    """alone: no other clip has its sound."""
    amiss, found = clip.amiss, list[str]()
    for name, suffix in zip(clip.files, (".wav", ".mat", ".mat"), strict=True):
        there = files.paths(name, suffix) if _is_path(name) else []
        found.append(there[0] if there else "")
        if len(there) > 1 and not amiss:
            amiss = f"{clip.where}: {len(there)} files are called {name}{suffix}: {there[0]}, {there[1]}"
    sound, *motions = (folder.uri(path) if path else "" for path in found)
    people = [person if is_name(person) and person else "nobody" for person in clip.people]
    speaker, listener = (
        RecordedPerson(name=person, motion=motion, sound="" if silent else sound, silent=silent)
        for person, motion, silent in zip(people, motions, (False, True), strict=True)
    )
    said = (clip.files[0],) if alone else clip.files
    name = " ".join(said)
    if not all(map(_is_path, said)) or not is_name(name):
        name = clip.where
    stamps = tuple(folder.stamp(path) for path in found if path)
    return _listed(key, name, clip.split, (speaker, listener), stamps, amiss)


def _listed(
    key: tuple[str, ...], name: str, split: str, people: tuple[RecordedPerson, ...], stamps: tuple[str, ...], amiss: str
) -> Recorded:
    """key: by which it has its id; names may be alike."""
    return Recorded(
        id=identity("vico", repr(key)),
        layout="vico",
        name=checked(name),
        split=printable(split)[:LONGEST_NAME],
        people=people,
        stamps=stamps,
        amiss=printable(amiss)[:LONGEST_NAME],
    )

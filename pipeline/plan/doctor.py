"""A corpus that is built, read for its doctor: a run's artifacts by conversation, or a dataset's shards.

What is held is one conversation's minute, or one shard; sums lie in a temporary database (`stages.doctor.scratch`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.account import Account, account_of
from visavis.pipeline.state.ledger import Ledger, latest_rows
from visavis.pipeline.state.tasks import artifact_path, own_print
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.artifact import load_row
from visavis.schemas.dyads import Dyad
from visavis.schemas.errors import DatasetError, Reason, UsageError
from visavis.schemas.manifest import MANIFEST_NAME, ShardEntry
from visavis.schemas.rows import Voices
from visavis.schemas.sample import Sample, decode_audio
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line, parsing
from visavis.schemas.words import counted
from visavis.stages.doctor import people
from visavis.stages.doctor.examine import Judge, Learner, measure
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.faces import Usual
from visavis.stages.doctor.findings import Diagnosis, Findings, Item, Sign, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.lips import Lips
from visavis.stages.doctor.scratch import About, Scratch
from visavis.stages.recorded_dyad import RecordedDyadStage
from visavis.stages.recorded_voices import VoicesStage
from visavis.stages.separate import SeparateStage
from visavis.stages.windows import WindowsStage
from visavis.training.dataset import Dataset

LEARN_FROM = 400
"""Conversations, or shards, from which is learned what is usual in the motion."""
_MINUTE = 60 * FPS  # frames that are measured together
_MUCH = 0.3  # share of the conversations that are left out for one reason
_MADE = ((WindowsStage, SeparateStage), (RecordedDyadStage, VoicesStage))
_COLUMNS = ["uid", "stage", "key", "item", "status", "fingerprint"]


@dataclass(frozen=True)
class Kept:
    """A conversation that a run kept: its id, what a person calls it, and where its two artifacts lie."""

    id: str
    name: str
    dyad: str
    voices: str


def examine_run(root: str, reporter: Reporter) -> Diagnosis:
    """All that a run kept.

    Raises:
        UsageError: not a run's folder, or of no build.
    """
    store = Store(root)
    settings = read_settings(store)
    kept = list(_kept(store, settings["fingerprints"]))
    findings, scratch, learner = Findings(), Scratch(), Learner()
    splits = _splits(store)
    every = max(1, len(kept) // LEARN_FROM)
    with reporter.items("learned from", len(kept[::every])) as advance:
        for each in kept[::every]:
            for _, excerpt in _readable(store, each, None):
                learner.add(excerpt)
            advance()
    voice, usual = learner.usual()
    with reporter.items("measured", len(kept)) as advance:
        for each in kept:
            for about, excerpt in _readable(store, each, findings):
                known = about.model_copy(update={"split": splits.get(each.id, "")})
                scratch.add(each.id, known, measure(excerpt, voice, usual))
            advance()
    left_out(account_of(Ledger(store), settings["fingerprints"]), findings)
    unknown = [] if splits else ["splits: there is no dataset yet, or it was imported, so nobody can be in two"]
    return diagnosed(root, scratch, findings, unknown)


def examine_dataset(folder: str, reporter: Reporter) -> Diagnosis:
    """All windows of a dataset.

    Raises:
        UsageError: not a dataset, or one of pairs.
        DatasetError: a shard is not the one that the manifest lists.
    """
    data = Dataset(folder)
    if data.manifest.kind != "windows":
        raise UsageError(f"{folder} holds pairs; name the dataset or run that they were made from")
    findings, scratch, learner = Findings(), Scratch(), Learner()
    shards = data.manifest.shards
    every = max(1, len(shards) // LEARN_FROM)
    with reporter.items("learned from", len(shards)) as advance:
        for number, entry in enumerate(shards):
            for sample in _samples(data, entry):
                scratch.reaches(sample.meta.conversation, sample.meta.start + len(sample.state))
                if number % every == 0:
                    learner.add(_of_sample(sample, 0))
            advance()
    voice, usual = learner.usual()
    with reporter.items("measured", len(shards)) as advance:
        for entry in shards:
            for sample in _samples(data, entry):
                _put(scratch, findings, sample, entry.split, voice, usual)
            advance()
    asked = (
        "what needs a whole conversation (whether both speak with each other, whose answers come late): name the run"
    )
    return diagnosed(folder, scratch, findings, [asked])


def diagnosed(corpus: str, scratch: Scratch, findings: Findings, unknown: Iterable[str]) -> Diagnosis:
    """What the sums of all conversations say."""
    judge = Judge(scratch)
    for id_, about, sums in scratch.talks():
        findings.add(id_, about.name, judge.signs(about, sums), about.people)
    total = len(scratch)
    count = people.judge(scratch, findings)
    scratch.close()
    untold = list(unknown)
    if total and not judge.usual["lips"] >= 0.2:
        untold.append("lips: in this corpus no motion follows the own voice, so voices could not be held against faces")
    return Diagnosis(
        corpus=corpus,
        looked_at={"conversations": total, "people": count},
        findings=tuple(findings.all(total)),
        unknown=tuple(untold),
    )


def left_out(account: Account, findings: Findings) -> None:
    """Reasons that leave out much, and partners that are missing."""
    counts = Counter[str]()
    total = 0
    for row in account.values():
        total = total or row["ok"] + sum(row["rejected"].values()) + sum(row["failed"].values())
        counts.update(row["rejected"])
    for reason, count in counts.most_common():
        said = f"{counted(count, 'conversation')} of {total}"
        if reason == Reason.INCOMPLETE_DYAD:
            findings.put(Kind.MISSING_PARTNER, Item(id=reason, detail=said, certainty=0.99))
        elif reason == Reason.DUPLICATE_CONTENT:
            findings.put(Kind.DUPLICATE, Item(id=reason, detail=said, certainty=0.99))
        elif total >= 10 and count > _MUCH * total:
            sure = certainty(count / total, _MUCH, 0.7)
            findings.put(Kind.LEFT_OUT, Item(id=reason, name=reason, detail=said, certainty=sure))


def _kept(store: Store, fingerprints: dict[str, str]) -> Iterator[Kept]:
    """Conversations whose windows were cut, by id."""
    made = next(((d, v) for d, v in _MADE if d.name in fingerprints), None)
    if made is None:
        raise UsageError(f"{store.root} is a run of no build or import: there are no conversations in it")
    (dyads, voices), parts = made, []
    for part in Ledger(store).tables(_COLUMNS):
        part = part.filter(pc.equal(part["stage"], dyads.name))
        parts.append(part)
    rows = pa.concat_tables(parts) if parts else pa.table({name: [] for name in _COLUMNS})
    rows = rows.take(pa.array(latest_rows(rows["uid"].to_numpy()), pa.int64())) if rows.num_rows else rows
    found = []
    for row in rows.to_pylist():
        if row["status"] == "ok" and own_print(row["fingerprint"]) == fingerprints[dyads.name]:
            key = row["key"]
            sound = artifact_path(voices.name, voices.version, fingerprints[voices.name], key)
            found.append(
                Kept(key, row["item"] or "", artifact_path(dyads.name, dyads.version, row["fingerprint"], key), sound)
            )
    yield from sorted(found, key=lambda each: each.id)


def _readable(store: Store, kept: Kept, findings: Findings | None) -> Iterator[tuple[About, Excerpt]]:
    """A conversation minute by minute; one that cannot be read is a finding."""
    try:
        with parsing(lambda why: DatasetError(f"{kept.id}: what is there of it does not fit together ({why})")):
            dyad = load_row(store.read(kept.dyad), Dyad)
            voices = load_row(store.read(kept.voices), Voices)
            about = About(name=kept.name, people=dyad.participants, figures=dyad.figures)
            for excerpt in _minutes(dyad, voices):
                yield about, excerpt
    except (DatasetError, OSError) as error:
        if findings is not None:
            findings.add(kept.id, kept.name, [Sign(Kind.UNREADABLE, 0.99, first_line(error))])


def _minutes(dyad: Dyad, voices: Voices) -> Iterator[Excerpt]:
    frames = len(dyad.state)
    tracks = [track.tobytes() for track in voices.audio]
    own = all(figures.method == "own_track" for figures in voices.figures)
    step = frames if frames <= 4 * _MINUTE else _MINUTE
    for first in range(0, frames, step):
        span = slice(first, min(first + step, frames))
        audio = [
            decode_audio(track, first * SAMPLES_PER_FRAME, (span.stop - first) * SAMPLES_PER_FRAME) for track in tracks
        ]
        motion, valid = ([part[span] for part in parts] for parts in (dyad.motion, dyad.valid))
        yield Excerpt(np.stack(audio), dyad.state[span], np.stack(motion), np.stack(valid), first, frames, own)


def _splits(store: Store) -> dict[str, str]:
    """Which split each conversation is in, by the files of faces beside a run's shards."""
    from visavis.stages.face.decode import read_faces

    if not store.exists(f"{DATASET}/{MANIFEST_NAME}"):
        return {}
    data, found = Dataset(f"{store.root.rstrip('/')}/{DATASET}"), dict[str, str]()
    for entry in data.manifest.shards:
        for id_ in read_faces(Store(data.location), entry):
            found[id_] = entry.split if found.get(id_, entry.split) == entry.split else "train val"
    return found


def _samples(data: Dataset, entry: ShardEntry) -> Iterator[Sample]:
    for key, members in data.groups(entry, data.fetch(entry)):
        yield data.decode(key, members)


def _of_sample(sample: Sample, frames: int) -> Excerpt:
    """A window, the two people in the order of their names: each is the avatar of some windows."""
    order = sorted((0, 1), key=lambda person: (sample.meta.avatar, sample.meta.user)[person])
    bits = [(sample.state >> person & 1) | (sample.state >> (2 + person) & 1) << 2 for person in order]
    heard = (sample.meta.avatar_voice, sample.meta.user_voice)
    return Excerpt(
        np.stack([(sample.avatar_audio, sample.user_audio)[person] for person in order]),
        (bits[0] | bits[1] << 1).astype(np.uint8),
        np.stack([(sample.avatar_motion, sample.user_motion)[person] for person in order]),
        sample.valid.T[order],
        sample.meta.start,
        frames,
        all(figures is None or figures.method == "own_track" for figures in heard),
    )


def _put(scratch: Scratch, findings: Findings, sample: Sample, split: str, voice: Lips | None, usual: Usual) -> None:
    """Measure a window, unless the other one's window of the same frames was."""
    meta = sample.meta
    place = hashlib.blake2b(f"{meta.conversation}/{meta.start}".encode(), digest_size=12).digest()
    if not scratch.is_new(place):
        return
    figures = {meta.avatar: meta.avatar_figures, meta.user: meta.user_figures}
    one, other = sorted((meta.avatar, meta.user))
    about = About(name="", people=(one, other), split=split, figures=(figures[one], figures[other]))
    excerpt = _of_sample(sample, scratch.length(meta.conversation))
    scratch.add(meta.conversation, about, measure(excerpt, voice, usual))

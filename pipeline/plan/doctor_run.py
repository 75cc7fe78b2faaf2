"""A run, read for its doctor: windows and voices as its stages left them, conversation by conversation.

What is held is four minutes of one conversation; sums lie in a temporary database (`stages.doctor.scratch`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.worker import AnyStage
from visavis.pipeline.plan.doctor import LEARN_FROM, diagnosed, left_out
from visavis.pipeline.plan.doctor_prints import NO_VOICES, face_threshold, faces_of, languages_of, voices_of
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.outputs import splits_in
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.account import account_of
from visavis.pipeline.state.ledger import Ledger, latest_rows
from visavis.pipeline.state.tasks import artifact_path, own_print
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.artifact import load_row
from visavis.schemas.dyads import Dyad
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.sample import decode_audio
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line, parsing
from visavis.schemas.voice_rows import Voices
from visavis.stages.doctor.copies import Copies
from visavis.stages.doctor.examine import Learner, measure
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.findings import Diagnosis, Findings, Sign
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.prints import Prints
from visavis.stages.doctor.scratch import About, Scratch
from visavis.stages.faceprints import FaceprintsStage
from visavis.stages.recorded_dyad import RecordedDyadStage
from visavis.stages.recorded_voices import VoicesStage
from visavis.stages.separate import SeparateStage
from visavis.stages.transcribe import TranscribeStage
from visavis.stages.voiceprints import VoiceprintsStage
from visavis.stages.windows import WindowsStage
from visavis.training.dataset import Dataset

_MINUTE = 60 * FPS  # frames that are measured together
_MADE: tuple[tuple[type[AnyStage], type[AnyStage]], ...] = (
    (WindowsStage, SeparateStage),
    (RecordedDyadStage, VoicesStage),
)
_COLUMNS = ["uid", "stage", "key", "item", "status", "fingerprint"]


@dataclass(frozen=True)
class Kept:
    """A conversation that a run kept: its id, what a person calls it, and where its two artifacts lie."""

    id: str
    name: str
    dyad: str
    voices: str


def examine_run(root: str, reporter: Reporter, *, listen: bool = False) -> Diagnosis:
    """All that a run kept.

    Args:
        listen: compare voices across conversations where the run has no voiceprints, too.

    Raises:
        UsageError: not a run's folder, or of no build.
    """
    store = Store(root)
    settings = read_settings(store)
    prints = settings["fingerprints"]
    kept = _kept(store, prints)
    findings, scratch, learner, copies = Findings(), Scratch(), Learner(), Copies()
    split = _split(store, scratch)
    every = max(1, kept.num_rows // LEARN_FROM)
    with reporter.items("learned from", -(-kept.num_rows // every)) as advance:
        for each in _each(store, prints, kept, every):
            for _, excerpt in _readable(store, each):
                learner.add(excerpt)
            advance()
    voice, usual = learner.usual()
    with reporter.items("measured", kept.num_rows) as advance:
        for each in _each(store, prints, kept):
            for about, excerpt in _readable(store, each, scratch, findings):
                known = about.model_copy(update={"split": scratch.split(each.id)})
                scratch.add(each.id, known, measure(excerpt, voice, usual))
                copies.hear(each.id, excerpt)
            advance()
    copies.judge(scratch, findings)
    left_out(account_of(Ledger(store), prints), findings)
    unknown = [] if split else ["splits: there is no dataset yet, or it was imported, so nobody can be in two"]

    def measured(what: str) -> Iterator[Kept]:
        """Once more; what could not be read was told of."""
        with reporter.items(what, kept.num_rows) as advance:
            for each in _each(store, prints, kept):
                if scratch.about(each.id):
                    yield each
                advance()

    people, notes = list[Prints](), list[str]()
    if listen or VoiceprintsStage.name in prints:
        people.append(voices_of(store, prints.get(VoiceprintsStage.name), measured("voices"), scratch, findings))
    else:
        unknown.append(NO_VOICES)
    if FaceprintsStage.name in prints:
        bound = face_threshold(settings)
        people.append(faces_of(store, prints[FaceprintsStage.name], measured("faces"), scratch, findings, bound))
    if TranscribeStage.name in prints:
        notes.append(languages_of(store, prints[TranscribeStage.name], measured("transcripts"), findings))
    return diagnosed(root, scratch, findings, unknown, people, notes)


def _kept(store: Store, fingerprints: Mapping[str, str]) -> pa.Table:
    """Conversations whose windows were cut, by id: a row of the ledger each.

    Raises:
        UsageError: the run cuts none.
    """
    (stage, _) = _made(store, fingerprints)
    parts = [part.filter(pc.equal(part["stage"], stage.name)) for part in Ledger(store).tables(_COLUMNS)]
    if not parts:
        return pa.table({name: [] for name in _COLUMNS})
    rows = pa.concat_tables(parts)
    rows = rows.take(pa.array(latest_rows(rows["uid"].to_numpy()), pa.int64()))
    prints = [p for p in rows["fingerprint"].unique().to_pylist() if own_print(p) == fingerprints[stage.name]]
    ours = pc.is_in(rows["fingerprint"], pa.array(prints, pa.string()))
    return rows.filter(pc.and_(pc.equal(rows["status"], "ok"), ours)).sort_by("key")


def _made(store: Store, fingerprints: Mapping[str, str]) -> tuple[type[AnyStage], type[AnyStage]]:
    """The stages of a run that make windows and voices."""
    found = next((made for made in _MADE if made[0].name in fingerprints), None)
    if found is None:
        raise UsageError(f"{store.root} is a run of no build or import: there are no conversations in it")
    return found


def _each(store: Store, fingerprints: Mapping[str, str], rows: pa.Table, every: int = 1) -> Iterator[Kept]:
    dyads, voices = _made(store, fingerprints)
    for number in range(0, rows.num_rows, every):
        key, item, print_ = (rows[name][number].as_py() for name in ("key", "item", "fingerprint"))
        sound = artifact_path(voices.name, voices.version, fingerprints[voices.name], key)
        yield Kept(key, item or "", artifact_path(dyads.name, dyads.version, print_, key), sound)


def _readable(
    store: Store, kept: Kept, scratch: Scratch | None = None, findings: Findings | None = None
) -> Iterator[tuple[About, Excerpt]]:
    """A conversation minute by minute; one that cannot be read to its end is a finding, and nothing else of it is."""
    try:
        with parsing(lambda why: DatasetError(f"{kept.id}: what is there of it does not fit together ({why})")):
            dyad = load_row(store.read(kept.dyad), Dyad)
            voices = load_row(store.read(kept.voices), Voices)
            about = About(name=kept.name, people=dyad.participants, figures=dyad.figures)
            for excerpt in _minutes(dyad, voices):
                yield about, excerpt
    except (DatasetError, OSError) as error:
        if scratch is not None and findings is not None:
            scratch.forget(kept.id)
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
        whole = None if first else dyad.state
        yield Excerpt(
            np.stack(audio),
            dyad.state[span],
            np.stack(motion),
            np.stack(valid),
            first,
            frames,
            own,
            whole_state_T=whole,
        )


def _split(store: Store, scratch: Scratch) -> bool:
    """Note which split each conversation is in, by the files of faces beside a run's shards; whether there are any."""
    if not store.exists(f"{DATASET}/{MANIFEST_NAME}"):
        return False
    known = False
    for id_, split in splits_in(Dataset(f"{store.root.rstrip('/')}/{DATASET}")):
        scratch.put_split(id_, split)
        known = True
    return known

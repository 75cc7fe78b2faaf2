"""What a run keeps of voices, faces and words, for its doctor; voices are heard anew where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from visavis.pipeline.engine.worker import AnyStage
from visavis.pipeline.plan.file_names import RUN_FILE
from visavis.pipeline.state.tasks import artifact_path
from visavis.schemas.artifact import load_row
from visavis.schemas.dyads import Dyad
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.people_config import SplitConfig
from visavis.schemas.print_rows import Faceprints, Voiceprints
from visavis.schemas.rows import Row
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line, parsing
from visavis.schemas.voice_rows import Transcript, Voices
from visavis.stages.doctor import languages
from visavis.stages.doctor.findings import Findings, Sign
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.prints import Appearance, Print, Prints
from visavis.stages.doctor.scratch import Scratch
from visavis.stages.faceprints import FaceprintsStage
from visavis.stages.transcribe import TranscribeStage
from visavis.stages.voiceprints import VoiceprintsStage

if TYPE_CHECKING:
    from visavis.pipeline.plan.doctor_run import Kept

NO_VOICES = (
    "who is who by voice: the run keeps no voiceprints (`voiceprints.enabled=true`); --voices hears them now, 2 s a"
    " conversation"
)

Both = tuple[Print, Print]
R = TypeVar("R", bound=Row)
T = TypeVar("T")


def voices_of(
    store: Store, fingerprint: str | None, kept: Iterable[Kept], scratch: Scratch, findings: Findings
) -> Prints:
    """The voices of conversations.

    Args:
        kept: those that were measured.
        fingerprint: of the voiceprints that the run keeps; none: they are heard now.
        scratch: who takes part, and in which split. findings: gets what cannot be read.
    """

    def kept_of(each: Kept) -> Both:
        row = _row(store, VoiceprintsStage, str(fingerprint), each.id, Voiceprints)
        one, other = (Print(row.prints[i].astype(np.float32), row.seconds[i]) for i in (0, 1))
        return one, other

    read = kept_of if fingerprint else _hearing(store)
    return _gathered(Prints("voice"), _read(read, kept, "its voices", findings), scratch)


def faces_of(
    store: Store,
    fingerprint: str,
    kept: Iterable[Kept],
    scratch: Scratch,
    findings: Findings,
    threshold: float | None,
) -> Prints:
    """The faceprints that the run keeps. kept: as `voices_of`. threshold: `split.face_threshold`."""

    def read(each: Kept) -> Both:
        row = _row(store, FaceprintsStage, fingerprint, each.id, Faceprints)
        known = [np.nan if agreement is None else agreement for agreement in row.agreement]
        one, other = (Print(row.prints[i].astype(np.float32), row.pictures[i], known[i]) for i in (0, 1))
        return one, other

    return _gathered(Prints("face", threshold), _read(read, kept, "its faceprints", findings), scratch)


def face_threshold(settings: Mapping[str, Any]) -> float | None:
    """`split.face_threshold` of a run's settings.

    Raises:
        UsageError: they are not what a build writes.
    """
    with parsing(lambda why: UsageError(f"{RUN_FILE} is not what a build writes ({why})")):
        return SplitConfig.model_validate(settings["config"]["split"]).face_threshold


def languages_of(store: Store, fingerprint: str, kept: Iterable[Kept], findings: Findings) -> str:
    """Which languages the run's transcripts are in, in words."""
    spoken: dict[str, list[languages.Spoken]] = {}

    def read(each: Kept) -> Transcript:
        return _row(store, TranscribeStage, fingerprint, each.id, Transcript)

    for each, transcript in _read(read, kept, "its transcript", findings):
        if transcript.words:
            spoken.setdefault(transcript.language, []).append((each.id, each.name))
    return languages.judge(spoken, findings)


def _gathered(prints: Prints, found: Iterable[tuple[Kept, Both]], scratch: Scratch) -> Prints:
    for each, pair in found:
        if about := scratch.about(each.id):
            for name, print_ in zip(about.people, pair, strict=True):
                prints.add(Appearance(each.id, each.name, name, about.split), print_)
    return prints


def _read(read: Callable[[Kept], T], kept: Iterable[Kept], what: str, findings: Findings) -> Iterator[tuple[Kept, T]]:
    """What is there of each conversation; what cannot be read is a finding."""
    for each in kept:
        try:
            with parsing(lambda why: DatasetError(f"{what} cannot be read ({why})")):
                found = read(each)
        except (DatasetError, OSError) as error:
            findings.add(each.id, each.name, [Sign(Kind.UNREADABLE, 0.99, first_line(error))])
            continue
        yield each, found


def _row(store: Store, stage: type[AnyStage], fingerprint: str, id_: str, kind: type[R]) -> R:
    return load_row(store.read(artifact_path(stage.name, stage.version, fingerprint, id_)), kind)


def _hearing(store: Store) -> Callable[[Kept], Both]:
    from visavis.stages.models.networks import load_voice_encoder
    from visavis.stages.voice.voiceprints import both

    encoder = load_voice_encoder()

    def hear(each: Kept) -> Both:
        state_T = load_row(store.read(each.dyad), Dyad).state
        one, other = both(encoder, load_row(store.read(each.voices), Voices), state_T)
        return Print(*one), Print(*other)

    return hear

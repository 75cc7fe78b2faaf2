"""The voices of a run, for its doctor: voiceprints that it keeps, or heard anew where that is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from visavis.pipeline.state.tasks import artifact_path
from visavis.schemas.artifact import load_row
from visavis.schemas.dyads import Dyad
from visavis.schemas.errors import DatasetError
from visavis.schemas.rows import Voiceprints, Voices
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line, parsing
from visavis.stages.doctor import voices as judged
from visavis.stages.doctor.findings import Findings, Sign
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import Scratch
from visavis.stages.voice.voiceprints import Voiceprint, both
from visavis.stages.voiceprints import VoiceprintsStage

if TYPE_CHECKING:
    from visavis.pipeline.plan.doctor_run import Kept
    from visavis.stages.models.campplus import CAMPlusPlus

NO_VOICES = (
    "who is who by voice: the run keeps no voiceprints (`voiceprints.enabled=true`); --voices hears them now, 2 s a"
    " conversation"
)

Both = tuple[Voiceprint, Voiceprint]


def heard_of(
    store: Store, fingerprint: str | None, kept: Iterable[Kept], scratch: Scratch, findings: Findings
) -> judged.Voices:
    """The voices of all conversations that were measured.

    Args:
        fingerprint: of the voiceprints that the run keeps; none: they are heard now.
        scratch: who takes part, and in which split. findings: gets what cannot be read.
    """
    found, encoder = judged.Voices(), None if fingerprint else _encoder()
    for each in kept:
        about = scratch.about(each.id)
        if about is None:  # told of already
            continue
        try:
            with parsing(lambda why: DatasetError(f"its voices cannot be read ({why})")):
                pair = _heard(encoder, store, each) if encoder else _kept(store, str(fingerprint), each.id)
        except (DatasetError, OSError) as error:
            findings.add(each.id, each.name, [Sign(Kind.UNREADABLE, 0.99, first_line(error))])
            continue
        for name, voice in zip(about.people, pair, strict=True):
            found.add(judged.Appearance(each.id, each.name, name, about.split), voice)
    return found


def _encoder() -> CAMPlusPlus:
    from visavis.stages.models.networks import load_voice_encoder

    return load_voice_encoder()


def _kept(store: Store, fingerprint: str, id_: str) -> Both:
    path = artifact_path(VoiceprintsStage.name, VoiceprintsStage.version, fingerprint, id_)
    row = load_row(store.read(path), Voiceprints)
    one, other = (Voiceprint(row.prints[i].astype(np.float32), row.seconds[i]) for i in (0, 1))
    return one, other


def _heard(encoder: CAMPlusPlus, store: Store, kept: Kept) -> Both:
    state_T = load_row(store.read(kept.dyad), Dyad).state
    return both(encoder, load_row(store.read(kept.voices), Voices), state_T)

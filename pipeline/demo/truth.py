"""Hold a build of demo dialogues against what was rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

from visavis.pipeline.demo.dialogue import DialogueTruth, read_truth
from visavis.pipeline.plan.outputs import read_outputs
from visavis.schemas.dyads import Motion
from visavis.schemas.rows import Binding, Turn
from visavis.stages.bind import BindStage
from visavis.stages.ingest import IngestStage
from visavis.stages.motion import MotionStage


@dataclass(frozen=True)
class TruthCheck:
    """How close one dialogue's build came to its truth.

    der: diarization error rate, no collar, overlap counted. turn_error: largest distance of a turn's border from
    its truth, s; infinite if the number of turns differs. bound: share of turns whose voice went to the right face.
    pitch: correlation of recovered with rendered head pitch, the lower of the two people's.
    """

    name: str
    layout: str
    der: float
    turn_error: float
    bound: float
    pitch: float
    turns: tuple[Turn, ...]


def check_build(root: str, media: Path) -> list[TruthCheck]:
    """Every dialogue of `media` that the run in `root` kept, by name."""
    by_files = {tuple(sorted(t.files)): t for t in map(read_truth, sorted(media.glob("*.truth.json")))}
    bound = dict(read_outputs(root, BindStage))
    motion = {(m.conversation, m.participant): m for _, m in read_outputs(root, MotionStage)}
    checks = []
    for _, conversation in read_outputs(root, IngestStage):
        truth = by_files.get(tuple(sorted(Path(m.uri).name for m in conversation.media)))
        if truth is None or conversation.id not in bound:
            continue
        order = _participants(truth, [Path(m.uri).name for m in conversation.media])
        motions = [motion[conversation.id, i] for i in range(2) if (conversation.id, i) in motion]
        checks.append(_check(truth, order, bound[conversation.id], motions))
    return sorted(checks, key=lambda c: c.name)


def _participants(truth: DialogueTruth, files: Sequence[str]) -> list[int]:
    """Truth's participant behind each of the build's: from left to right in one frame, else by file."""
    if len(files) == 1:
        return sorted(range(2), key=lambda i: truth.participants[i].side != "left")
    return [next(i for i, p in enumerate(truth.participants) if p.file == name) for name in files]


def _check(truth: DialogueTruth, order: list[int], binding: Binding, motions: list[Motion]) -> TruthCheck:
    found = [t.model_copy(update={"speaker": order[t.speaker]}) for t in binding.turns]
    pairs = list(zip(found, truth.turns, strict=False)) if len(found) == len(truth.turns) else []
    error = max((max(abs(a.start - b.start), abs(a.end - b.end)) for a, b in pairs), default=float("inf"))
    correlations = []
    for motion in motions:
        rendered = np.array(truth.participants[order[motion.participant]].pitch)
        frames = min(len(rendered), len(motion.motion))
        seen = motion.valid[:frames]
        correlations.append(float(np.corrcoef(motion.motion[:frames, 0][seen], rendered[:frames][seen])[0, 1]))
    return TruthCheck(
        name=truth.name,
        layout=truth.layout.value,
        der=diarization_error(truth.turns, found, truth.frames / truth.fps),
        turn_error=error,
        bound=_bound_share(truth.turns, found),
        pitch=min(correlations, default=float("nan")),
        turns=tuple(found),
    )


def diarization_error(truth: Sequence[Turn], found: Sequence[Turn], seconds: float) -> float:
    """Diarization error rate, no collar, overlap counted."""
    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    return float(metric(_annotation(truth), _annotation(found), uem=Timeline([Segment(0.0, seconds)])))


def _annotation(turns: Sequence[Turn]) -> Annotation:
    annotation = Annotation()
    for number, turn in enumerate(turns):
        annotation[Segment(turn.start, turn.end), number] = str(turn.speaker)
    return annotation


def _bound_share(truth: Sequence[Turn], found: Sequence[Turn]) -> float:
    """Share of true turns during which most of the found speech is given to the right face."""
    right = 0
    for turn in truth:
        heard = [0.0, 0.0]
        for other in found:
            heard[other.speaker] += max(0.0, min(turn.end, other.end) - max(turn.start, other.start))
        right += heard[turn.speaker] > heard[1 - turn.speaker]
    return right / len(truth)

"""Whose voice is whose face: share of the speech time on the right face, and after injected confusions.

    python -m benchmarks.binding [--quick] [--media FOLDER]

Synthetic dialogues of two people in one picture, made from different seeds, go through the stages up to `bind`.

correct   the diarizer's turns as they are
restored  half of the turns, at random, given to the other voice before `bind` sees them; several times each
clips     real clips with labels, where the media folder beside the project is present: by labels and lips, and restored

A share is taken over the time in which the labels have exactly one person speak and anybody was heard: the part that
`Binding.turns` gives to that person alone. `--quick`: two dialogues instead of six.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.diarization import read_rttm
from benchmarks.processes import say
from visavis.pipeline.demo.dialogue import make_dialogue
from visavis.schemas.config import BindConfig, DiarizeConfig, FacesConfig, IngestConfig
from visavis.schemas.errors import Rejected
from visavis.schemas.face_rows import Cast
from visavis.schemas.rows import Conversation, Diarization, Source, Turn
from visavis.stages.bind import BindInput, BindStage
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.diarize import DiarizeStage
from visavis.stages.faces import FacesStage, pieces_of
from visavis.stages.ingest import IngestStage, outline_of
from visavis.stages.media.audio import speech_state

SIBLING = Path(__file__).parents[1] / ".." / "shared" / "media"
LEFT_IN_RTTM = {"two_in_frame": "left"}
SEEDS = 5
SECONDS = 36.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two dialogues instead of six")
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with conversation/*.rttm")
    options = parser.parse_args()
    stages = Stages()
    rows = []
    with tempfile.TemporaryDirectory(prefix="visavis-binding-") as scratch:
        for number in range(2 if options.quick else 6):
            truth = make_dialogue(Path(scratch), f"dialogue{number}", 100 + number, SECONDS, "one_frame")
            order = sorted(range(2), key=lambda i: truth.participants[i].side != "left")
            labels = [turn.model_copy(update={"speaker": order.index(turn.speaker)}) for turn in truth.turns]
            rows.append(stages.measure(Path(scratch) / truth.participants[0].file, labels))
            say("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    clips = []
    for name, left in LEFT_IN_RTTM.items():
        rttm = options.media / "conversation" / f"{name}.rttm"
        if rttm.exists():
            [spans] = read_rttm(rttm).values()
            labels = [Turn(speaker=int(left not in who), start=start, end=end) for start, end, who in spans]
            clips.append(stages.measure(rttm.with_suffix(".mp4"), labels))
            say("  ".join(f"{key} {value}" for key, value in clips[-1].items()))
    result = {
        "name": "binding",
        "correct": min(row["correct"] for row in rows),
        "restored": min(row["restored"] for row in rows),
        "rows": rows,
        "clips": clips,
        "seconds_of_video_per_second": {
            stage: round(statistics.median(row["speed"][stage] for row in rows), 1) for stage in rows[0]["speed"]
        },
        "against": "who speaks in the rendered dialogues; the smallest of them",
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


class Stages:
    """The stages up to `bind`, loaded once."""

    def __init__(self) -> None:
        self.ingest, self.cast, self.bind = IngestStage(IngestConfig()), CastStage(), BindStage(BindConfig())
        self.diarize, self.faces = DiarizeStage(DiarizeConfig()), FacesStage(FacesConfig())
        self.diarize.setup()
        self.faces.setup()

    def measure(self, video: Path, labels: Sequence[Turn]) -> dict[str, Any]:
        [conversation] = self.ingest.process(Source(uris=(str(video),)))
        seconds: dict[str, float] = {}
        began = time.process_time()
        [heard] = self.diarize.process(conversation)
        seconds["diarize"] = time.process_time() - began
        began = time.process_time()
        pieces = pieces_of(outline_of(conversation), (str(video),), self.faces.config)
        faces = tuple(row for piece in pieces for row in self.faces.process(piece))
        seconds["faces"] = time.process_time() - began
        began = time.process_time()
        [cast] = self.cast.process(CastInput(conversation=conversation, faces=faces))
        seconds["cast"] = time.process_time() - began
        began = time.process_time()
        correct = self.share(conversation, cast, heard, labels)
        seconds["bind"] = time.process_time() - began
        rng = np.random.default_rng(0)
        again = [self.share(conversation, cast, confused(heard, rng), labels) for _ in range(SEEDS)]
        media = sum(turn.end - turn.start for turn in labels)
        return {
            "video": video.name,
            "correct": round(correct, 4),
            "restored": round(min(again), 4),
            "speech": round(media, 1),
            "speed": {stage: round(conversation.frames / 25 / s, 1) for stage, s in seconds.items()},
        }

    def share(self, conversation: Conversation, cast: Cast, heard: Diarization, labels: Sequence[Turn]) -> float:
        """Of the labelled time; 0 where the conversation is rejected."""
        try:
            [bound] = self.bind.process(BindInput(conversation=conversation, diarization=heard, cast=cast))
        except Rejected as rejected:
            say(str(rejected))
            return 0.0
        true_T, found_T = (speech_state(turns, conversation.frames) for turns in (labels, bound.turns))
        compared_T = np.isin(true_T, (1, 2)) & (found_T > 0)
        return float((true_T == found_T)[compared_T].mean())


def confused(heard: Diarization, rng: np.random.Generator) -> Diarization:
    """Half of the turns, at random, in the other's name."""
    chosen = set(rng.permutation(len(heard.turns))[: len(heard.turns) // 2].tolist())
    turns = (t.model_copy(update={"speaker": 1 - t.speaker}) if i in chosen else t for i, t in enumerate(heard.turns))
    return heard.model_copy(update={"turns": tuple(turns)})


if __name__ == "__main__":
    main()

"""What a worker does with media, alone in a process so that what it says, leaves and takes can be measured.

python -m tests.stages.worker FOLDER …  → one JSON line: outcome by file, child processes, open files, peak memory.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import deque
from pathlib import Path

import psutil

from visavis.pipeline.engine.memory import peak_mb
from visavis.schemas.config import FacesConfig, IngestConfig
from visavis.schemas.errors import Rejected
from visavis.schemas.face_rows import Piece
from visavis.schemas.rows import Source
from visavis.stages.faces import FacesStage
from visavis.stages.ingest import IngestStage
from visavis.stages.media.audio import read_audio
from visavis.stages.media.video import frames_on_grid

_SOME = 10  # frames for the face model and the second decoder


def main(folders: list[str]) -> None:
    ingest, faces = IngestStage(IngestConfig(min_duration=1.0)), FacesStage(FacesConfig())
    faces.setup()
    outcomes = {}
    for path in sorted(path for folder in folders for path in Path(folder).iterdir()):
        try:
            outcomes[str(path)] = _work(path, ingest, faces)
        except Rejected as rejected:
            outcomes[str(path)] = rejected.reason.value
    peak = peak_mb()
    for path in (path for path, outcome in outcomes.items() if outcome == "ok"):
        with contextlib.suppress(Rejected):  # it opens fewer files
            deque(frames_on_grid(path, 0, _SOME, decoder="decord"), maxlen=0)
    report = {
        "outcomes": outcomes,
        "processes": [child.name() for child in psutil.Process().children(recursive=True)],
        "files": [file.path for file in psutil.Process().open_files() if Path(file.path).parent in map(Path, folders)],
        "peak_mb": peak,
        "peak_with_decord_mb": peak_mb(),
    }
    print(json.dumps(report))


def _work(path: Path, ingest: IngestStage, faces: FacesStage) -> str:
    (conversation,) = ingest.process(Source(uris=(str(path),)))
    read_audio(str(path), conversation.frames)
    deque(faces.process(Piece(conversation=conversation.id, media=0, uri=str(path), first=0, last=_SOME)), maxlen=0)
    return "ok"


if __name__ == "__main__":
    main(sys.argv[1:])

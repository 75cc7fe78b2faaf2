"""One stage alone, on one clip: who speaks when in a video. Cells (`# %%`) run in a notebook or an editor, too.

    python examples/one_stage.py runs/demo/media/talk1.mp4

Needs the extra `embedded`. Nothing is downloaded, nothing is written, and Ray is not started.
"""

# %% A clip, probed: every stage takes rows and yields rows. `Rejected` says why a clip is of no use.
import sys

from visavis.schemas.config import DiarizeConfig, IngestConfig
from visavis.schemas.errors import Rejected
from visavis.schemas.rows import Source
from visavis.stages.diarize import DiarizeStage
from visavis.stages.ingest import IngestStage

try:
    (conversation,) = IngestStage(IngestConfig()).process(Source(uris=(sys.argv[1],)))
except Rejected as error:
    sys.exit(f"rejected: {error}")
print(f"conversation {conversation.id}, {conversation.layout.value}, {conversation.frames} frames at 25 a second")

# %% The stage. `setup` loads its networks once, `process` takes one item after the other.
stage = DiarizeStage(DiarizeConfig(min_turn=0.3))
stage.setup()
try:
    (found,) = stage.process(conversation)
except Rejected as error:
    sys.exit(f"rejected: {error}")

# %% What it says: turns of voices that have no faces yet, and how many people the diarizer believes in.
print(f"{found.method}: {found.speakers} speakers, {len(found.turns)} turns")
for turn in found.turns:
    print(f"{turn.start:7.2f} – {turn.end:6.2f} s  speaker {turn.speaker}")

# %% From here on it is plain Python.
for speaker in range(found.speakers):
    seconds = sum(turn.end - turn.start for turn in found.turns if turn.speaker == speaker)
    print(f"speaker {speaker} talks for {seconds:.1f} of {conversation.frames / 25:.1f} s")

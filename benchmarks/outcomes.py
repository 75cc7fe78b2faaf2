"""What a build makes of clips whose truth is known: accepted or not, speech on the right face, people kept apart.

    python -m benchmarks.outcomes FOLDER… [--run FOLDER] [--every N] [--only TEXT] [--engine ray] [--set KEY=VALUE …]

FOLDER holds clips with `<clip>.truth.json` (`benchmarks.exchanges`, `benchmarks.recuts`). All go through one
`visavis build` with its defaults; a run's folder that exists is built on. Per clip:

outcome    ok, or why it was left out
share      of the time in which the truth has exactly one person speak and anybody was heard: on the right face alone
heard      share of the true speech in which anybody was heard
windows    that came out; corrected: seconds of speech that the lips took from the diarizer
person     recuts: of the frames in which a participant is seen, those that show the same of the two people throughout
crossing   recuts: windows with a cut inside
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.exchanges import Truth, read_truths
from benchmarks.processes import say
from visavis.pipeline.plan.outputs import read_outputs
from visavis.pipeline.state.ledger import Ledger
from visavis.schemas import FPS
from visavis.schemas.dyads import Dyad
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.rows import Binding, Conversation
from visavis.schemas.storage.store import Store
from visavis.stages.bind import BindStage
from visavis.stages.faces import FacesStage
from visavis.stages.ingest import IngestStage
from visavis.stages.media.audio import speech_state
from visavis.stages.windows import WindowsStage

CONFIG = Path(__file__).parents[1] / "configs" / "default.yaml"
OF_A_CUT = 2  # frames by which a cut may be seen early or late


@dataclass(frozen=True)
class Clip:
    """A truth and where it lies. cuts: shots as `benchmarks.recuts` notes them, or none."""

    folder: Path
    truth: Truth
    cuts: tuple[dict[str, object], ...]

    @property
    def name(self) -> str:
        return f"{self.folder.name}-{self.truth.name}"


@dataclass(frozen=True)
class Result:
    """One clip's line; see the module. None: does not apply."""

    clip: Clip
    outcome: str
    share: float | None = None
    heard: float | None = None
    windows: int = 0
    corrected: float | None = None
    person: float | None = None
    crossing: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether it was accepted or left out as it should be."""
        return (self.outcome == "ok") == (self.clip.truth.expected == "ok")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--run", type=Path, help="folder of the run; none: a scratch one, removed afterwards")
    parser.add_argument("--every", type=int, default=1, help="only each so manieth clip of a folder")
    parser.add_argument("--only", default="", help="part of a clip's name")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--set", dest="settings", nargs="+", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    chosen = [[clip for clip in clips_of(folder) if options.only in clip.truth.name] for folder in options.folders]
    clips = [clip for of_one_folder in chosen for clip in of_one_folder[:: options.every]]
    if not clips:
        parser.exit(2, "no such *.truth.json in these folders\n")
    with tempfile.TemporaryDirectory(prefix="visavis-outcomes-") as scratch:
        run = options.run or Path(scratch) / "run"
        build(clips, run, options.engine, options.settings)
        results = measure(clips, run)
    for line in table(results):
        say(line)
    print(json.dumps({"name": "outcomes", "groups": summaries(results)}))


def clips_of(folder: Path) -> list[Clip]:
    """All of a folder, by name."""
    clips = []
    for truth in read_truths(folder):
        cuts = folder / f"{truth.name}.cuts.json"
        clips.append(Clip(folder, truth, tuple(json.loads(cuts.read_text())) if cuts.exists() else ()))
    return clips


def build(clips: Sequence[Clip], run: Path, engine: str, settings: Sequence[str] = ()) -> None:
    """Build them all as one corpus.

    Raises:
        RuntimeError: nothing was built; what the command said.
    """
    run.mkdir(parents=True, exist_ok=True)
    listed = run.with_name(f"{run.name}.csv")
    with listed.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "conversation", "participant"])
        for clip in clips:
            two = len(clip.truth.files) == 2
            for number, name in enumerate(clip.truth.files):
                rows.writerow([(clip.folder / name).resolve(), clip.name, f"{clip.name}-{number}" if two else ""])
    command = [sys.executable, "-m", "visavis", "build", str(CONFIG), str(listed), "-o", str(run)]
    chosen = [f"--set={setting}" for setting in (*settings, "run.max_failure_share=1", "run.max_failures_in_row=1000")]
    done = subprocess.run([*command, f"--engine={engine}", *chosen], capture_output=True, text=True, check=False)
    if not any(run.glob("ledger/*.parquet")):
        raise RuntimeError(f"the build ended with {done.returncode}: {done.stderr.strip()[-2000:]}")


def measure(clips: Sequence[Clip], run: Path) -> list[Result]:
    """A line for each clip, in their order."""
    root = str(run)
    by_files = {tuple(sorted(Path(m.uri).name for m in c.media)): c for _, c in read_outputs(root, IngestStage)}
    lost = _reasons(root)
    bound, dyads = dict(read_outputs(root, BindStage)), dict(read_outputs(root, WindowsStage))
    results = []
    for clip in clips:
        conversation = by_files.get(tuple(sorted(clip.truth.files)))
        key = conversation.id if conversation else ""
        if conversation is None or key not in dyads:
            names = (key, clip.name, *clip.truth.files)
            reasons = [why for name, why in lost if name and any(name.startswith(n) for n in names if n)]
            results.append(Result(clip, next(iter(reasons), "lost")))
            continue
        results.append(_accepted(clip, conversation, bound[key], dyads[key], root))
    return results


def table(results: Sequence[Result]) -> list[str]:
    """Lines for people: every clip, then each group."""
    lines = [f"{'clip':44} {'wanted':9} {'outcome':22} share  heard  windows corrected person crossing  note"]
    for r in results:
        mark = " " if r.wanted else "!"
        note = r.clip.truth.note or " / ".join(",".join(traits) for traits in r.clip.truth.traits)
        lines.append(
            f"{r.clip.name:44} {r.clip.truth.expected:8}{mark} {r.outcome:22} {_percent(r.share)} {_percent(r.heard)} "
            f"{r.windows:7d} {_seconds(r.corrected)} {_percent(r.person)} "
            f"{'' if r.crossing is None else r.crossing:>8}  {note}"
        )
    return lines + [f"{name}: " + ", ".join(f"{k} {v}" for k, v in s.items()) for name, s in summaries(results).items()]


def summaries(results: Sequence[Result]) -> dict[str, dict[str, object]]:
    """Per group: how many, those that ended as wanted, why others were left out, and speech on the right face."""
    groups: dict[str, dict[str, object]] = {}
    for name in dict.fromkeys(r.clip.truth.group for r in results):
        rows = [r for r in results if r.clip.truth.group == name]
        scored = [(r.share, r.clip.truth.seconds) for r in rows if r.share is not None]
        shares = [share for share, _ in scored]
        groups[name] = {
            "clips": len(rows),
            "as wanted": sum(r.wanted for r in rows),
            "outcomes": dict(Counter(r.outcome for r in rows).most_common()),
            "windows": sum(r.windows for r in rows),
            "share": round(float(np.average(shares, weights=[s for _, s in scored])), 4) if scored else None,
            "lowest share": min(shares) if shares else None,
            "shares of 97 % or more": sum(share >= 0.97 for share in shares),
        }
        people = [r.person for r in rows if r.person is not None]
        if people:
            groups[name] |= {
                "person": round(statistics.mean(people), 4),
                "lowest person": min(people),
                "windows across cuts": sum(r.crossing or 0 for r in rows),
            }
    return groups


def _accepted(clip: Clip, conversation: Conversation, binding: Binding, dyad: Dyad, root: str) -> Result:
    order, person = [0, 1], None
    if len(clip.truth.files) == 2:
        order = [clip.truth.files.index(Path(m.uri).name) for m in conversation.media]
    elif clip.cuts:
        rows = [
            row for _, row in sorted(read_outputs(root, FacesStage, f"{conversation.id}"), key=lambda item: item[0])
        ]
        seen = who_is_seen(clip.cuts, binding, rows)
        straight, crossed = seen[0, 0] + seen[1, 1], seen[0, 1] + seen[1, 0]
        order = [0, 1] if straight >= crossed else [1, 0]
        person = round(float(max(straight, crossed) / seen.sum()), 4) if seen.any() else None  # all shots move
    found = [turn.model_copy(update={"speaker": order[turn.speaker]}) for turn in binding.turns]
    true_T = speech_state(clip.truth.turns, conversation.frames)
    found_T = speech_state(found, conversation.frames)
    one_T, anybody_T = np.isin(true_T, (1, 2)), found_T > 0
    compared_T = one_T & anybody_T
    return Result(
        clip,
        "ok",
        share=round(float((true_T == found_T)[compared_T].mean()), 4) if compared_T.any() else None,
        heard=round(float(anybody_T[true_T > 0].mean()), 4) if true_T.any() else None,
        windows=len(dyad.windows),
        corrected=round(binding.corrected, 2),
        person=person,
        crossing=_crossing(clip.cuts, dyad) if clip.cuts else None,
    )


def who_is_seen(cuts: Sequence[dict[str, object]], binding: Binding, faces: Sequence[FaceTracks]) -> np.ndarray:
    """Frames in which each participant (row) is A or B (column), by where the shot has them: int [2, 2]."""
    seen = np.zeros((2, 2), int)
    for number, participant in enumerate(binding.participants):
        for segment in participant.segments:
            row = faces[segment.piece]
            track = row.tracks[segment.track]
            for i in np.flatnonzero(track.valid):
                at = float(track.box[i, [0, 2]].mean()) / row.width
                who = _who(cuts, (track.first + int(i)) / FPS, at)
                if who is not None:
                    seen[number, who] += 1
    return seen


def _who(cuts: Sequence[dict[str, object]], second: float, at: float) -> int | None:
    """Whose place is nearest, in the shot of that second; None in shots that move and at cuts."""
    for shot in cuts:
        start, end = float(str(shot["start"])), float(str(shot["end"]))
        if start + OF_A_CUT / FPS <= second < end - OF_A_CUT / FPS and not shot["until"]:
            places = [shot[name] for name in "AB"]
            away = [abs(place[0] - at) if isinstance(place, list) else np.inf for place in places]
            return int(np.argmin(away)) if min(away) < 0.25 else None
    return None


def _crossing(cuts: Sequence[dict[str, object]], dyad: Dyad) -> int:
    """Windows with the first frame of a shot inside; a zoom that goes on from where it was cuts nothing."""
    firsts = [round(float(str(b["start"])) * FPS) for a, b in pairwise(cuts) if not _goes_on(a, b)]
    return sum(any(w.first < first < w.first + w.length for first in firsts) for w in dyad.windows)


def _goes_on(one: dict[str, object], other: dict[str, object]) -> bool:
    return one["until"] is not None and one["until"] == other["shot"]


def _reasons(root: str) -> list[tuple[str, str]]:
    """(key or item's name, reason) of what was not ok, in the order of the chain."""
    rows = [o for o in Ledger(Store(root)).latest().values() if o.status != "ok"]
    ordered = sorted(rows, key=lambda o: o.ended)
    said = [(o, f"failed:{o.reason}" if o.status == "failed" else o.reason) for o in ordered]
    return [(name, why) for o, why in said for name in (o.key, o.item)]


def _percent(share: float | None) -> str:
    return "   -  " if share is None else f"{100 * share:5.1f} "


def _seconds(value: float | None) -> str:
    return "    -    " if value is None else f"{value:8.2f} "


if __name__ == "__main__":
    main()

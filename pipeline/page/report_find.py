"""What lies in the folder that a report is asked of: a build, pairs, trainings, evaluations, or all of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visavis.pipeline.plan.file_names import RUN_FILE
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.tasks import PAIRS
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.store import Store
from visavis.schemas.uris import is_local
from visavis.stages.recording import RecordingStage
from visavis.training.log import METRICS_NAME

_MOST = 1000  # entries of a folder that are looked at
EVALUATION = "evaluation.json"


@dataclass
class Found:
    """Folders and files that a page is made of. notes: what was looked for and is not there."""

    title: str
    build: str | None = None
    pairs: list[str] = field(default_factory=list)
    training: list[Path] = field(default_factory=list)
    evaluation: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def take(self, place: str) -> bool:
        """Take in a folder, if it is one of a run.

        Raises:
            UsageError: there is a build already.
        """
        if Store(place).exists(RUN_FILE):
            if PAIRS in read_settings(Store(place))["fingerprints"]:
                self.pairs.append(place)
            elif self.build:
                raise UsageError(f"{self.build} and {place} are both builds; name one of them")
            else:
                self.build = place
                if RecordingStage.name in read_settings(Store(place))["fingerprints"]:
                    self.notes.append(
                        f"{place} is an import: without films its conversations have no view of their own here;"
                        " `visavis status --left-out` lists what was left out, `visavis generate` draws curves"
                    )
            return True
        if is_local(place) and (Path(place) / METRICS_NAME).is_file():
            self.training.append(Path(place))
            return True
        return False


def find(run: str, pairs: Sequence[str], training: Sequence[Path], evaluation: Sequence[Path]) -> Found:
    """What lies in `run`, and what is named beside it.

    Raises:
        UsageError: nothing of ours, or something that is not what it is named as.
    """
    found = Found(run.rstrip("/").rpartition("/")[2] or run)
    folder = Path(run)
    if not found.take(run) and is_local(run) and folder.is_dir():
        for path in sorted(folder.iterdir())[:_MOST]:
            if path.is_dir() and not path.is_symlink():
                found.take(str(path))
        if (folder / EVALUATION).is_file():
            found.evaluation.append(folder / EVALUATION)
    for place in pairs:
        if not Store(place).exists(RUN_FILE) or PAIRS not in read_settings(Store(place))["fingerprints"]:
            raise UsageError(f"--pairs {place}: no run of `visavis pairs`")
        found.pairs.append(place)
    for path in training:
        if not (path / METRICS_NAME).is_file():
            raise UsageError(f"--training {path}: no folder of `visavis train` ({METRICS_NAME} is missing)")
        found.training.append(path)
    for path in evaluation:
        if not path.is_file():
            raise UsageError(f"--evaluation {path}: no such file; `visavis evaluate … --json` prints one")
        found.evaluation.append(path)
    if not (found.build or found.pairs or found.training or found.evaluation):
        raise UsageError(f"{run}: there is nothing to report; name the --out of a build, or a folder that holds some")
    found.training.sort(key=lambda path: (path / METRICS_NAME).stat().st_mtime)
    for name, there in (("build", found.build), ("pairs", found.pairs), ("training", found.training)):
        if not there:
            said = "" if name == "build" else f"; name some with --{name}"
            found.notes.append(f"no {name} lies in {found.title}{said}")
    if not found.evaluation:
        found.notes.append("no evaluation was found; name a file of `visavis evaluate … --json` with --evaluation")
    return found

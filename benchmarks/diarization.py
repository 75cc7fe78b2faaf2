"""Error rates of the embedded diarizer on labelled audio: no collar, overlap counted.

    python -m benchmarks.diarization [--quick] [--media FOLDER]

`--quick` leaves the 30 s recordings out. DER = (missed + false alarm + confusion) / speech in the labels, all of it
summed over files before dividing. Labels come from RTTM files; a labelled file is scored as production would turn
it into turns, but without the dyad rule, so that a wrong number of speakers costs points instead of the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from schemas import SAMPLE_RATE
from schemas.config import DiarizeConfig
from schemas.rows import Turn
from stages.audio import read_audio
from stages.diarize import load_diarizer, tidy
from stages.embedded import quiet_pyannote

SIBLING = Path(__file__).parents[1] / ".." / "shared" / "media"
LONG = ("dev00", "dev01", "pyannote_sample")
AUDIO_OF = {"sample": "pyannote_sample"}  # a label file that names its recording otherwise
FIELDS = ("missed", "false_alarm", "confusion")

Label = tuple[float, float, str]


def read_rttm(path: Path) -> dict[str, list[Label]]:
    """Labelled (start, end, speaker) by recording."""
    labels: dict[str, list[Label]] = defaultdict(list)
    for line in path.read_text().splitlines():
        kind, recording, _, start, duration, _, _, speaker, *_ = line.split()
        if kind == "SPEAKER":
            labels[recording].append((float(start), float(start) + float(duration), speaker))
    return dict(labels)


def labelled_audio(media: Path) -> dict[Path, list[Label]]:
    """Every recording beside a label file."""
    found = {}
    for rttm in sorted(media.glob("*/*.rttm")):
        for recording, labels in read_rttm(rttm).items():
            names = (AUDIO_OF.get(recording, recording), rttm.stem)
            candidates = [rttm.parent / f"{name}{suffix}" for name in names for suffix in (".wav", ".mp4")]
            found[next(path for path in candidates if path.is_file())] = labels
    return found


def errors(labels: Iterable[Label], turns: Iterable[Turn], duration: float) -> dict[str, float]:
    """Seconds missed, false_alarm and confusion, under the best mapping of speakers, and `total` labelled speech."""
    with quiet_pyannote():
        from pyannote.core import Annotation, Segment, Timeline
        from pyannote.metrics.diarization import DiarizationErrorRate

    reference, hypothesis = Annotation(), Annotation()
    for i, (start, end, speaker) in enumerate(labels):
        reference[Segment(start, end), i] = speaker
    for i, turn in enumerate(turns):
        hypothesis[Segment(turn.start, turn.end), i] = str(turn.speaker)
    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    found = metric(reference, hypothesis, detailed=True, uem=Timeline([Segment(0, duration)]))
    return {
        "missed": float(found["missed detection"]),
        "false_alarm": float(found["false alarm"]),
        "confusion": float(found["confusion"]),
        "total": float(found["total"]),
    }


def rates(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Shares of the labelled speech, over all rows together."""
    rows = list(rows)
    total = sum(row["total"] for row in rows)
    shares = {field: sum(row[field] for row in rows) / total for field in FIELDS}
    return {"der": round(sum(shares.values()), 4), **{field: round(share, 4) for field, share in shares.items()}}


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diarization", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the short two-person clips")
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with */*.rttm and the audio beside them")
    options = parser.parse_args()
    recordings = labelled_audio(options.media)
    if options.quick:
        recordings = {path: labels for path, labels in recordings.items() if path.stem not in LONG}
    if not recordings:
        parser.exit(2, f"no labelled audio under {options.media}\n")

    config = DiarizeConfig()
    began = time.perf_counter()
    diarizer = load_diarizer(config)
    load_s = time.perf_counter() - began
    print(f"networks loaded in {load_s:.1f} s", file=sys.stderr)

    measured, rows = [], []
    for path, labels in recordings.items():
        audio = read_audio(str(path))
        duration = len(audio) / SAMPLE_RATE
        began = time.perf_counter()
        turns = tidy(diarizer(audio), duration, config)
        seconds = time.perf_counter() - began
        measured.append(errors(labels, turns, duration))
        speakers = len({turn.speaker for turn in turns})
        rows.append({"file": path.name, "speakers": speakers, "speed": round(duration / seconds, 1)})
        rows[-1] |= rates(measured[-1:])
        print(_line(rows[-1]), file=sys.stderr)
    groups = {
        "two-person clips": [m for m, path in zip(measured, recordings, strict=True) if path.stem not in LONG],
        "all": measured,
    }
    for name, group in groups.items():
        print(_line({"file": name, **rates(group)}), file=sys.stderr)
    result = {
        "name": "diarization",
        **rates(measured),
        "clips": rates(groups["two-person clips"]),
        "rows": rows,
        "load_s": round(load_s, 1),
        "against": "labels, no collar, overlap counted",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def _line(row: dict[str, object]) -> str:
    figures = "  ".join(f"{field} {100 * float(str(row[field])):5.1f} %" for field in ("der", *FIELDS))
    speed = f"  {row['speakers']} speakers, {row['speed']} × real time" if "speed" in row else ""
    return f"{row['file']!s:32} {figures}{speed}"


if __name__ == "__main__":
    main()

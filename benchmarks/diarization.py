"""Error rates of the embedded diarizer on labelled audio: no collar, overlap counted.

    python -m benchmarks.diarization [--quick] [--media FOLDER] [--music DB [--kind KIND]]

`--quick` leaves the 30 s recordings out. `--music` adds synthetic music, the speech that many dB louder. DER = (missed
+ false alarm + confusion) / speech in the labels, all of it summed over files before dividing. Labels come from RTTM
files; a labelled file is scored as production would turn it into turns, but without the dyad rule, so that a wrong
number of speakers costs points instead of the file. `speakers` are those given, at least two where there is enough
speech; `believed` those that the diarizer would be sure of by itself. Mixes 2, 6, 12, 18 and 22 are harder and came
later: they are reported once more as "later mixes". All were in view when the windows' length was chosen.
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

import numpy as np

from visavis.schemas import SAMPLE_RATE
from visavis.schemas.config import DiarizeConfig
from visavis.schemas.rows import Turn
from visavis.stages.diarize import tidy
from visavis.stages.media.audio import read_audio
from visavis.stages.models.devices import pick_device
from visavis.stages.models.networks import quiet_pyannote
from visavis.stages.voice.diarizer import EmbeddedDiarizer

SIBLING = Path(__file__).parents[1] / ".." / "shared" / "media"
LATER = tuple(f"anytalker_interact_{number}_mix" for number in (2, 6, 12, 18, 22))
MUSIC = ("pad", "band", "bells")
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


def music(kind: str, samples: int, seed: int = 0) -> np.ndarray:
    """Synthetic music float32 [N]: held chords ("pad"), chords, bass and drums ("band"), or plucked tones ("bells")."""
    random = np.random.default_rng(seed)
    sound = np.zeros(samples)
    beat = SAMPLE_RATE // 2
    for i, begin in enumerate(range(0, samples, beat)):
        root = 110 * 2 ** (int(random.choice([0, 3, 5, 7, 10])) / 12)
        if kind != "bells" and i % 4 == 0:
            for step in (12, 15, 19):
                _add(sound, begin, _tone(root * 2 ** (step / 12), 4 * beat, harmonics=8))
        if kind == "bells":
            _add(sound, begin, _tone(4 * root * 2 ** (int(random.choice([0, 4, 7])) / 12), beat, 3, decay=0.2))
        if kind == "band":
            _add(sound, begin, 2 * _tone(root / 2, beat, 3, decay=0.3))
            _add(sound, begin, random.normal(0, 1, beat) * np.exp(-np.arange(beat) / (0.03 * SAMPLE_RATE)))
    return np.asarray(0.1 * sound / np.sqrt(np.mean(sound**2)), np.float32)


def _tone(pitch: float, samples: int, harmonics: int, decay: float = 1e9) -> np.ndarray:
    time = np.arange(samples) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, harmonics + 1))
    return np.asarray(wave * np.exp(-time / decay) * np.minimum(1, 50 * np.minimum(time, time[::-1] + 1e-9)))


def _add(sound_N: np.ndarray, begin: int, part: np.ndarray) -> None:
    sound_N[begin : begin + len(part)] += part[: len(sound_N) - begin]


def with_music(audio_N: np.ndarray, kind: str, db: float, seed: int = 0) -> np.ndarray:
    """Speech that is `db` louder than the music under it, float32 [N]; both by their power over all."""
    under = music(kind, len(audio_N), seed)
    gain = np.sqrt(np.mean(audio_N**2) / np.mean(under**2)) * 10 ** (-db / 20)
    return np.asarray(audio_N + gain * under, np.float32)


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diarization", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the short two-person clips")
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with */*.rttm and the audio beside them")
    parser.add_argument("--music", type=float, metavar="DB", help="speech over synthetic music, in dB")
    parser.add_argument("--kind", choices=MUSIC, default="band", help="of music")
    options = parser.parse_args()
    recordings = labelled_audio(options.media)
    if options.quick:
        recordings = {path: labels for path, labels in recordings.items() if path.stem not in LONG}
    if not recordings:
        parser.exit(2, f"no labelled audio under {options.media}\n")

    config = DiarizeConfig()
    began = time.perf_counter()
    diarizer = EmbeddedDiarizer(config.clustering_threshold, pick_device(config.device))
    load_s = time.perf_counter() - began
    print(f"networks loaded in {load_s:.1f} s", file=sys.stderr)

    measured, rows = [], []
    for path, labels in recordings.items():
        audio = read_audio(str(path))
        if options.music is not None:
            audio = with_music(audio, options.kind, options.music)
        duration = len(audio) / SAMPLE_RATE
        began = time.perf_counter()
        heard = diarizer.listen(audio)
        turns = tidy(heard.turns, duration, config)
        seconds = time.perf_counter() - began
        measured.append(errors(labels, turns, duration))
        speakers = len({turn.speaker for turn in turns})
        given = {"speakers": speakers, "believed": heard.believed}
        rows.append({"file": path.name, **given, "speed": round(duration / seconds, 1)})
        rows[-1] |= rates(measured[-1:])
        print(_line(rows[-1]), file=sys.stderr, flush=True)
    by_name = {path.stem: row for path, row in zip(recordings, measured, strict=True)}
    groups = {
        "mixes": [row for name, row in by_name.items() if name.endswith("_mix")],
        "later mixes": [row for name, row in by_name.items() if name in LATER],
        "two-person clips": [m for m, path in zip(measured, recordings, strict=True) if path.stem not in LONG],
        "all": measured,
    }
    for name, group in groups.items():
        if group:
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
    speed = (
        f"  {row['speakers']} speakers, {row['believed']} believed, {row['speed']} × real time"
        if "speed" in row
        else ""
    )
    return f"{row['file']!s:32} {figures}{speed}"


if __name__ == "__main__":
    main()

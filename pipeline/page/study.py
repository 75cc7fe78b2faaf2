"""A blind comparison as a page: which trials there are, on which side each clip is shown, and what the page is told.

    FOLDER/key.json          which clip is of which system; people who vote never get it
    FOLDER/page/index.html   what they get: opens by double click
    FOLDER/page/clips/CODE.mp4

Nothing in the page tells systems apart. Codes of clips are a keyed hash whose secret lies in the key; the page lists
trials, and the two clips of each, by code; both clips of a trial have one length and one size in bytes (files are
filled up), and all files one time.

Sides come from *sheets*, of which each person draws one: in a sheet every system is on the left in half of its trials,
and every sheet has a mirrored one, so that every clip is, too. There are few of them on purpose: each tells an analyst
of the page a little of which clips belong together (about two bits), so eight leave thirty trials open.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from visavis.pipeline.page.base import write_page
from visavis.pipeline.page.votes import RECORDED, Clip, Key, Kind, Question, Trial
from visavis.schemas import FPS

PAGE, CLIPS = "page", "clips"
SHEETS = 8
_BOX = 8  # bytes of the smallest box of an mp4
_TIME = 1_577_836_800  # of all files: 2020-01-01
_WRONG: Kind = "jumbled"

QUESTIONS = {
    "listening": "Which avatar listens better?",
    "natural": "Which avatar moves more naturally?",
    "responsive": "Which avatar responds better to what the person says and does?",
    "rich": "Whose face and head are more expressive?",
    "voice": "Whose lips and face fit its own voice better?",
    "overall": "Which avatar would you rather talk with?",
}
"""Questions by name; the first is asked if no other is. They follow what studies of listeners ask: overall preference,
naturalness, responsiveness, richness of motion, fit to the voice."""


def design(
    windows: Sequence[str],
    systems: Sequence[str],
    questions: Sequence[Question],
    *,
    checks: Sequence[str] = (),
    trials: int,
    seed: int,
    ties: bool,
    secret: bytes,
    origin: dict[str, str],
) -> Key:
    """Trials of a study, without figures yet.

    Args:
        windows: keys of windows, from which trials take one after the other; each two systems meet on a window once.
        checks: windows of the attention checks: recorded motion beside motion that is wrong.
        secret: from which codes are made; whoever knows it knows the key.

    Returns: the key, with as many trials as there are, at most `trials`, and then the checks.
    """
    pairs = list(combinations(systems, 2))
    rounds = (
        (window, pairs[(n + turn) % len(pairs)]) for turn in range(len(pairs)) for n, window in enumerate(windows)
    )
    study = _code(secret, "study", "", "")

    def trial(window: str, shown: tuple[str, str], check: Kind = "") -> Trial:
        first, second = (Clip(code=_code(secret, window, "|".join(shown), each), system=each) for each in shown)
        return Trial(code=_code(secret, window, "|".join(shown), ""), window=window, clips=(first, second), check=check)

    made = [trial(window, shown) for window, shown in rounds][:trials]
    made += [trial(window, (RECORDED, _WRONG), _WRONG) for window in checks]
    return Key(
        study=study, seed=seed, ties=ties, systems=tuple(systems), questions=tuple(questions), trials=tuple(made),
        origin=origin,
    )  # fmt: skip


def _code(secret: bytes, *parts: str) -> str:
    return hmac.new(secret, "\0".join(parts).encode(), hashlib.sha256).hexdigest()[:16]


def sheets(key: Key, secret: bytes, count: int = SHEETS) -> list[str]:
    """Of each sheet a letter for each trial as the page lists them: "1" where its second clip by code is left."""
    random = np.random.default_rng(np.frombuffer(hashlib.sha256(b"sheets" + secret).digest(), np.uint32))
    listed = sorted(key.trials, key=lambda trial: trial.code)
    groups: dict[Any, list[int]] = {}
    for n, trial in enumerate(listed):
        groups.setdefault("check" if trial.check else frozenset(clip.system for clip in trial.clips), []).append(n)
    found = []
    for _ in range(count // 2):
        first_left: np.ndarray = np.zeros(len(listed), bool)
        for group in groups.values():
            half = len(group) // 2 + int(random.integers(2)) * (len(group) % 2)
            first_left[random.permutation(group)[:half]] = True
        swapped = [_flipped(trial, bool(left)) for trial, left in zip(listed, first_left, strict=True)]
        found += ["".join("01"[each] for each in swapped), "".join("10"[each] for each in swapped)]
    return found


def _flipped(trial: Trial, first_left: bool) -> bool:
    """Whether the clip whose code comes second is on the left."""
    on_left = trial.clips[0 if first_left else 1].code
    return on_left == max(clip.code for clip in trial.clips)


def told(key: Key, secret: bytes, frames: int) -> dict[str, Any]:
    """All that the page is told."""
    return {
        "study": key.study,
        "ties": key.ties,
        "seconds": frames / FPS,
        "questions": [question.model_dump() for question in key.questions],
        "trials": sorted(
            ({"code": trial.code, "clips": sorted(clip.code for clip in trial.clips)} for trial in key.trials),
            key=lambda each: str(each["code"]),
        ),
        "sheets": sheets(key, secret),
    }


def write_study(
    folder: Path,
    key: Key,
    secret: bytes,
    film: Callable[[Trial, Clip, Path], object],
    frames: int,
    title: str,
    note: str,
) -> None:
    """The page with all its clips.

    Args:
        film: writes a clip to a path; all of them with the same settings.
        frames: of each clip.
        note: shown before the start, as text.
    """
    clips = folder / CLIPS
    clips.mkdir(parents=True)
    for trial in key.trials:
        paths = [clips / f"{clip.code}.mp4" for clip in trial.clips]
        for clip, path in zip(trial.clips, paths, strict=True):
            film(trial, clip, path)
        same_size(paths)
    write_page(
        folder, "index.html", "study.html", ["study.css", "study_player.js", "study.js"],
        title=title, note=note, ties=key.ties, study=told(key, secret, frames),
    )  # fmt: skip
    for path in sorted(folder.rglob("*")):
        os.utime(path, (_TIME, _TIME))


def same_size(paths: Iterable[Path]) -> None:
    """Fill mp4 files up to one size, by a box that players pass over."""
    sizes = {path: path.stat().st_size for path in paths}
    wanted = max(sizes.values()) + _BOX
    for path, size in sizes.items():
        with path.open("ab") as file:
            file.write((wanted - size).to_bytes(4, "big") + b"free" + bytes(wanted - size - _BOX))

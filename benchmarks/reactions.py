"""How well motion follows the rule of its corpus (`benchmarks.listeners`): reactions found in motion, held against it.

A nod is any short dip of the head (or rise, where the rule has them) that is `PROMINENCE` of the rule's least depth
deep, whatever its shape: a peak finder's prominence, not a match with the shape that the rule draws, so that what is
counted is not what was put in. Dips and rises that follow each other within a cycle are one nod. Because any dip
counts, every figure comes with what chance gives:

    recall           share of the user's cues (phrase ends; smiles that begin) that a nod follows at the rule's delay;
                     the truth's is the rule's probability, so more is not better
    chance           the same, held against the cues of other windows
    alarms_min       nods a minute that follow no cue
    nod_delay_ms     mean delay from cue to onset of nods within a second of it, by `scipy`'s peaks
    nod_spread_ms    mean distance of these delays from the rule's; evenly spread nods have about 270
    cycles, upwards  mean number of cycles of a nod, and share of nods that begin upwards
    gain             slope of the avatar's smiles on the user's at the rule's delay, where the avatar listens
    gain_delay_ms    where that slope is largest
    gain_brows       the same slope of the brows, at theirs, where the rule mirrors them
    jaw              correlation of the jaw with the loudness of the own voice, all frames together
    rpcc_expression, rpcc_pose, rpcc_flat_expression, rpcc_flat_pose     as in `training.metrics`

Motion is normalised by nothing here but rPCC, which takes motion in units of the corpus deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from benchmarks.listeners import BROW, CALM, Rule, smile_onsets
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.sample import Sample
from visavis.training.metrics.correlation import rpcc, rpcc_flat
from visavis.training.metrics.windows import columns

PROMINENCE = 2 / 3
"""Of the depth that 95 % of the rule's nods exceed."""
WIDTHS = (1 / 4, 5 / 3)
"""Cycles that a dip lasts, at half its prominence."""
SLACK = 3
"""Frames by which a nod may miss the rule's range of delays and still count."""
MARGIN = 6
"""Frames around the avatar's speech in which it is not taken to be listening."""
_MS = 1000 / FPS


@dataclass(frozen=True)
class Windows:
    """What motion is held against. Motion in codec units, float [W, T, D]."""

    truth: np.ndarray
    user: np.ndarray
    loudness: np.ndarray  # [W, T] of the avatar's voice
    cues: tuple[np.ndarray, ...]  # per window: frames at which the user does what is nodded at
    listens: np.ndarray  # bool [W, T]: the avatar is silent, and was a moment ago
    motion: MotionSpec

    @classmethod
    def of(cls, samples: Sequence[Sample], motion: MotionSpec, rule: Rule) -> Windows:
        audio = np.stack([s.avatar_audio for s in samples]).reshape(len(samples), -1, SAMPLES_PER_FRAME)
        state = np.stack([s.state for s in samples])
        return cls(
            truth=np.stack([s.avatar_motion for s in samples]),
            user=np.stack([s.user_motion for s in samples]),
            loudness=np.sqrt(np.square(audio).mean(axis=2)),
            cues=tuple(cues(sample.state, sample.user_motion, rule) for sample in samples),
            listens=np.stack([far_from((row & 1) > 0) for row in state]),
            motion=motion,
        )


@dataclass(frozen=True)
class Nod:
    apex: int  # frame of its first dip or rise
    cycles: int
    upwards: bool


def cues(state_T: np.ndarray, user_TD: np.ndarray, rule: Rule) -> np.ndarray:
    """Frames at which the user does what the rule nods at, as far as a window shows it."""
    if rule.nod_cause == "smile":
        onsets = smile_onsets(user_TD, rule)
        return np.asarray(onsets[state_T[onsets] & 1 == 0])
    talks = (state_T & 2) > 0
    return np.asarray(np.flatnonzero(talks[:-1] & ~talks[1:]) + 1)


def nods(motion_WTD: np.ndarray, rule: Rule) -> list[list[Nod]]:
    """The nods of each window, in order."""
    kernel = np.array([1, 2, 3, 2, 1]) / 9  # generated motion trembles
    found = []
    for angle in motion_WTD[:, :, rule.nod_column]:
        smooth = np.convolve(np.pad(angle, 2, mode="edge"), kernel, mode="valid")
        turns = [(int(frame), False) for frame in _peaks(-smooth, rule)]
        if rule.nod_upwards:
            turns += [(int(frame), True) for frame in _peaks(smooth, rule)]
        found.append(_grouped(sorted(turns), rule.nod_frames * 5 // 4))
    return found


def _peaks(curve_T: np.ndarray, rule: Rule) -> np.ndarray:
    low, high = (share * rule.nod_frames for share in WIDTHS)
    peaks, _ = find_peaks(
        curve_T, prominence=PROMINENCE * rule.nod_least, width=(low, high), wlen=4 * rule.nod_frames + 1
    )
    return np.asarray(peaks)


def _grouped(turns: list[tuple[int, bool]], gap: int) -> list[Nod]:
    """Nods of turning points, each no more than `gap` frames after the one before; they begin as the first one does."""
    groups: list[list[tuple[int, bool]]] = []
    for turn in turns:
        if groups and turn[0] - groups[-1][-1][0] <= gap:
            groups[-1].append(turn)
        else:
            groups.append([turn])
    return [Nod(g[0][0], sum(up == g[0][1] for _, up in g), g[0][1]) for g in groups]


def measure(motion_WTD: np.ndarray, windows: Windows, rule: Rule) -> dict[str, float]:
    """The figures of the module's text."""
    made_nods = nods(motion_WTD, rule)
    found = [np.array([nod.apex for nod in each], int) for each in made_nods]
    frames = motion_WTD.shape[1]
    recall, alarms = _recall(found, windows.cues, frames, rule)
    shifts = [len(found) * part // 5 for part in (1, 2, 3, 4)]  # none is that of the row `shuffled`
    others = [windows.cues[shift:] + windows.cues[:shift] for shift in shifts]
    delays = _delays(found, windows.cues, frames, rule)
    slopes = [_slope(motion_WTD, windows, rule.smiles, lag) for lag in range(2 * rule.smile_delay + 9)]
    mean, std = np.array(windows.motion.mean), np.array(windows.motion.std)
    truth, made, user = ((part - mean) / std for part in (windows.truth, motion_WTD, windows.user))
    valid = np.ones(truth.shape[:2], bool)
    figures = {
        "recall": recall,
        "chance": float(np.mean([_recall(found, cues, frames, rule)[0] for cues in others])),
        "alarms_min": alarms,
        "nod_delay_ms": _mean(delays) * _MS,
        "nod_spread_ms": _mean(np.abs(delays - rule.nod_mean_delay)) * _MS,
        "cycles": _mean([nod.cycles for each in made_nods for nod in each]),
        "upwards": _mean([nod.upwards for each in made_nods for nod in each]),
        "gain": slopes[rule.smile_delay],
        "gain_delay_ms": float(np.argmax(slopes)) * _MS,
        "jaw": _correlation(motion_WTD[:, :, rule.jaw], windows.loudness),
    }
    if rule.brow_gain:
        figures["gain_brows"] = _slope(motion_WTD, windows, (BROW,), rule.brow_delay)
    for part, chosen in columns(windows.motion).items():
        sides = truth[..., chosen], made[..., chosen], user[..., chosen], valid
        figures |= {f"rpcc_{part}": rpcc(*sides), f"rpcc_flat_{part}": rpcc_flat(*sides)}
    return figures


def baselines(windows: Windows) -> dict[str, np.ndarray]:
    """What costs nothing: the reference motion of this corpus is 0 throughout."""
    return {
        "ground_truth": windows.truth,
        "hold_still": np.zeros_like(windows.truth),
        "copy_user": windows.user,
        "mean_motion": np.broadcast_to(np.asarray(windows.motion.mean, np.float32), windows.truth.shape),
        "shuffled": np.roll(windows.truth, len(windows.truth) // 2, axis=0),
    }


def _recall(found: Sequence[np.ndarray], cues: Sequence[np.ndarray], frames: int, rule: Rule) -> tuple[float, float]:
    """Share of cues with a nod at the rule's delay, and nods a minute without a cue.

    Cues whose answer would lie beyond the window do not count; nor do nods so early that their cause may lie before it.
    """
    low = rule.nod_delay[0] + rule.nod_frames // 2 - SLACK
    high = rule.nod_delay[1] + rule.nod_frames // 2 + SLACK
    if rule.hum_probability is not None:
        low = min(low, rule.nod_frames // 2)
    unseen = high + (CALM if rule.nod_cause == "smile" else 0)
    due = answered = alarms = 0
    for apexes, window_cues in zip(found, cues, strict=True):
        lags = apexes[:, None] - window_cues[None, :]
        meets = (lags >= low) & (lags <= high)
        whole = window_cues + high + rule.nod_frames // 2 < frames
        due += int(whole.sum())
        answered += int((meets.any(axis=0) & whole).sum())
        alarms += int((~meets.any(axis=1) & (apexes > unseen)).sum())
    minutes = len(found) * max(1, frames - unseen) / FPS / 60
    return answered / max(1, due), alarms / minutes


def _delays(found: Sequence[np.ndarray], cues: Sequence[np.ndarray], frames: int, rule: Rule) -> np.ndarray:
    """Frames from cue to onset of the first nod within a second, float [N]."""
    delays = []
    for apexes, window_cues in zip(found, cues, strict=True):
        for cue in window_cues[window_cues + FPS + rule.nod_frames // 2 < frames]:
            onsets = apexes + 0.5 - rule.nod_frames / 2 - cue
            near = onsets[(onsets >= 0) & (onsets <= FPS)]
            delays += near[:1].tolist()
    return np.array(delays)


def _slope(motion_WTD: np.ndarray, windows: Windows, columns: Sequence[int], lag: int) -> float:
    """Slope of the avatar's columns on those of the user `lag` frames earlier."""
    frames = motion_WTD.shape[1]
    listens = windows.listens[:, lag:]
    up = down = 0.0
    for column in columns:
        avatar = motion_WTD[:, lag:, column][listens].astype(np.float64)
        user = windows.user[:, : frames - lag, column][listens].astype(np.float64)
        user = user - user.mean()
        up, down = up + float(avatar @ user), down + float(user @ user)
    return up / down if down else 0.0


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if one.std() < 1e-6 or other.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def far_from(speaks_T: np.ndarray) -> np.ndarray:
    return np.asarray(np.convolve(speaks_T, np.ones(2 * MARGIN + 1), mode="same") < 0.5)

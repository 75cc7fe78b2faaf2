"""How well motion follows the rule of `benchmarks.reactive`: reactions found in motion, and held against the rule.

A nod is any short dip of the head's pitch that is `PROMINENCE` of the rule's depth deep, whatever its shape: a peak
finder's prominence, not a match with the shape that the rule draws, so that what is counted is not what was put in.
Because any dip counts, every figure comes with what chance gives:

    recall           share of the user's phrase ends that a nod follows at the rule's delay; the truth's is the
                     rule's probability, so more is not better
    chance           the same, held against the phrase ends of other windows
    alarms_min       nods a minute that follow no phrase end
    nod_delay_ms     mean delay from phrase end to onset of nods within a second of it, by `scipy`'s peaks
    nod_spread_ms    mean distance of these delays from the rule's mean; evenly spread nods have about 270
    gain             slope of the avatar's smiles on the user's at the rule's delay, where the avatar listens
    gain_delay_ms    where that slope is largest
    jaw              correlation of the jaw with the loudness of the own voice, all frames together
    rpcc_expression, rpcc_pose, rpcc_flat_expression, rpcc_flat_pose     as in `training.metrics`

Motion is normalised by nothing here but rPCC, which takes motion in units of the corpus deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from benchmarks.reactive import JAW, PITCH, SMILES, Rule
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.sample import Sample
from visavis.training.metrics import columns, rpcc, rpcc_flat

PROMINENCE = 0.5
WIDTHS = (3, 20)
"""Frames that a dip lasts, at half its prominence."""
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
    ends: tuple[np.ndarray, ...]  # per window: frames at which phrases of the user end
    listens: np.ndarray  # bool [W, T]: the avatar is silent, and was a moment ago
    motion: MotionSpec

    @classmethod
    def of(cls, samples: Sequence[Sample], motion: MotionSpec) -> Windows:
        audio = np.stack([s.avatar_audio for s in samples]).reshape(len(samples), -1, SAMPLES_PER_FRAME)
        state = np.stack([s.state for s in samples])
        talks = (state & 2) > 0
        return cls(
            truth=np.stack([s.avatar_motion for s in samples]),
            user=np.stack([s.user_motion for s in samples]),
            loudness=np.sqrt(np.square(audio).mean(axis=2)),
            ends=tuple(np.flatnonzero(t[:-1] & ~t[1:]) + 1 for t in talks),
            listens=np.stack([far_from((row & 1) > 0) for row in state]),
            motion=motion,
        )


def nods(motion_WTD: np.ndarray, rule: Rule) -> tuple[np.ndarray, ...]:
    """Per window, the frames of the lowest points of nods."""
    kernel = np.array([1, 2, 3, 2, 1]) / 9  # generated motion trembles
    found = []
    for pitch in motion_WTD[:, :, PITCH]:
        smooth = np.convolve(np.pad(pitch, 2, mode="edge"), kernel, mode="valid")
        peaks, _ = find_peaks(-smooth, prominence=PROMINENCE * rule.nod_depth, width=WIDTHS)
        found.append(peaks)
    return tuple(found)


def measure(motion_WTD: np.ndarray, windows: Windows, rule: Rule) -> dict[str, float]:
    """The figures of the module's text."""
    found = nods(motion_WTD, rule)
    frames = motion_WTD.shape[1]
    recall, alarms = _recall(found, windows.ends, frames, rule)
    shifts = [len(found) * part // 5 for part in (1, 2, 3, 4)]  # none is that of the row `shuffled`
    others = [windows.ends[shift:] + windows.ends[:shift] for shift in shifts]
    delays = _delays(found, windows.ends, frames, rule)
    slopes = [_slope(motion_WTD, windows, lag) for lag in range(2 * rule.smile_delay + 9)]
    mean, std = np.array(windows.motion.mean), np.array(windows.motion.std)
    truth, made, user = ((part - mean) / std for part in (windows.truth, motion_WTD, windows.user))
    valid = np.ones(truth.shape[:2], bool)
    figures = {
        "recall": recall,
        "chance": float(np.mean([_recall(found, ends, frames, rule)[0] for ends in others])),
        "alarms_min": alarms,
        "nod_delay_ms": float(np.mean(delays)) * _MS if len(delays) else float("nan"),
        "nod_spread_ms": float(np.mean(np.abs(delays - rule.nod_mean_delay))) * _MS if len(delays) else float("nan"),
        "gain": slopes[rule.smile_delay],
        "gain_delay_ms": float(np.argmax(slopes)) * _MS,
        "jaw": _correlation(motion_WTD[:, :, JAW], windows.loudness),
    }
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


def _recall(found: Sequence[np.ndarray], ends: Sequence[np.ndarray], frames: int, rule: Rule) -> tuple[float, float]:
    """Share of phrase ends with a nod at the rule's delay, and nods a minute without a phrase end.

    Ends whose answer would lie beyond the window do not count; nor do nods so early that their cause may lie before it.
    """
    low = rule.nod_delay[0] + rule.nod_frames // 2 - SLACK
    high = rule.nod_delay[1] + rule.nod_frames // 2 + SLACK
    due = answered = alarms = 0
    for apexes, window_ends in zip(found, ends, strict=True):
        lags = apexes[:, None] - window_ends[None, :]
        meets = (lags >= low) & (lags <= high)
        whole = window_ends + high + rule.nod_frames // 2 < frames
        due += int(whole.sum())
        answered += int((meets.any(axis=0) & whole).sum())
        alarms += int((~meets.any(axis=1) & (apexes > high)).sum())
    minutes = len(found) * max(1, frames - high) / FPS / 60
    return answered / max(1, due), alarms / minutes


def _delays(found: Sequence[np.ndarray], ends: Sequence[np.ndarray], frames: int, rule: Rule) -> np.ndarray:
    """Frames from phrase end to onset of the first nod within a second, float [N]."""
    delays = []
    for apexes, window_ends in zip(found, ends, strict=True):
        for end in window_ends[window_ends + FPS + rule.nod_frames // 2 < frames]:
            onsets = apexes + 0.5 - rule.nod_frames / 2 - end
            near = onsets[(onsets >= 0) & (onsets <= FPS)]
            delays += near[:1].tolist()
    return np.array(delays)


def _slope(motion_WTD: np.ndarray, windows: Windows, lag: int) -> float:
    """Slope of the avatar's smiles on those of the user `lag` frames earlier."""
    frames = motion_WTD.shape[1]
    listens = windows.listens[:, lag:]
    up = down = 0.0
    for column in SMILES:
        avatar = motion_WTD[:, lag:, column][listens].astype(np.float64)
        user = windows.user[:, : frames - lag, column][listens].astype(np.float64)
        user = user - user.mean()
        up, down = up + float(avatar @ user), down + float(user @ user)
    return up / down if down else 0.0


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if one.std() < 1e-6 or other.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def far_from(speaks_T: np.ndarray) -> np.ndarray:
    return np.asarray(np.convolve(speaks_T, np.ones(2 * MARGIN + 1), mode="same") < 0.5)

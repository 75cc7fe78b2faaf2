"""What a file says of itself before anything is built: rates, lengths, sizes, channels, a few pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.rows import Media
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.media.audio import read_channels
from visavis.stages.media.video import frames_on_grid

_RATES = {
    "44.1 kHz as 48": 44100 / 48000, "48 kHz as 44.1": 48000 / 44100, "half of the rate": 2.0, "twice the rate": 0.5,
    "22.05 kHz as 16": 22050 / 16000, "16 kHz as 22.05": 16000 / 22050, "25 pictures as 24": 25 / 24,
    "24 pictures as 25": 24 / 25, "30 pictures as 25": 30 / 25, "25 pictures as 30": 25 / 30,
}  # fmt: skip
"""Length of the sound over that of the pictures where a rate is mislabelled."""
_NEAR = 0.004  # by which a length may differ from what a rate would make of it
_APART = 1.0, 0.02  # seconds, and share, by which two files of a conversation may differ in length
_SMALL = 200  # pixels of the shorter side
_LISTEN = 60.0  # seconds in which channels are compared
_DEAD = 1e-8  # mean square
_INVERSE = -0.95  # correlation
_PLACES, _PICTURES = 3, 2 * FPS  # of a file that are looked at
_SIDE = 320  # pixels
_SAME = 0.02  # mean grey levels between two pictures of which nothing moves
_FROZEN, _REPEATED = 0.5, 0.2  # shares of the pictures
_HALVES = 0.97  # correlation of two halves


def judge_one(media: Media) -> Iterator[Sign]:
    """What headers and packets tell of one file."""
    ratio = media.audio_duration / max(media.video_duration, 1e-6)
    name, expected = min(_RATES.items(), key=lambda each: abs(each[1] / ratio - 1) if ratio else np.inf)
    if ratio and abs(ratio - 1) > 0.03 and abs(expected / ratio - 1) < _NEAR:
        said = f"sound is {ratio:.4f} times as long as the pictures, as of {name}"
        yield Sign(Kind.RATE, certainty(_NEAR - abs(expected / ratio - 1), 0, _NEAR), said)
    if min(media.width, media.height) < _SMALL:
        said = f"{media.width} × {media.height} pixels"
        yield Sign(Kind.LOW_RESOLUTION, certainty(_SMALL - min(media.width, media.height), 0, 100), said)


def judge_pair(media: Sequence[Media]) -> Iterator[Sign]:
    """Two files of one conversation."""
    if len(media) != 2:
        return
    lengths = [max(each.video_duration, each.audio_duration) for each in media]
    apart, most = abs(lengths[0] - lengths[1]), max(lengths)
    allowed = max(_APART[0], _APART[1] * most)
    if apart > allowed:
        said = f"{lengths[0]:.1f} and {lengths[1]:.1f} s"
        yield Sign(Kind.LENGTHS, certainty(apart, allowed, 5 * allowed), said)


def judge_channels(media: Media) -> Iterator[Sign]:
    """One channel that is dead, or another's inverse; both are mended when the sound is mixed, and mean something."""
    count, products = 0, np.zeros((2, 2))
    for piece_CN in read_channels(media, _LISTEN):
        if len(piece_CN) == 2:
            centred_CN = piece_CN - piece_CN.mean(axis=1, keepdims=True)
            products += centred_CN.astype(np.float64) @ centred_CN.T
            count += piece_CN.shape[1]
    if not count:
        return
    power = np.diag(products) / count
    if power.max() > 1e-6 and power.min() < _DEAD:
        yield Sign(Kind.DEAD_TRACK, 0.95, f"channel {int(power.argmin()) + 1} of 2 is silent")
    elif power.min() > _DEAD and (alike := products[0, 1] / np.sqrt(products[0, 0] * products[1, 1])) < _INVERSE:
        yield Sign(Kind.INVERTED, certainty(-alike, -_INVERSE, 0.999), f"both channels correlate by {alike:.2f}")


def judge_pictures(media: Media, frames: int) -> Iterator[Sign]:
    """A few stretches of pictures: do they change, and are both halves different? frames: of the 25 fps grid."""
    changes, halves = list[float](), list[tuple[float, float]]()
    for place in range(_PLACES):
        first = max(0, (2 * place + 1) * frames // (2 * _PLACES) - _PICTURES // 2)
        span = frames_on_grid(media.uri, first, min(frames, first + _PICTURES), max_side=_SIDE, witness=media.witness)
        grey = [rgb.mean(axis=2, dtype=np.float32) for _, rgb in islice(span, _PICTURES)]
        changes += [float(np.abs(after - before).mean()) for before, after in pairwise(grey)]
        halves += [_halves(grey[0])] if grey else []
    if changes:
        yield from _moving(np.array(changes), media.fps)
    if halves:
        yield from _different(np.array(halves))


def _moving(change_N: np.ndarray, fps: float) -> Iterator[Sign]:
    still = float((change_N < _SAME).mean())
    expected = max(0.0, 1 - fps / FPS)  # a file of fewer pictures shows some twice, and says so
    if still > _FROZEN + expected:
        said = f"{100 * still:.0f} % of the pictures are the one before"
        yield Sign(Kind.FROZEN, certainty(still, _FROZEN, 0.95), said)
    elif still > _REPEATED + expected:
        said = f"{100 * still:.0f} % of the pictures are the one before, at {fps:.4g} a second"
        yield Sign(Kind.REPEATED, certainty(still, _REPEATED, 0.5), said)


def _different(halves_N2: np.ndarray) -> Iterator[Sign]:
    same, mirrored = halves_N2.min(axis=0).tolist()
    alike = max(same, mirrored)
    if alike > _HALVES:
        kind = Kind.SAME_FACE if same > mirrored else Kind.MIRRORED
        said = f"both halves of the picture correlate by {alike:.3f}"
        yield Sign(kind, certainty(alike, _HALVES, 0.995), said)


def _halves(grey_HW: np.ndarray) -> tuple[float, float]:
    """Correlation of the left half with the right one, and with that mirrored; of what is quick in space."""
    import cv2

    fine_HW = grey_HW - cv2.GaussianBlur(grey_HW, (0, 0), 6)
    half = fine_HW.shape[1] // 2
    left, right = fine_HW[:, :half].ravel(), fine_HW[:, -half:]
    return _correlation(left, right.ravel()), _correlation(left, right[:, ::-1].ravel())


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    product = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / product if product > 1e-3 * one.size else 0.0

"""What is seen of reactions in motion, and heard of speech, as spans of a timeline.

A nod is a dip of the head that is `NOD` deep and comes up again within a second; a smile, a mouth that is `SMILE` times
as wide as the person's own at rest, for `SMILE_FRAMES` and longer. Of the demo's 122 nods at phrase ends all are found
(what else is found are the speakers' own beats, of 7 degrees); the mouth's width follows the rendered smile with a
correlation of 0.95 to 0.98. Both are for looking at: figures are taken by `training.metrics` and the gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.signal import find_peaks

from visavis.pipeline.view.timeline import Kind, Span
from visavis.schemas import FPS
from visavis.schemas.dyads import Codec
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.rows import Turn
from visavis.stages.face.heads import POSE_DIMS
from visavis.training.runs import runs

NOD = float(np.deg2rad(4.0))
"""Depth of a nod, rad."""
SMILE, SMILE_FRAMES = 1.08, 8
_PITCH = 0  # column of the motion; positive looks down
_WIDTHS = (3, FPS)  # frames that a nod lasts at half its depth
_SMOOTH = np.array([1, 2, 3, 2, 1]) / 9  # generated motion trembles
_CORNERS = (61, 291)  # of the mouth, MediaPipe's landmarks


def reactions(codec: Codec, motion_TD: np.ndarray, neutral_L3: np.ndarray, valid_T: np.ndarray) -> tuple[Span, ...]:
    """Nods, smiles, and where the face is not seen. neutral: of the person who moves."""
    unseen = spans("unseen", ~valid_T)
    return (*nods(motion_TD, valid_T), *smiles(codec, motion_TD, neutral_L3, valid_T), *unseen)


def nods(motion_TD: np.ndarray, valid_T: np.ndarray) -> Iterator[Span]:
    if len(motion_TD) < _WIDTHS[0]:
        return
    smooth_T = np.convolve(np.pad(motion_TD[:, _PITCH].astype(np.float64), 2, mode="edge"), _SMOOTH, mode="valid")
    peaks, found = find_peaks(smooth_T, prominence=NOD, width=_WIDTHS)
    for apex, left, right in zip(peaks, found["left_ips"], found["right_ips"], strict=True):
        if valid_T[apex]:
            yield Span("nod", int(left), int(right) + 1)


def smiles(codec: Codec, motion_TD: np.ndarray, neutral_L3: np.ndarray, valid_T: np.ndarray) -> Iterator[Span]:
    basis_EL3 = codec.basis.reshape(-1, LANDMARKS, 3)[:, _CORNERS].astype(np.float64)
    rest_L3 = (codec.mean.reshape(LANDMARKS, 3) + neutral_L3)[list(_CORNERS)].astype(np.float64)
    corners_TL3 = np.einsum("te,elx->tlx", motion_TD[:, POSE_DIMS:], basis_EL3, optimize=True) + rest_L3
    wide_T = np.linalg.norm(corners_TL3[:, 0] - corners_TL3[:, 1], axis=1)
    own = float(np.linalg.norm(neutral_L3[_CORNERS[0]] - neutral_L3[_CORNERS[1]]))
    return (s for s in spans("smile", (wide_T > SMILE * own) & valid_T) if s.last - s.first >= SMILE_FRAMES)


def speech(state_T: np.ndarray, person: int) -> tuple[Span, ...]:
    """Turns and back-channels of a person, by the bits of `state` (`schemas.sample`: 0 the avatar, 1 the user)."""
    turns, sounds = ((state_T >> bit & 1).astype(bool) for bit in (person, person + 2))
    return (*spans("turn", turns), *spans("backchannel", sounds))


def speech_of_turns(turns: Iterable[Turn], person: int, first: int, last: int) -> tuple[Span, ...]:
    """The same of a conversation's turns, within frames [first, last), counted from `first`."""
    found = []
    for turn in turns:
        begin, end = max(round(turn.start * FPS), first), min(round(turn.end * FPS), last)
        if turn.speaker == person and begin < end:
            found.append(Span("backchannel" if turn.backchannel else "turn", begin - first, end - first))
    return tuple(found)


def spans(kind: Kind, mask_T: np.ndarray) -> list[Span]:
    """Where a mask holds."""
    return [Span(kind, first, last) for first, last in runs(mask_T)]


def within(found: Sequence[Span], first: int, last: int) -> tuple[Span, ...]:
    """What lies in frames [first, last), counted from `first`."""
    cut = (Span(s.kind, max(s.first, first) - first, min(s.last, last) - first) for s in found)
    return tuple(span for span in cut if span.first < span.last)

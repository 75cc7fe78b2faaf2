"""Whose lips move while somebody is heard."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from visavis.schemas import FPS
from visavis.schemas.rows import Turn
from visavis.stages.face.lips import (
    LipModel,
    fit_lips,
    fit_lips_by_diarizer,
    lip_contest,
    lip_evidence,
    lip_motion,
    unseen_share,
)
from visavis.stages.media.audio import speech_state
from visavis.stages.voice.attribution import labels_heard

FRAMES = 40 * FPS
TURNS = tuple(Turn(speaker=i % 2, start=4.0 * i + 0.2, end=4.0 * i + 3.8) for i in range(10))


def mouth(spoken_T: np.ndarray, seed: int, restless: float = 0.0) -> np.ndarray:
    """Opening of lips that talk in the given frames, and move `restless` times as much in all others."""
    rng = np.random.default_rng(seed)
    syllables_T = np.abs(gaussian_filter1d(rng.normal(size=len(spoken_T)), 1.5))
    return 0.1 * syllables_T * np.where(spoken_T, 1.0, restless) + rng.normal(0, 0.001, len(spoken_T))


def evidence(turns: tuple[Turn, ...], lips_of: tuple[Turn, ...] = TURNS, *, restless: float = 0.0) -> np.ndarray:
    """[P, T] for people whose lips move in the turns `lips_of` while `turns` are what is heard."""
    state_T = speech_state(lips_of, FRAMES)
    motion_PT = np.stack([lip_motion(mouth((state_T >> p & 1) > 0, p, restless)) for p in (0, 1)])
    return lip_evidence(motion_PT, fit_lips(motion_PT, labels_heard(turns, FRAMES).sum(axis=0)))


def test_a_voice_from_elsewhere_moves_nobodys_lips() -> None:
    narrated = tuple(turn for turn in TURNS if turn.speaker == 0)
    found = evidence(TURNS, narrated)
    assert unseen_share(TURNS, found) == pytest.approx(0.5, abs=0.05)
    assert unseen_share(TURNS, found, 0) < 0.1
    assert unseen_share(TURNS, found, 1) > 0.9
    assert unseen_share(narrated, found) < 0.1


def test_a_listener_who_hums_with_closed_lips_is_not_missing() -> None:
    hums = (Turn(speaker=0, start=1, end=20), Turn(speaker=1, start=22, end=22.5), Turn(speaker=1, start=25, end=25.6))
    found = evidence(hums, hums[:1])
    assert unseen_share(hums, found, 1) == 0.0


def test_lips_out_of_sight_say_nothing() -> None:
    motion_PT = np.full((2, FRAMES), np.nan)
    found = lip_evidence(motion_PT, fit_lips(motion_PT, labels_heard(TURNS, FRAMES).sum(axis=0)))
    assert not found.any()
    assert unseen_share(TURNS, found) == 0.0


def mumbler() -> np.ndarray:
    """[P, T] motion of somebody who talks with wide lips and rests still, and of one who hardly moves them at all."""
    rng = np.random.default_rng(5)
    state_T = speech_state(TURNS, FRAMES)
    wide_T = np.where(state_T == 1, rng.normal(-4.0, 0.5, FRAMES), rng.normal(-5.6, 0.2, FRAMES))
    return np.stack([wide_T, np.where(state_T == 2, -5.4, -5.5) + rng.normal(0, 0.15, FRAMES)])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_mumbler_is_heard_by_the_stillness_of_the_other(order: tuple[int, int]) -> None:
    motion_PT, heard_KT = mumbler(), labels_heard(TURNS, FRAMES)
    lips = lip_contest(motion_PT, fit_lips_by_diarizer(motion_PT, heard_KT[list(order)], 3.5))
    lead_T = lips[0] - lips[1]
    assert lead_T[heard_KT[0]].mean() > 0 > lead_T[heard_KT[1]].mean()


def test_the_labels_of_an_ear_in_doubt_teach_lips_nothing() -> None:
    motion_PT, heard_KT = mumbler(), labels_heard(TURNS, FRAMES)
    alone = fit_lips(motion_PT, heard_KT.sum(axis=0), contest=True)
    for labels_KT, odds in ((heard_KT, -2.8), (heard_KT.any(axis=0, keepdims=True), 3.5)):
        by_diarizer = fit_lips_by_diarizer(motion_PT, labels_KT, odds)
        if odds < 0:
            np.testing.assert_allclose(by_diarizer.mean, alone.mean)
        assert np.isfinite(by_diarizer.deviation).all()


def test_a_mouth_that_laughs_does_not_beat_one_that_talks() -> None:
    model = LipModel(np.tile([-5.0, -3.5], (2, 1)), np.tile([0.7, 0.5], (2, 1)))
    talking, laughing = lip_contest(np.array([[-3.5], [-1.0]]), model)
    assert talking == laughing > 0
    assert lip_contest(np.full((2, 1), -9.0), model) == pytest.approx(lip_contest(np.full((2, 1), -5.0), model))

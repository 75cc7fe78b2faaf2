"""Weights of groups of columns in the flow loss, and windows without a user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.synthetic import sample
from visavis.schemas.coefficients import coefficient_spec
from visavis.schemas.errors import UsageError
from visavis.schemas.train import ObjectiveConfig
from visavis.training.loader import collate
from visavis.training.objective import group_weights, has_user

FLAME = coefficient_spec("flame-exp50-jaw3-pose3", np.zeros(56), np.ones(56))


def test_a_groups_weight_is_that_of_its_columns_and_the_mean_stays_one() -> None:
    weight = group_weights(FLAME, ObjectiveConfig(groups={"jaw": 4.0, "exp": 0.5}))
    assert weight is not None
    assert weight.mean() == pytest.approx(1)
    assert (weight[50] / weight[0]).item() == pytest.approx(8)
    assert (weight[53] / weight[50]).item() == pytest.approx(0.25)
    assert group_weights(FLAME, ObjectiveConfig()) is None
    with pytest.raises(UsageError, match="every weight is 0"):
        group_weights(FLAME, ObjectiveConfig(groups=dict.fromkeys(("exp", "jaw", "pose"), 0.0)))
    with pytest.raises(UsageError, match="has no mouth; it has exp, jaw, pose"):
        group_weights(FLAME, ObjectiveConfig(groups={"mouth": 1.0}))


def test_a_window_has_a_user_who_is_seen_or_heard() -> None:
    both = sample(0)
    unseen = replace(both, valid=np.stack([both.valid[:, 0], np.zeros(50, bool)], axis=1))
    nobody = replace(unseen, user_audio=np.zeros_like(both.user_audio))
    assert has_user(collate([both, unseen, nobody])).tolist() == [True, True, False]

"""The noise that made a motion is worked out again from its pair's record."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.conftest import small_model
from tests.training.preferences.made import pairs_of, record
from tests.training.synthetic import DIM
from visavis.schemas.errors import UsageError
from visavis.schemas.train import DpoConfig, Mask, SamplerConfig, TrainConfig
from visavis.training.flow import draw_noise
from visavis.training.preferences.seam import Preference
from visavis.training.preferences.tracked import check_tracked, chosen_seed
from visavis.training.sampler import rollout

FRAMES = 23  # not a whole number of blocks


def tracking(model) -> Preference:
    return Preference(TrainConfig(dpo=DpoConfig(objective="tracked")), model)


@pytest.mark.parametrize("mask", ["block", "full"])
def test_one_long_step_from_the_tracked_noise_is_the_motion_that_was_sampled(mask: Mask):
    """A model whose velocity is a constant: what is sampled is the noise plus that, so the noise shows."""
    model = small_model(mask)
    with torch.no_grad():
        model.velocity.weight.zero_()
        model.velocity.bias.copy_(torch.linspace(-1, 1, DIM))
    pairs = pairs_of(FRAMES)
    records = tuple(
        record(0.1, window=window, sampler=SamplerConfig(seed=seed)) for window, seed in (("w1", 4), ("w2", 9))
    )
    made = []
    for n, each in enumerate(records):
        sampler = SamplerConfig(steps=1, guidance="none", seed=each.sampler.seed)
        one = [part[n : n + 1] for part in (pairs.avatar_audio, pairs.user_audio, pairs.user_motion, pairs.reference)]
        made.append(rollout(model, *one, sampler, [each.window])[0])
    drawn = draw_noise((2, FRAMES, DIM), 5, torch.Generator().manual_seed(0))
    chosen, rejected = tracking(model).noise(replace(pairs, records=records), drawn)
    torch.testing.assert_close(rejected.x0 + model.velocity.bias, model.normalise(torch.stack(made)))
    assert chosen.x0.equal(drawn.x0)  # recorded: no noise made it
    assert chosen.t.equal(drawn.t)
    assert rejected.t.equal(drawn.t)


def test_a_generated_chosen_side_is_tracked_too():
    pairs, drawn = pairs_of(FRAMES), draw_noise((2, FRAMES, DIM), 5, torch.Generator().manual_seed(0))
    records = (record(0.1, chosen="full"), record(0.1, chosen="best", chosen_seed=3))
    chosen, rejected = tracking(small_model()).noise(replace(pairs, records=records), drawn)
    assert chosen.x0[0].equal(rejected.x0[0])  # both sides from the same noise
    assert not chosen.x0[1].equal(rejected.x0[1])
    assert [chosen_seed(each) for each in (*records, record(0.1))] == [0, 3, None]


def test_pairs_of_another_model_are_refused():
    info = record(0.1)
    check_tracked(info, "0" * 64)
    with pytest.raises(UsageError, match=r"needs pairs whose rejected side the initial checkpoint \(1{12}\) made"):
        check_tracked(info, "1" * 64)
    with pytest.raises(UsageError, match="people voted on"):
        check_tracked(record(0.1, chosen="voted", rejected="voted"), "0" * 64)
    with pytest.raises(UsageError, match="nobody knows who did"):
        check_tracked(None, "1" * 64)

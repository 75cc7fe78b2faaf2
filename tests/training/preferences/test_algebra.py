"""Every objective against its equation, written once more in float64; where its gradient is zero; its limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.preferences.made import compared, record
from tests.training.synthetic import DIM
from visavis.schemas.train import DpoConfig, ObjectiveConfig, Preferences, TrainConfig
from visavis.training.flow import Noise
from visavis.training.preferences.nft import rewards
from visavis.training.preferences.pairs import Compared, sizes
from visavis.training.preferences.seam import OBJECTIVES
from visavis.training.preferences.segments import span_numbers

BETA = 3.0
EVERY: tuple[Preferences, ...] = tuple(OBJECTIVES)


def recipe(**dpo: Any) -> TrainConfig:
    return TrainConfig(dpo=DpoConfig(beta=BETA, **{"group_spans": False} | dpo), objective=ObjectiveConfig(norm="l2"))


def loss_of(name: Preferences, given: Compared, **dpo: Any) -> torch.Tensor:
    return OBJECTIVES[name](given, recipe(objective=name, **dpo))[0]


def gradient(name: Preferences, given: Compared, **dpo: Any) -> torch.Tensor:
    """With respect to the policy's velocity on both sides, [2, B, T, D]."""
    loss = loss_of(name, given, **dpo)
    sides = torch.autograd.grad(loss, given.policy_offsets, allow_unused=True, retain_graph=True)
    return torch.stack([torch.zeros_like(given.policy_offsets[0]) if side is None else side for side in sides])


def at_the_start(**changes: Any) -> Compared:
    """The policy is the reference."""
    made = compared(**changes)
    assert made.reference_offsets is not None
    chosen, rejected = made.reference_offsets
    policy = (chosen.clone().requires_grad_(), rejected.clone().requires_grad_())
    return replace(made, policy_offsets=policy, policy=sizes(policy, "l1"))


# --- the equations, by hand


def numbers(given: Compared) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets of (policy, reference) on (chosen, rejected), [2, 2, B, T, D]; gains on both sides [2, B, T]; mask."""
    assert given.reference_offsets is not None
    offsets = np.stack(
        [[side.detach().numpy() for side in who] for who in (given.policy_offsets, given.reference_offsets)]
    )
    errors = np.abs(offsets).mean(axis=-1)
    return offsets, errors[1] - errors[0], given.valid.numpy()


def softplus(x: np.ndarray) -> np.ndarray:
    """−log σ(−x)."""
    return np.logaddexp(0, x)


def mean(value: np.ndarray, mask: np.ndarray) -> float:
    return float(value[mask].mean())


def dpo(given: Compared) -> float:
    _, gain, mask = numbers(given)
    return mean(softplus(-BETA * (gain[0] - gain[1])), mask)


def anchored(given: Compared) -> float:
    offsets, _, mask = numbers(given)
    return dpo(given) + 0.7 * mean(np.square(offsets[0, 0]).mean(axis=-1), mask)


def adaptive(given: Compared) -> float:
    offsets, gain, mask = numbers(given)
    before = np.abs(offsets[1, 0]).mean(axis=-1)
    terms = []
    for b in range(len(mask)):
        rise = -gain[0, b][mask[b]].sum() / before[b][mask[b]].sum()
        alpha = math.exp(-rise / 0.02) if rise > 0 else 1.0
        terms.append(softplus(-BETA * (gain[0, b] - alpha * gain[1, b])))
    return mean(np.stack(terms), mask)


def clipped(given: Compared) -> float:
    _, gain, mask = numbers(given)
    level = given.noise[0].t.numpy()
    total = 0.0
    for b, n in np.argwhere(mask):
        w = min(max(math.exp(BETA * (gain[0, b, n] + gain[1, b, n]) / 2), 0.9), 1.1)
        if 0.2 <= level[b, n] <= 0.7:
            total += w * float(softplus(-BETA * (gain[0, b, n] - gain[1, b, n])))
    return total / mask.sum()


def segments(given: Compared) -> float:
    _, gain, mask = numbers(given)
    total = 0.0
    for b in range(len(mask)):
        for first in range(0, mask.shape[1], 4):  # 0.16 s
            span = slice(first, first + 4)
            counted = mask[b, span]
            if counted.any():
                margin = (gain[0] - gain[1])[b, span][counted].mean()
                total += counted.sum() * float(softplus(-BETA * margin))
    return total / mask.sum()


HEAD, FACE = (0, 1, 5), tuple(n for n in range(DIM) if n not in (0, 1, 5))


def groups(given: Compared) -> float:
    offsets, _, mask = numbers(given)
    terms = []
    for columns in (HEAD, FACE):
        errors = np.abs(offsets[..., columns]).mean(axis=-1)
        gain = errors[1] - errors[0]
        terms.append(mean(softplus(-BETA * (gain[0] - gain[1])), mask))
    return float(np.mean(terms))


def kept(given: Compared) -> float:
    """The head is taught by half, the face stays as the reference has it; on two sides, five times."""
    offsets, _, mask = numbers(given)
    moved = np.square(offsets[0] - offsets[1])[..., FACE].sum(axis=-1) / DIM
    return 5 * mean(moved.mean(axis=0), mask)


def contrastive(given: Compared) -> float:
    _, gain, mask = numbers(given)
    return mean(softplus(-BETA * gain[0]) + 0.4 * softplus(BETA * gain[1]), mask)


def nft(given: Compared) -> float:
    """Rewards of margins 0.3 and −0.1 at a scale of 0.5: .8 and .4."""
    offsets, _, mask = numbers(given)
    v, ref = offsets[0], offsets[1]  # what is right is 0
    plus, minus = (1 - 0.3) * ref + 0.3 * v, (1 + 0.3) * ref - 0.3 * v
    r = np.stack([np.array([0.8, 0.4]), np.array([0.2, 0.6])])[..., None]
    per_frame = r * np.square(plus).mean(axis=-1) + (1 - r) * np.square(minus).mean(axis=-1)
    return mean(per_frame.sum(axis=0), mask)


BY_HAND: dict[Preferences, tuple[Callable[[Compared], float], dict[str, Any]]] = {
    "dpo": (dpo, {}),
    "tracked": (dpo, {}),
    "anchored": (anchored, {"anchor": 0.7}),
    "adaptive": (adaptive, {"tolerance": 0.02}),
    "clipped": (clipped, {"clip": 0.1, "levels": (0.2, 0.7)}),
    "segments": (segments, {"span": 0.16}),
    "groups": (groups, {}),
    "contrastive": (contrastive, {"contrast": 0.4}),
    "nft": (nft, {"nft_beta": 0.3, "reward_scale": 0.5}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", EVERY)
def test_an_objective_is_its_equation(name: Preferences, seed: int):
    by_hand, settings = BY_HAND[name]
    given = compared(seed=seed, groups={"head": HEAD, "face": FACE}, group_weights={"head": 0.5, "face": 0.5})
    assert loss_of(name, given, **settings).item() == pytest.approx(by_hand(given), rel=1e-6)  # levels are float32


@pytest.mark.parametrize("weights", [{"head": 0.3, "face": 0.0}, {"head": 0.3}])
def test_groups_that_weigh_nothing_are_kept_as_the_reference_has_them(weights: dict[str, float]):
    """Whether their weight is 0 or they are not named."""
    columns = {name: dims for name, dims in {"head": HEAD, "face": FACE}.items() if name in weights}
    given = compared(groups=columns, group_weights=weights)
    alone = compared(groups={"head": HEAD}, group_weights={"head": 0.3})
    taught = loss_of("groups", alone, keep=0.0)
    assert loss_of("groups", given, keep=5.0).item() == pytest.approx(taught.item() + kept(given), rel=1e-6)
    assert loss_of("groups", given, keep=0.0) == taught
    face = [n for n in range(DIM) if n in FACE]
    assert (gradient("groups", given, keep=0.0)[..., face] == 0).all()
    start = at_the_start(groups=columns, group_weights=weights)
    assert (gradient("groups", start, keep=5.0)[..., face] == 0).all(), "at the start nothing has moved"
    assert gradient("groups", given, keep=5.0)[:, given.valid][..., face].abs().min() > 0


@pytest.mark.parametrize("name", EVERY)
def test_frames_that_are_not_compared_neither_count_nor_pull(name: Preferences):
    given = compared()
    found = gradient(name, given, span=0.16)
    assert (found[:, ~given.valid] == 0).all()
    assert found[:, given.valid].abs().sum() > 0
    nothing = replace(given, valid=torch.zeros_like(given.valid))
    assert loss_of(name, nothing).item() == 0
    assert (gradient(name, nothing) == 0).all()


@pytest.mark.parametrize("name", EVERY)
def test_at_the_start_the_chosen_side_is_pulled_and_the_rejected_pushed(name: Preferences):
    given = at_the_start()
    towards = gradient(name, given, reward="sides", levels=(0, 1))
    moves = [(side * off).sum().item() for side, off in zip(towards, given.policy_offsets, strict=True)]
    assert moves[0] > 0  # a step down the gradient makes the chosen side's offset smaller …
    assert moves[1] < 0  # … and the rejected side's larger


# --- limits


LIMITS: dict[str, tuple[Preferences, dict[str, Any]]] = {
    "no anchor": ("anchored", {"anchor": 0.0}),
    "any rise is tolerated": ("adaptive", {"tolerance": 1e15}),
    "every level, no weights": ("clipped", {"clip": 0.0, "levels": (0.0, 1.0)}),
    "spans of a frame": ("segments", {"span": 0.04}),
    "one group": ("groups", {}),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_at_its_limit_an_objective_is_plain_dpo(limit: str):
    name, settings = LIMITS[limit]
    given = compared()
    torch.testing.assert_close(loss_of(name, given, **settings), loss_of("dpo", given), rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(name, given, **settings), gradient("dpo", given), rtol=1e-9, atol=1e-15)


def test_one_group_of_spans_is_segments():
    given, settings = compared(), {"span": 0.16}
    spans = {"groups": (), "group_spans": True}
    torch.testing.assert_close(loss_of("groups", given, **settings, **spans), loss_of("segments", given, **settings))
    found, expected = gradient("groups", given, **settings, **spans), gradient("segments", given, **settings)
    torch.testing.assert_close(found, expected)
    two = replace(given, groups={"head": HEAD, "face": FACE}, group_weights={"head": 0.5, "face": 0.5})
    assert loss_of("groups", two, **settings, **spans) != loss_of("groups", two, **settings)


def test_contrastive_begins_as_plain_dpo():
    given = at_the_start()
    assert loss_of("contrastive", given, contrast=1.0).item() == pytest.approx(2 * math.log(2))
    torch.testing.assert_close(gradient("contrastive", given, contrast=1.0), gradient("dpo", given))


def test_nft_begins_as_plain_dpo_of_squares_with_twice_its_beta():
    given = at_the_start()
    squares = replace(given, policy=sizes(given.policy_offsets, "l2"), reference=sizes(given.reference_offsets, "l2"))
    torch.testing.assert_close(
        gradient("nft", given, reward="sides", nft_beta=BETA / 2), gradient("dpo", squares), rtol=1e-9, atol=1e-15
    )


def test_nft_with_even_rewards_leads_back_to_the_reference():
    even = replace(compared().pairs, records=(record(0.0), record(0.0)))
    start = replace(at_the_start(), pairs=even)
    assert gradient("nft", start).abs().max() < 1e-15
    elsewhere = replace(compared(), pairs=even)
    assert elsewhere.reference_offsets is not None
    away = torch.stack([p - r for p, r in zip(elsewhere.policy_offsets, elsewhere.reference_offsets, strict=True)])
    back = gradient("nft", elsewhere)
    assert (back * away)[:, elsewhere.valid].min() >= 0


def test_nft_with_all_rewards_on_a_side_is_supervised():
    """β = 1, r = 1: the flow loss of the chosen side, and nothing of the reference is left in it."""
    given = compared()
    found = gradient("nft", given, reward="sides", nft_beta=1.0)[0]
    count = given.valid.sum() * DIM
    expected = 2 * given.policy_offsets[0].detach() * given.valid[..., None] / count
    torch.testing.assert_close(found, expected)


# --- what pairs say


def test_rewards_follow_the_margin_up_to_the_scale():
    records = [record(0.0), record(0.25), record(5.0), record(-5.0), record(0.0, scores=(7.0, 6.75))]
    found = rewards(records, DpoConfig(reward_scale=0.5))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.75, 1.0, 0.0, 0.75]))
    assert rewards(records, DpoConfig(reward="sides")).tolist() == [1.0] * 5


def test_turns_begin_spans():
    given = compared(8)
    state = torch.tensor([[2, 2, 0, 0, 2, 3, 1, 1], [0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.uint8)
    found = span_numbers(state, DpoConfig(spans="turns"))
    assert found.tolist() == [[0, 0, 0, 0, 1, 2, 2, 2], [0] * 8]
    one = replace(given, pairs=replace(given.pairs, state=torch.zeros_like(state)), valid=torch.ones_like(given.valid))
    _, gain, _ = numbers(one)
    margins = (gain[0] - gain[1]).mean(axis=1)  # a window in which nobody begins is one span
    assert loss_of("segments", one, spans="turns").item() == pytest.approx(softplus(-BETA * margins).mean())


def test_the_rejected_side_is_let_go_where_the_chosen_one_gets_worse():
    """Of two pairs one has got worse on its chosen side by a tenth: its rejected side is hardly pushed any more."""
    given = at_the_start()
    chosen = given.policy_offsets[0].detach().clone()
    chosen[0] *= 1.1
    policy = (chosen.requires_grad_(), given.policy_offsets[1])
    worse = replace(given, policy_offsets=policy, policy=sizes(policy, "l1"))
    plain, guarded = gradient("dpo", worse), gradient("adaptive", worse, tolerance=0.01)
    assert guarded[1, 0].abs().sum() < 1e-3 * plain[1, 0].abs().sum()
    torch.testing.assert_close(guarded[1, 1], plain[1, 1])
    assert guarded[0, 0].abs().sum() > 0.5 * plain[0, 0].abs().sum()


def test_levels_that_say_nothing_do_not_pull():
    given = compared()
    level = given.noise[0].t.clone()
    level[0, 0], level[0, 1] = 0.05, 0.95
    noise = Noise(given.noise[0].x0, level)
    found = gradient("clipped", replace(given, noise=(noise, noise)))
    assert (found[:, 0, :2] == 0).all()
    assert found.abs().sum() > 0

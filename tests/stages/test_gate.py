"""The gate: who reacts, who is broken, and what reference statistics may not know."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.training.synthetic import DELAY, NOD, SMILE, SPEC, sample, smooth
from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import Histogram
from visavis.schemas.pairs import GateConfig
from visavis.schemas.sample import Sample
from visavis.stages.pairing.gate import histogram_counts, histograms, reasons_left_out
from visavis.stages.pairing.measurements import (
    Expected,
    Measurements,
    ReferenceStatistics,
    Windows,
    fold_of,
    measure,
    normalised,
    unit,
)
from visavis.stages.pairing.reference_statistics import learn

FRAMES = 50


def windows_of(seeds: range) -> list[Sample]:
    """Listening windows that follow the rule, each of a conversation of its own; the user's turns can be seen."""
    found = []
    for seed in seeds:
        window = sample(seed)
        spoken = np.array([np.abs(part).max() > 1e-3 for part in window.user_audio.reshape(FRAMES, -1)])
        found.append(replace(window, state=np.where(spoken, 2, 0).astype(np.uint8)))
    return found


@pytest.fixture(scope="module")
def reference() -> ReferenceStatistics:
    return learn(windows_of(range(256)), SPEC)


def figures(
    samples: list[Sample], chosen: np.ndarray, rejected: np.ndarray, reference: ReferenceStatistics
) -> Measurements:
    motions = (normalised(motion, SPEC) for motion in (chosen, rejected))
    return measure(Expected(Windows.of(samples, SPEC), reference), *motions)


def motion(samples: list[Sample]) -> np.ndarray:
    return np.stack([s.avatar_motion for s in samples])


def test_the_corpus_tells_how_avatars_react(reference: ReferenceStatistics) -> None:
    """The smile is mirrored DELAY frames later, and the head dips three frames after speech ends."""
    for fold in (0, 1):
        assert np.unravel_index(reference.lagged[fold].argmax(), reference.lagged[fold].shape) == (DELAY, SMILE)
        lag, dim = np.unravel_index(reference.event[fold].argmin(), reference.event[fold].shape)
        assert dim == NOD
        assert 3 <= lag < 9


def test_a_listener_who_reacts_is_told_from_one_who_does_not(reference: ReferenceStatistics) -> None:
    """Both move like people; the other one's user is another. Knowing nothing of the corpus, half would be right."""
    judged = windows_of(range(1000, 1200))
    truth, one, two = motion(judged), np.roll(motion(judged), 61, axis=0), np.roll(motion(judged), 127, axis=0)
    right = figures(judged, truth, one, reference)
    null = figures(judged, one, two, reference)
    assert (right["reactivity_margin"] > 0).mean() > 0.85
    assert 0.38 < (null["reactivity_margin"] > 0).mean() < 0.62
    assert np.nanmean(right["event_margin"]) > 3 * abs(np.nanmean(null["event_margin"]))
    swapped = figures(judged, one, truth, reference)
    np.testing.assert_allclose(swapped["reactivity_margin"], -right["reactivity_margin"], atol=1e-6)


def test_a_window_is_not_judged_by_what_it_taught() -> None:
    """Where nobody reacts, the recorded side looks no better than another, even to the corpus it is from."""
    random = np.random.default_rng(0)
    unmoved = []
    for window in windows_of(range(48)):
        drift = np.stack([smooth(random, FRAMES) for _ in range(SPEC.dim)], axis=1).astype(np.float32)
        unmoved.append(replace(window, avatar_motion=drift))
    seen = figures(unmoved, motion(unmoved), np.roll(motion(unmoved), 13, axis=0), learn(unmoved, SPEC))
    assert 0.3 < (seen["reactivity_margin"] > 0).mean() < 0.7
    assert {fold_of(w.meta.conversation) for w in unmoved} == {0, 1}


def test_a_corpus_of_one_conversation_judges_itself() -> None:
    same = [replace(w, meta=w.meta.model_copy(update={"conversation": "only"})) for w in windows_of(range(16))]
    found = figures(same, motion(same), np.roll(motion(same), 5, axis=0), learn(same, SPEC))
    assert np.isfinite(found["reactivity_margin"]).all()


def test_frames_that_are_not_seen_say_nothing(reference: ReferenceStatistics) -> None:
    judged = windows_of(range(2000, 2008))
    hidden = [replace(w, valid=np.where(np.arange(FRAMES)[:, None] < 40, True, [False, True])) for w in judged]
    spoilt = motion(judged)
    spoilt[:, 40:] += 50
    clean, same = (figures(hidden, motion(hidden), side, reference) for side in (motion(judged) * 0.9, spoilt * 0.9))
    for name in clean:
        np.testing.assert_allclose(same[name], clean[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_gate_names_its_reason(reference: ReferenceStatistics) -> None:
    judged = windows_of(range(3000, 3001))
    truth = motion(judged)
    still = np.repeat(truth.mean(axis=1, keepdims=True), FRAMES, axis=1)
    shaking = truth + 9 * np.where(np.arange(FRAMES)[:, None] % 2, 1, -1).astype(np.float32)

    def reason(chosen: np.ndarray, rejected: np.ndarray, **gate: float) -> str:
        found = figures(judged, chosen, rejected, reference)
        motions = (normalised(side, SPEC) for side in (chosen, rejected))
        return reasons_left_out(found, *motions, GateConfig(**gate))[0]  # type: ignore[arg-type]

    assert reason(truth, still) == ""
    assert reason(still, truth) == "not_less_reactive"
    assert reason(truth, still, min_reactivity_margin=2.0) == "not_less_reactive"
    assert reason(truth, truth * 0.99) == "too_similar"
    assert reason(truth, shaking) == reason(shaking, still) == "broken_motion"
    assert reason(truth, still + 20) == reason(truth + 20, still) == "off_manifold"
    assert reason(truth, truth * np.nan) == reason(truth * np.inf, still) == "not_finite"
    assert reason(truth, still, min_energy_margin=100) == "less_motion_energy"


def test_figures_are_what_they_say() -> None:
    """Against plain loops over one window."""
    learnt, judged = windows_of(range(64)), windows_of(range(4000, 4001))
    reference = learn(learnt, SPEC)
    truth, rejected = motion(judged), 0.5 * motion(windows_of(range(5000, 5001)))
    found = {name: values[0] for name, values in figures(judged, truth, rejected, reference).items()}
    a, b = normalised(truth, SPEC)[0].astype(float), normalised(rejected, SPEC)[0].astype(float)
    assert found["energy_margin"] == pytest.approx(np.log(a.var(0).sum() / b.var(0).sum()), rel=1e-4)
    assert found["distance"] == pytest.approx(np.sqrt(((a - b) ** 2).mean()), rel=1e-4)
    assert found["jerk_ratio"][0] == pytest.approx(1)
    jerks = [np.abs(np.diff(side, n=3, axis=0)).mean() for side in (a, b)]
    assert found["jerk_ratio"][1] == pytest.approx(jerks[1] / jerks[0], rel=1e-4)
    expected = np.zeros_like(a)
    user = unit(normalised(np.stack([judged[0].user_motion]), SPEC), np.ones((1, FRAMES), bool))[0]
    response = reference.lagged[fold_of(judged[0].meta.conversation)]
    for t in range(FRAMES):
        for lag in range(min(len(response), t + 1)):
            expected[t] += response[lag] * user[t - lag]
    expected -= expected.mean(0)
    fits = []
    for side in (a, b):
        moves = (side - side.mean(0)) / np.where(side.std(0) > 1e-6, side.std(0), np.inf)  # silent jaws do not move
        fits.append(np.corrcoef(moves.ravel(), expected.ravel())[0, 1])
    assert found["lagged_margin"] == pytest.approx(fits[0] - fits[1], abs=1e-4)


def test_histograms_add_up_and_tell_quantiles(reference: ReferenceStatistics) -> None:
    judged = windows_of(range(6000, 6060))
    found = figures(judged, motion(judged), np.roll(motion(judged), 7, axis=0), reference)
    halves = [{name: values[part] for name, values in found.items()} for part in (slice(30), slice(30, None))]
    whole, parts = histograms(histogram_counts(found)), [histogram_counts(half) for half in halves]
    assert histograms({name: parts[0][name] + parts[1][name] for name in parts[0]}) == whole
    for share in (0.1, 0.5, 0.9):
        near = np.quantile(found["reactivity_margin"], share)
        assert whole["reactivity_margin"].quantile(share) == pytest.approx(near, abs=0.11)  # a bin
    assert np.isnan(Histogram(low=0, high=1, counts=(0, 0)).quantile(0.5))


def test_a_window_in_which_nothing_is_seen_gets_through_no_gate(reference: ReferenceStatistics) -> None:
    """Its figures are not defined, and what is not defined is neither above nor below a threshold."""
    judged = windows_of(range(7000, 7004))
    some = np.zeros(FRAMES, bool)
    some[[3, 4, 5, 20, 40]] = True  # never four in a row
    valid = [np.zeros(FRAMES, bool), some, np.arange(FRAMES) < 4, np.ones(FRAMES, bool)]
    hidden = [
        replace(w, valid=np.stack([v, np.ones(FRAMES, bool)], axis=1)) for w, v in zip(judged, valid, strict=True)
    ]
    truth = motion(hidden)
    still = np.repeat(truth.mean(axis=1, keepdims=True), FRAMES, axis=1)
    found = figures(hidden, truth, still, reference)
    motions = [normalised(side, SPEC) for side in (truth, still)]
    open_gate = GateConfig(min_reactivity_margin=-9, min_distance=0, max_jerk_ratio=1e9, max_off_manifold=1e9)
    assert reasons_left_out(found, *motions, open_gate) == ["not_measured", "not_measured", "", ""]


def test_reference_statistics_need_a_face() -> None:
    hidden = [replace(w, valid=np.zeros((FRAMES, 2), bool)) for w in windows_of(range(3))]
    with pytest.raises(DatasetError, match="valid in no frame of 3 windows"):
        learn(hidden, SPEC)
    partly = learn([*hidden, *windows_of(range(3, 40))], SPEC)
    assert np.isfinite([partly.usual, partly.least_expressive]).all()
    assert all(np.isfinite(part).all() for part in (partly.lagged, partly.event, partly.mean, partly.whiten))


numbers = st.floats(width=32) | st.sampled_from([0.0, 1.0, np.nan, np.inf, 3e38])


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 3, FRAMES, SPEC.dim), elements=numbers, fill=st.sampled_from([0.0, 1.5])),
    hnp.arrays(bool, (3, FRAMES, 2)) | st.sampled_from([np.zeros((3, FRAMES, 2), bool), np.ones((3, FRAMES, 2), bool)]),
)
def test_every_pair_is_kept_with_figures_or_left_out_with_a_reason(
    reference: ReferenceStatistics, drawn: np.ndarray, valid: np.ndarray
) -> None:
    judged = [replace(w, valid=v) for w, v in zip(windows_of(range(3)), valid, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = figures(judged, *drawn, reference)
        motions = [normalised(side, SPEC) for side in drawn]
        reasons = reasons_left_out(found, *motions, GateConfig())
        counted = histograms(histogram_counts(found))
    for i, reason in enumerate(reasons):
        if not np.isfinite([side[i] for side in motions]).all():
            assert reason == "not_finite"
        if not reason:
            assert all(np.isfinite(values[i]).all() for name, values in found.items() if name != "event_margin")
    assert all(sum(each.counts) + each.undefined == 3 for each in counted.values())

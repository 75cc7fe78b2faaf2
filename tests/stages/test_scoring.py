"""Rewards: reactivity for anybody's arrays, a function of the user's own, a file of scores, and the best of several."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.stages.test_gate import motion, windows_of
from tests.stages.test_pairs import OPEN, build, save_model
from tests.training.conftest import small_model
from tests.training.synthetic import SPEC, write_dataset
from visavis.pipeline.plan.score_files import read_scores
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.train import SamplerConfig
from visavis.stages.pairing.gate import histogram_counts, ranges
from visavis.stages.pairing.measurements import Expected, Windows, normalised
from visavis.stages.pairing.reactivity import reactivity
from visavis.stages.pairing.reference_statistics import learn, learn_from
from visavis.stages.pairing.scoring import FileScorer, FunctionScorer, Side, ranked
from visavis.training.dataset import Dataset

CONFIG = PairsConfig(sampler=SamplerConfig(steps=1, guidance="none"), gate=OPEN, device="cpu")


def side(keys: list[str], name: str = "rejected") -> Side:
    samples = windows_of(range(len(keys)))
    expected = Expected(Windows.of(samples, SPEC), learn(samples, SPEC))
    moves = motion(samples)
    return Side(name, samples, keys, moves, normalised(moves, SPEC), expected)  # type: ignore[arg-type]


def function(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text(f"import numpy as np\n\ndef score(samples, motion):\n    return {body}\n")
    return f"{path}:score"


def test_somebody_with_arrays_learns_who_reacts() -> None:
    """A listener of its user fits, another user's does not, and one that holds still is 0."""
    judged, reference = windows_of(range(1000, 1100)), learn(windows_of(range(256)), SPEC)
    own = reactivity(judged, motion(judged), SPEC, reference)
    other = reactivity(judged, np.roll(motion(judged), 31, axis=0), SPEC, reference)
    still = reactivity(judged, np.zeros_like(motion(judged)), SPEC, reference)
    assert own.total.mean() > 0.2 > 5 * abs(other.total.mean())
    assert (own.total > other.total).mean() > 0.85
    assert not still.total.any()
    np.testing.assert_allclose(own.total, own.lagged + np.where(np.isnan(own.event), 0, own.event))
    assert np.isnan(own.event).any()  # in some windows no phrase ends
    assert not np.isnan(own.event).all()


def test_arrays_that_do_not_fit_are_refused() -> None:
    judged = windows_of(range(3))
    reference = learn(judged, SPEC)
    for wrong in (motion(judged)[:2], motion(judged)[:, :-1], motion(judged)[..., 1:]):
        with pytest.raises(ValueError, match="expected"):
            reactivity(judged, wrong, SPEC, reference)
    with pytest.raises(ValueError, match="not finite"):
        reactivity(judged, np.where(np.arange(50)[:, None] == 3, np.nan, motion(judged)), SPEC, reference)


def test_a_class_without_windows_teaches_nothing(tmp_path: Path) -> None:
    data = Dataset(str(write_dataset(tmp_path, {WindowClass.LISTENING: 4})))
    assert learn_from(data, WindowClass.LISTENING).windows == 4
    with pytest.raises(DatasetError, match="no training windows of class overlap"):
        learn_from(data, WindowClass.OVERLAP)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("motion.mean()", r"gave float32 \[\] for 2 windows, expected a number for each"),
        ("motion[:, :, 0]", r"gave float32 \[2, 50\] for 2 windows"),
        ("[np.nan, 1]", "gave a number that is not finite, first for window listening-00000"),
        ("['a', 'b']", r"gave <U1 \[2\] for 2 windows"),
        ("motion @ samples", "raised .*Error: "),
        ("unknown", "raised NameError: name 'unknown' is not defined"),
        ("(_ for _ in ()).throw(ValueError('one' + chr(10) + 'two'))", "raised ValueError: one$"),
    ],
)
def test_a_function_that_does_not_score_is_told_in_one_line(tmp_path: Path, body: str, message: str) -> None:
    scorer = FunctionScorer(function(tmp_path, body))
    with pytest.raises(UsageError, match=message) as told:
        scorer(side(["a", "b"]))
    assert "\n" not in str(told.value)
    assert "mine.py:score" in str(told.value)


def test_what_is_no_function_is_refused(tmp_path: Path) -> None:
    code = function(tmp_path, "motion[:, 0, 0]")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "value.py").write_text("score = 1")
    for name, message in {
        "mine.py:scre": "has no scre; there is 1 function: score",
        "value.py:score": "is no function",
        "broken.py:score": "does not load: ZeroDivisionError",
        "absent.py:score": "No such file",
        "score": r"is not FILE\.py:FUNCTION|No such file",
    }.items():
        with pytest.raises(UsageError, match=message):
            FunctionScorer(str(tmp_path / name))
    with pytest.raises(UsageError, match="must be a file of this machine"):
        FunctionScorer("https://example.org/mine.py:score")
    scorer = FunctionScorer(code)
    there: FunctionScorer = pickle.loads(pickle.dumps(scorer))
    assert there.name == scorer.name
    sent = pickle.dumps(scorer)
    function(tmp_path, "motion[:, 1, 0]")
    with pytest.raises(UsageError, match=r"is another one on .* than where the run began"):
        pickle.loads(sent)


def test_motion_that_is_not_finite_is_not_shown_to_a_function(tmp_path: Path) -> None:
    shown = side(["a", "b", "c"])
    shown.motion[1, 4, 2] = np.inf
    found = FunctionScorer(function(tmp_path, "motion.max(axis=(1, 2))"))(shown)
    assert np.isnan(found).tolist() == [False, True, False]


@given(hnp.arrays(np.float64, (5, 7), elements=st.floats(-1, 1) | st.just(np.nan)))
def test_the_best_is_never_below_the_worst(scores_NW: np.ndarray) -> None:
    best, worst = ranked(scores_NW)
    for window in range(7):
        known = scores_NW[np.isfinite(scores_NW[:, window]), window]
        if len(known) > 1:
            assert best[window] != worst[window]  # two motions, also where all score the same
            assert (scores_NW[best[window], window], scores_NW[worst[window], window]) == (known.max(), known.min())
        else:
            assert (best[window], worst[window]) == (0, 1)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_of_scores_is_read_by_key(tmp_path: Path, suffix: str) -> None:
    import pandas

    path = tmp_path / f"scores.{suffix}"
    rows = pandas.DataFrame({"key": ["b-r1", "a", "c"], "rejected": [2.5, -1.0, 0.0], "chosen": [3.0, None, 1.0]})
    writers = {"csv": rows.to_csv, "parquet": rows.to_parquet}
    if suffix == "jsonl":
        rows.to_json(path, orient="records", lines=True)
    else:
        writers[suffix](path, index=False)
    scorer = read_scores(str(path))
    np.testing.assert_array_equal(scorer(side(["a", "b", "b-r1", "zz"])), [-1.0, np.nan, 2.5, np.nan])
    np.testing.assert_array_equal(scorer(side(["c", "a"], "chosen")), [1.0, np.nan])
    assert scorer.apart == 1.0
    assert scorer.name.startswith("scores:")


def test_scores_of_any_size_fit_into_a_histogram() -> None:
    found = ranges(FileScorer(["a", "b"], np.array([[8e307, -8e307], [0.0, 1.0]]), "0" * 64).apart)
    margins = {"score_margin": np.array([1.6e308, -1.0])}
    assert histogram_counts(margins, {"score_margin": found["score_margin"]})["score_margin"].sum() == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,chosen,rejected\na,1,x\n", "row 1 .*has no number as `rejected`: x"),
        ("key,chosen,rejected\na,1,nan\n", "has a `rejected` that is not finite"),
        ("key,chosen,rejected\na,1,2\na,1,2\n", "row 2 .*has key a for the second time"),
        ("key,chosen,rejected\n,1,2\n", "has a `key` that is none of a pair"),
        ("window,chosen,rejected\na,1,2\n", "no column `key`; is `window` meant as `key`"),
        ("key,chosen\na,\n", "has no number in its columns"),
    ],
)
def test_a_file_of_scores_that_is_none_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_scores(str(tmp_path / "scores.csv"))


def test_what_a_reward_asks_for_is_in_the_settings() -> None:
    own, ours = PairsConfig.model_validate({"scorer": "a.py:f"}), PairsConfig()
    assert (own.gate.min_reactivity_margin, own.gate.min_score_margin) == (None, 0.0)
    assert (ours.gate.min_reactivity_margin, ours.gate.min_score_margin) == (0.0, None)
    both = PairsConfig.model_validate({"scorer": "a.py:f", "gate": {"min_reactivity_margin": 0.1}})
    assert (both.gate.min_reactivity_margin, both.gate.min_score_margin) == (0.1, 0.0)
    for wrong in ({"chosen": "best"}, {"chosen": "best", "rejected": "own"}):
        with pytest.raises(ValueError, match="chosen=best goes with rejected=own and per_window"):
            PairsConfig.model_validate(wrong)
    with pytest.raises(ValueError, match="one of them"):
        PairsConfig(scorer="a.py:f", scores="b.csv")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("source"), {WindowClass.LISTENING: 6})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(small_model(), tmp_path_factory.mktemp("model") / "checkpoint.safetensors")


@pytest.mark.slow
def test_the_best_of_a_models_own_motions_against_the_worst(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    """The same motions as those of pairs of its own, ranked by a function, by reactivity, or by a file."""
    own = CONFIG.model_copy(update={"rejected": "own", "per_window": 3})
    every = {s.key: s for s in Dataset(build(source, checkpoint, tmp_path / "own", own).dataset).samples("train")}
    best = own.model_copy(update={"chosen": "best"})
    code = function(tmp_path, "np.array([m[:, 0].max() for m in motion])")
    rows = "".join(f"{key},{sample.rejected[:, 0].max():.9g}\n" for key, sample in every.items())
    (tmp_path / "scores.csv").write_text(f"key,rejected\n{rows}")
    for name, update, score in (
        ("reactivity", {}, lambda sample: sample.pair.scores[1]),
        ("function", {"scorer": code}, lambda sample: sample.rejected[:, 0].max()),
        ("scores", {"scores": str(tmp_path / "scores.csv")}, lambda sample: sample.rejected[:, 0].max()),
    ):
        made = Dataset(build(source, checkpoint, tmp_path / name, best.model_copy(update=update)).dataset)
        pairs = {s.key: s for s in made.samples("train")}
        assert made.manifest.pairs.scorer.startswith(name.split(":")[0])  # type: ignore[union-attr]
        assert ("score_margin" in made.manifest.pairs.figures) == (name != "reactivity")  # type: ignore[union-attr]
        assert {key.rpartition("-r")[0] for key in every} == set(pairs)
        for key, pair in pairs.items():
            found = sorted((every[f"{key}-r{n}"] for n in range(3)), key=score)
            np.testing.assert_array_equal(pair.rejected, found[0].rejected)
            np.testing.assert_array_equal(pair.chosen, found[-1].rejected)
            assert pair.pair is not None
            np.testing.assert_allclose(pair.pair.scores, [score(found[-1]), score(found[0])], rtol=1e-5)
            seeds = (found[-1].pair.sampler.seed, found[0].pair.sampler.seed)  # type: ignore[union-attr]
            assert (pair.pair.chosen_seed, pair.pair.sampler.seed) == seeds


@pytest.mark.slow
def test_scores_decide_what_is_kept_and_are_part_of_what_made_the_pairs(
    source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    code = function(
        tmp_path, "np.array([float(s.key[-1]) * (m[0, 0] == s.avatar_motion[0, 0]) for s, m in zip(samples, motion)])"
    )
    config = PairsConfig.model_validate(
        CONFIG.model_dump() | {"scorer": code, "gate": {**CONFIG.gate.model_dump(), "min_score_margin": 2.5}}
    )
    summary = build(source, checkpoint, tmp_path / "run", config)
    assert (summary.kept, summary.gated) == (3, {"not_scored_higher": 3})
    assert summary.figures["score_margin"].quantile(0.5) > 1
    for pair in Dataset(summary.dataset).samples("train"):
        assert pair.pair is not None
        assert pair.pair.scores == (float(pair.key[-1]), 0.0)
    function(tmp_path, "motion[:, 0, 0]")
    with pytest.raises(UsageError, match="was built with scorer="):
        build(source, checkpoint, tmp_path / "run", config)
    function(tmp_path, "[np.nan] * len(samples)")
    with pytest.raises(UsageError, match="not finite, first for window"):  # before anything is written
        build(source, checkpoint, tmp_path / "other", config)
    assert not (tmp_path / "other").exists()
    (tmp_path / "scores.csv").write_text("key,chosen,rejected\nlistening-00001,1,0\nnobody,0,0\n")
    scored = PairsConfig.model_validate(CONFIG.model_dump() | {"scores": str(tmp_path / "scores.csv")})
    found = build(source, checkpoint, tmp_path / "file", scored)
    assert (found.kept, found.gated) == (1, {"not_scored": 5})

"""Metrics of one's own: the mean of a number for each window, by row and class, in codec units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic import SPEC, sample
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.user_function import UserFunction
from visavis.training.own_metrics import OwnMetrics

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_labels.py"


def own(folder: Path, answer: str) -> UserFunction:
    (folder / "mine.py").write_text(f"import numpy as np\ndef high(samples, motion):\n    return {answer}\n")
    return UserFunction(f"{folder / 'mine.py'}:high", "metric")


def test_what_a_function_says_is_averaged_over_windows_and_does_not_depend_on_batches(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(6)]
    normalised = np.stack([s.avatar_motion for s in samples]) / np.float32(2)
    tables = []
    for cuts in ((6,), (2, 4)):
        metrics, first = OwnMetrics([own(tmp_path, "motion[:, :, 0].mean(axis=1)")], SPEC), 0
        for size in cuts:
            part = slice(first, first + size)
            metrics.add("model", "listening", samples[part], [normalised[part], normalised[part] + 1])
            first += size
        row = {"model": {"listening": {}, "all": {}}}
        result = {name: {"model": {of: {} for of in row["model"]}} for name in ("rows", "standard_errors", "spread")}
        metrics.into(result)
        tables.append(result)
    units = normalised[:, :, 0] * SPEC.std[0] + SPEC.mean[0]
    expected = units.mean() + SPEC.std[0] / 2  # of two seeds, the second one deviation higher
    for result in tables:
        for of in ("listening", "all"):
            assert result["rows"]["model"][of]["high"] == pytest.approx(expected, rel=1e-5)
            error = units.mean(axis=1).std(ddof=1) / np.sqrt(6)
            assert result["standard_errors"]["model"][of]["high"] == pytest.approx(error, rel=1e-3)


def test_windows_of_which_it_knows_nothing_do_not_count_and_what_is_amiss_is_told(tmp_path: Path) -> None:
    samples = [sample(i) for i in range(3)]
    motion = np.zeros((3, 50, 12), np.float32)
    metrics = OwnMetrics([own(tmp_path, "np.array([1.0, np.nan, 3.0])")], SPEC)
    metrics.add("model", "listening", samples, [motion])
    result = {"rows": {"model": {"listening": {}, "all": {}}}, "standard_errors": {}, "spread": {}}
    metrics.into(result)
    assert result["rows"]["model"]["all"] == {"high": 2.0}
    for answer, said in (("1.0", "expected a number for each"), ("motion / []", "raised")):
        (tmp_path / answer[0]).mkdir()
        with pytest.raises(UsageError, match=said):
            OwnMetrics([own(tmp_path / answer[0], answer)], SPEC).add("model", "listening", samples, [motion])
    with pytest.raises(UsageError, match="two metrics are called high"):
        OwnMetrics([own(tmp_path, "1")] * 2, SPEC)


def test_the_example_labels_windows_and_scores_them() -> None:
    from visavis.stages.models.labeller import Labeller

    samples = [sample(i) for i in range(4)]
    samples[1].avatar_motion[:, 0] = samples[1].reference[0] + 0.3
    samples[2].avatar_motion[:, 0] = samples[2].reference[0]
    labels = [s.meta.labels for s in Labeller(f"{EXAMPLE}:looks").label(samples)]
    assert labels[1] == ("looks_down",)
    assert labels[2] == ()
    metric = UserFunction(f"{EXAMPLE}:down_degrees", "metric")
    found = metric(samples, np.stack([s.avatar_motion for s in samples]))
    assert found[1:3] == pytest.approx([np.rad2deg(0.3), 0], abs=1e-4)

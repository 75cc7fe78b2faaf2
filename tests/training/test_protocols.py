"""Figures of public protocols equal values that are worked out here on another way, in float64 and term by term."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.cluster import KMeans

from visavis.schemas.errors import UsageError
from visavis.training.protocols.clips import Clip, baselines, halves, listening_only
from visavis.training.protocols.figures import frechet_distance
from visavis.training.protocols.react import lagged_correlations, synchrony
from visavis.training.protocols.score import score
from visavis.training.time_warping import dynamic_time_warping

PARTS = {"exp": slice(0, 50), "jaw": slice(50, 53), "pose": slice(53, 56)}


def walk(rng: np.random.Generator, frames: int, dims: int = 56) -> np.ndarray:
    """Motion that goes on from frame to frame, as that of faces."""
    steps = rng.normal(size=(frames, dims)) * np.linspace(1.0, 0.1, dims)
    return np.cumsum(steps, axis=0) * 0.1 + rng.normal(size=dims)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    rng = np.random.default_rng(7)
    made = []
    for frames in (150, 230, 90):
        user, truth = walk(rng, frames), walk(rng, frames)
        generated = 0.7 * truth + 0.3 * walk(rng, frames)
        more = tuple(truth + walk(rng, frames) for _ in range(2))
        made.append(Clip(truth, user, generated, rng.random(frames) < 0.6, more=more))
    return made


def reference_fd(a: np.ndarray, b: np.ndarray) -> float:
    sigma = [np.cov(x, rowvar=False) for x in (a, b)]
    root = np.real(np.asarray(sqrtm(sigma[0] @ sigma[1])))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sigma[0] + sigma[1] - 2 * root))


def reference_sid(fitted: np.ndarray, counted: np.ndarray, k: int) -> float:
    labels = KMeans(n_clusters=k, random_state=0, n_init="auto").fit(fitted).predict(counted)
    shares = [float((labels == i).mean()) for i in range(k)]
    return -sum(p * math.log2(p + 1e-6) for p in shares)


def reference_sts(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for d in range(a.shape[1]):
        for t in range(1, len(a)):
            total += ((a[t, d] - a[t - 1, d]) - (b[t, d] - b[t - 1, d])) ** 2 / 0.1
    return math.sqrt(total)


def corr(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_dim(clips: list[Clip]) -> None:
    """DIM's own pose is the jaw and the head together."""
    found = score("dim", clips, PARTS)
    parts = PARTS | {"jaw+pose": slice(50, 56)}
    for name, columns in parts.items():
        sides = [(c.truth[:, columns], c.user[:, columns], c.generated[:, columns]) for c in clips]
        truth, user, made = (np.concatenate(side) for side in zip(*sides, strict=True))
        expected = {
            "FD": np.mean([reference_fd(t, g) for t, _, g in sides]),
            "P-FD": np.mean([reference_fd(np.hstack([u, t]), np.hstack([u, g])) for t, u, g in sides]),
            "MSE": np.mean([np.mean((t - g) ** 2) for t, _, g in sides]),
            "L2": np.mean([np.mean([math.dist(a, b) for a, b in zip(t, g, strict=True)]) for t, _, g in sides]),
            "SID": reference_sid(truth, made, 40 if name == "exp" else 20),
            "Var": np.var(made.ravel()),
            "rPCC": abs(corr(truth, user) - corr(made, user)),
            "STS": reference_sts(truth, made),
        }
        for figure, value in expected.items():
            assert found[f"{figure}_{name}"] == pytest.approx(value, rel=1e-6), (figure, name)
    assert len(found) == 8 * len(parts)
    apart = score("dim", clips, {"pose": slice(50, 56), "expression": slice(0, 50)})
    assert apart["SID_pose"] == found["SID_jaw+pose"]
    assert apart["SID_expression"] == found["SID_exp"]  # by 40 clusters, as whatever begins with exp
    theirs = score("dim", clips, {"pose": slice(0, 3), "jaw": slice(3, 6)})  # DIM's own columns
    assert theirs["MSE_jaw+pose"] == pytest.approx((theirs["MSE_pose"] + theirs["MSE_jaw"]) / 2)


def test_dualtalk(clips: list[Clip]) -> None:
    found = score("dualtalk", clips, PARTS)
    for name, columns in PARTS.items():
        sides = [(c.truth[:, columns], c.user[:, columns], c.generated[:, columns]) for c in clips]
        k = 40 if name == "exp" else 10
        expected = {
            "FD": np.mean([reference_fd(t, g) for t, _, g in sides]),
            "P-FD": np.mean([reference_fd(np.hstack([u, t]), np.hstack([u, g])) for t, u, g in sides]),
            "MSE": np.mean([np.mean((t - g) ** 2) for t, _, g in sides]),
            "SID": np.mean([reference_sid(g, t, k) for t, _, g in sides]),
            "SID-truth": np.mean([reference_sid(t, g, k) for t, _, g in sides]),
            "Var": np.mean([np.var(g, axis=0).mean() for _, _, g in sides]),
            "rPCC": np.mean([abs(corr(t, u) - corr(g, u)) for t, u, g in sides]),
            "STS": np.mean([reference_sts(t, g) for t, _, g in sides]),
        }
        for figure, value in expected.items():
            assert found[f"{figure}_{name}"] == pytest.approx(value, rel=1e-6), (figure, name)
    assert len(found) == 8 * len(PARTS)


def test_unils(clips: list[Clip]) -> None:
    """The script's deviations are torch's, which divide by T − 1: with few frames the other way is another figure."""
    found = score("unils", clips, PARTS)
    first = slice(PARTS["jaw"].start, PARTS["jaw"].start + 1)
    parts = {"FDD-exp": PARTS["exp"], "JDD": PARTS["jaw"], "PDD": PARTS["pose"], "JDD-first": first}
    for name, part in parts.items():
        for frames, chosen in {"": None, "_listening": True, "_speaking": False}.items():
            gaps = []
            for clip in clips:
                kept = slice(None) if chosen is None else clip.listening == chosen
                truth, made = clip.truth[kept][:, part], clip.generated[kept][:, part]
                stds = [torch.from_numpy(side).std(dim=0) for side in (made, truth)]
                gaps.append(100 * float((stds[0] - stds[1]).abs().mean()))
            assert found[name + frames] == pytest.approx(np.mean(gaps), rel=1e-9)


@pytest.mark.parametrize("at_a_time", [1024, 50])
def test_unils_of_vertices(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    """The script sums a vertex's three numbers in millimetres before it takes the deviation."""
    monkeypatch.setattr("visavis.training.protocols.unils._FRAMES", at_a_time)
    rng = np.random.default_rng(4)
    sides = [np.cumsum(rng.normal(size=(120, 30, 3)), axis=0) * 1e-4 for _ in range(2)]
    truth, made = (side.reshape(120, 90) for side in sides)
    expected = 0.0
    for v in range(30):
        each = [[1000 * sum(float(x) for x in side[t, v]) for t in range(120)] for side in sides]
        expected += 100 * abs(statistics.stdev(each[1]) - statistics.stdev(each[0])) / 30
    found = score("unils", [Clip(truth, truth, made)], {"upper": slice(0, 90)})
    assert found["FDD"] == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UsageError, match="upper has 89 columns; x, y, z of each vertex"):
        score("unils", [Clip(truth, truth, made)], {"upper": slice(0, 89)})


def reference_warping(a: np.ndarray, b: np.ndarray) -> float:
    table = np.full((len(a) + 1, len(b) + 1), np.inf)
    table[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            nearest = min(table[i, j], table[i, j + 1], table[i + 1, j])
            table[i + 1, j + 1] = ((a[i] - b[j]) ** 2).sum() + nearest
    return math.sqrt(table[-1, -1])


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 9), (7, 1), (12, 12), (13, 5)])
def test_time_warping(rows: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 3)), rng.normal(size=(columns, 3))
    assert dynamic_time_warping(a, b) == pytest.approx(reference_warping(a, b), rel=1e-12)


@pytest.mark.slow
def test_react(clips: list[Clip]) -> None:
    found = score("react", clips, PARTS)
    expected: dict[str, list[float]] = {"FRCorr": [], "FRDist": [], "FRDiv": [], "FRVar": [], "FRSyn": []}
    for clip in clips:
        k, _, dims = clip.samples.shape
        total, warped = 0.0, 0.0
        for motion in clip.samples:
            each = []
            for d in range(dims):
                t, g = clip.truth[:, d], motion[:, d]
                cov = np.mean((t - t.mean()) * (g - g.mean()))
                each.append(2 * cov / (t.var() + g.var() + (t.mean() - g.mean()) ** 2 + 1e-8))
            total += float(np.mean(each))
            warped += sum(
                reference_warping(motion[:, p], clip.truth[:, p]) / (p.stop - p.start) for p in PARTS.values()
            )
        expected["FRCorr"].append(total)
        expected["FRDist"].append(warped)
        pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
        expected["FRDiv"].append(np.mean([np.mean((clip.samples[i] - clip.samples[j]) ** 2) for i, j in pairs]))
        expected["FRVar"].append(np.mean(np.var(clip.samples, axis=1, ddof=1)))
    for figure in ("FRCorr", "FRDist", "FRDiv", "FRVar"):
        assert found[figure] == pytest.approx(np.mean(expected[figure]), rel=1e-6), figure
    short = [clip.samples[:, :90] for clip in clips]
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    between = [np.mean((short[i][k] - short[j][k]) ** 2) for k in range(3) for i, j in pairs]
    assert found["FRDvs"] == pytest.approx(np.mean(between), rel=1e-6)


def test_react_of_its_own_columns() -> None:
    """The script's FRDist divides warped action units by 15 and emotions by 8, but valence and arousal by one; and
    FRSyn of 2024 to 2026 is of the first motion alone."""
    rng = np.random.default_rng(6)
    parts = {"au": slice(0, 15), "va": slice(15, 17), "emotion": slice(17, 25)}
    truth, user, first, second = (walk(rng, 60, 25) for _ in range(4))
    found = score("react", [Clip(truth, user, first, more=(second,))], parts)
    warped = [
        [reference_warping(motion[:, part], truth[:, part]) for part in parts.values()] for motion in (first, second)
    ]
    assert found["FRDist"] == pytest.approx(sum(au / 15 + va + emotion / 8 for au, va, emotion in warped), rel=1e-9)
    assert found["FRSyn-2024"] == synchrony(first, user)
    assert found["FRSyn"] == (synchrony(first, user) + synchrony(second, user)) / 2
    with pytest.raises(UsageError, match="parts share columns"):
        score("react", [Clip(truth, user, first)], {"au": slice(0, 15), "va": slice(14, 17)})


@pytest.mark.parametrize("late", [0, 7, 33])
def test_synchrony_finds_a_delay_to_either_side(late: int) -> None:
    motion = walk(np.random.default_rng(late), 400, 5)
    delayed = np.roll(motion, late, axis=0)[50:350]
    assert synchrony(delayed, motion[50:350]) == late
    assert synchrony(motion[50:350], delayed) == late


def test_synchrony_of_short_clips_is_not_said() -> None:
    """Of fifty frames the public script prints 49, whatever moves."""
    one, other = walk(np.random.default_rng(0), 51, 5), walk(np.random.default_rng(1), 51, 5)
    assert not math.isnan(synchrony(one, other))
    assert math.isnan(synchrony(one[:50], other[:50]))


def test_frames_in_which_the_avatar_listens(clips: list[Clip]) -> None:
    found = score("dualtalk", listening_only(clips), {"jaw": PARTS["jaw"]})
    truth, made = (
        [side[c.listening][:, 50:53] for c in clips for side in [getattr(c, name)]] for name in ("truth", "generated")
    )
    assert found["MSE_jaw"] == pytest.approx(np.mean([np.mean((t - g) ** 2) for t, g in zip(truth, made, strict=True)]))
    nobody = [Clip(c.truth, c.user, c.generated) for c in clips]
    assert listening_only(nobody) == []


def test_a_distance_without_full_rank_is_exact() -> None:
    """Thirty frames in a hundred dimensions: the root of a product of covariances loses half of the digits there."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 100))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-11)
    assert frechet_distance(x, x + 2.0) == pytest.approx(400, rel=1e-12)
    assert frechet_distance(x, 3 * x) == pytest.approx(4 * (x.mean(0) ** 2).sum() + 4 * np.cov(x, rowvar=False).trace())


def test_what_cannot_be_said_is_nan(clips: list[Clip]) -> None:
    one_frame = [Clip(*(np.ones((1, 56)),) * 3)]
    for protocol, defined in {
        "dim": {"MSE", "L2", "Var"}, "dualtalk": {"MSE", "Var"}, "unils": set(), "react": {"FRCorr", "FRDist"},
    }.items():  # fmt: skip
        for name, value in score(protocol, one_frame, PARTS).items():
            assert math.isnan(value) is (name.partition("_")[0] not in defined), (protocol, name)
    still = [Clip(c.truth, c.user, np.zeros_like(c.truth)) for c in clips]
    assert math.isnan(score("dim", still, PARTS)["rPCC_exp"])
    assert score("dualtalk", still, PARTS)["Var_exp"] == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(clips: list[Clip], value: float) -> None:
    broken = clips[1].generated.copy()
    broken[3, 5] = value
    with pytest.raises(UsageError, match="sequence 1: a number is not finite"):
        score("dim", [clips[0], Clip(clips[1].truth, clips[1].user, broken)], PARTS)
    with pytest.raises(UsageError, match="do not compare"):
        score("dim", [Clip(clips[0].truth, clips[0].user[1:], clips[0].generated)], PARTS)
    with pytest.raises(UsageError, match="no sequences"):
        score("dim", [], PARTS)


def test_what_costs_nothing_and_the_floor(clips: list[Clip]) -> None:
    rows = {name: score("dualtalk", some, {"exp": PARTS["exp"]}) for name, some in baselines(clips).items()}
    assert rows["ground_truth"]["MSE_exp"] == rows["ground_truth"]["rPCC_exp"] == 0
    assert rows["ground_truth"]["FD_exp"] == pytest.approx(0, abs=1e-9)
    assert rows["shifted"]["FD_exp"] == pytest.approx(0, abs=1e-9)  # the same frames in another order
    assert rows["shifted"]["rPCC_exp"] > 0
    assert max(rows[name]["Var_exp"] for name in ("hold_still", "mean_motion")) == pytest.approx(0, abs=1e-20)
    assert rows["copy_user"]["P-FD_exp"] > rows["shifted"]["P-FD_exp"] > 0
    assert score("dualtalk", halves(clips), {"exp": PARTS["exp"]})["FD_exp"] > 0


def test_real_dialogues(shared_media: Path) -> None:
    """The scripts' reference values on FLAME coefficients of two real people, one beside the other as its user."""
    motions = []
    for path in sorted((shared_media / "flame").glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            motions.append(np.concatenate([file["exp"], file["pose"][:, 3:], file["pose"][:, :3]], axis=1)[:587])
    one, two = motions
    clips = [Clip(one, two, np.roll(one, 30, axis=0)), Clip(two, one, np.roll(two, -40, axis=0))]
    found = score("dualtalk", clips, PARTS)
    for name, p in PARTS.items():
        sides = [tuple(x[:, p].astype(np.float64) for x in (c.truth, c.user, c.generated)) for c in clips]
        paired = np.mean([reference_fd(np.hstack([u, t]), np.hstack([u, g])) for t, u, g in sides])
        assert found[f"P-FD_{name}"] == pytest.approx(paired, rel=1e-6)
        k = 40 if name == "exp" else 10
        assert found[f"SID_{name}"] == pytest.approx(
            np.mean([reference_sid(c.generated[:, p], c.truth[:, p], k) for c in clips])
        )
        assert found[f"rPCC_{name}"] == pytest.approx(np.mean([abs(corr(t, u) - corr(g, u)) for t, u, g in sides]))


@pytest.mark.slow
def test_many_sequences_are_scored_in_other_processes_as_few_are_here(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """To the last bit; a face that holds still warns nobody."""
    rng = np.random.default_rng(0)
    clips = [Clip(*(walk(rng, 60, 56).astype(np.float32) for _ in range(3))) for _ in range(65)]
    clips[3] = replace(clips[3], generated=np.zeros_like(clips[3].truth))
    there = score("dualtalk", clips, PARTS)
    monkeypatch.setattr("visavis.training.protocols.averages.FEW", len(clips))
    assert score("dualtalk", clips, PARTS) == there
    assert capfd.readouterr() == ("", "")


def test_lagged_correlations_are_numpys() -> None:
    rng = np.random.default_rng(3)
    motion, user = walk(rng, 80, 4) + 1000, walk(rng, 80, 4)
    motion[:, 2] = 0.1
    found = lagged_correlations(motion, user, 20)
    for n, lag in enumerate(range(-20, 21)):
        mine, theirs = motion[max(lag, 0) : 80 + min(lag, 0)], user[max(-lag, 0) : 80 - max(lag, 0)]
        for d in (0, 1, 3):
            assert found[n, d] == pytest.approx(np.corrcoef(mine[:, d], theirs[:, d])[0, 1], abs=1e-9)
    assert np.isnan(found[:, 2]).all()

"""What public scripts of this field print, by their definitions: figures that can be laid beside published ones.

`training.metrics` scores windows of motion that the corpus normalises. These score whole sequences in raw units, part
by part (expression, jaw, pose), as the scripts do:

    dim        DIM, as in Avatar Forcing's table: pooled k-means and variance, one correlation of everything
    dualtalk   DualTalk (arXiv 2505.18096) and TIMAR: each figure per sequence, then the mean
    unils      UniLS (arXiv 2512.09327): how far the deviation over time is from the truth's, while speaking, listening
    react      REACT 2023 to 2026: concordance, time warping, diversity of samples, synchrony

A name of one protocol means something else in the next: a SID of `dim` stands beside no SID of `dualtalk`. What cannot
be said is NaN, never 0: a covariance of one frame, a correlation of what does not move, anything of no frames.
Floors are of `python -m benchmarks.floors --dialogues FOLDER` on the two real dialogues in DualTalk's layout, 587
frames each, as exp, jaw, pose: halves of the truth beside each other (`halves`), and white noise of the truth's mean
and deviation. Of two sequences they show an order of magnitude; the row `floor` of every table has one's own.

Shape suffixes: T frames of a sequence, D dimensions of a part, K motions generated for one user. Everything is worked
out in float64, but for k-means: where it ends depends on the type, so arrays keep theirs there, as in the scripts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from visavis.schemas.errors import UsageError
from visavis.training.metrics import mean_defined
from visavis.training.time_warping import dynamic_time_warping

Protocol = Literal["dim", "dualtalk", "unils", "react"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

TD = Float[np.ndarray, "T D"]
KTD = Float[np.ndarray, "K T D"]
MaskT = Bool[np.ndarray, "T"]
Parts = Mapping[str, slice]
"""Columns of a part of the motion by its name: exp, jaw, pose."""

SYNCHRONY_LAG = 49
"""Frames to either side at which REACT looks for synchrony: 2 s at 25 a second, less one."""
_DIM_CLUSTERS, _DUALTALK_CLUSTERS = {"exp": 40}, {"exp": 40}  # and of every other part:
_DIM_OTHERS, _DUALTALK_OTHERS = 20, 10
_EPS = 1e-6  # within the logarithm of every script's entropy
_STEP = 0.1  # by which STS divides, whatever the frame rate
_FEW = 64  # sequences that are scored sooner than other processes have begun


@dataclass(frozen=True)
class Clip:
    """One sequence in raw units, float [T, D] each (`score` holds them against each other).

    listening: frames in which the avatar listens. beside: the user of what was generated, where that is another than
    the truth's (`halves`). more: further motions generated for the same user, which REACT asks for.
    """

    truth: np.ndarray
    user: np.ndarray
    generated: np.ndarray
    listening: np.ndarray | None = None  # bool [T]
    beside: np.ndarray | None = None
    more: tuple[np.ndarray, ...] = ()

    @property
    def partner(self) -> TD:
        """The user of what was generated."""
        return self.user if self.beside is None else self.beside

    @property
    def samples(self) -> KTD:
        return np.stack([self.generated, *self.more])

    def part(self, columns: slice) -> Clip:
        """Some of its columns."""
        return self.each(lambda motion: motion[:, columns])

    def frames(self, chosen_T: MaskT) -> Clip:
        """Some of its frames, one after the other."""
        return replace(self, listening=None).each(lambda motion: motion[chosen_T])

    def double(self) -> Clip:
        """In float64."""
        return self.each(lambda motion: motion.astype(np.float64))

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> Clip:
        """With every side changed."""
        beside = None if self.beside is None else change(self.beside)
        sides = {"truth": change(self.truth), "user": change(self.user), "generated": change(self.generated)}
        return replace(self, **sides, beside=beside, more=tuple(map(change, self.more)))


def score(protocol: Protocol, clips: Sequence[Clip], parts: Parts) -> dict[str, float]:
    """The figures of a protocol by name, FIGURE_PART.

    Raises:
        UsageError: no clips, numbers that are not finite, or sides of one clip that differ in shape.
    """
    from threadpoolctl import threadpool_limits  # of the extra, as scikit-learn below

    _check(clips)
    with threadpool_limits(1):  # matrices are small
        return _SCORES[protocol](clips, parts)


def listening_only(clips: Sequence[Clip]) -> list[Clip]:
    """The clips' listening frames; those without any, or of which nobody says, are left out."""
    return [c.frames(c.listening) for c in clips if c.listening is not None and c.listening.any()]


def halves(clips: Sequence[Clip]) -> list[Clip]:
    """The noise floor: the second half of each truth as if it had been generated for the second half's user. What
    it scores is what a listener scores who is like the person in everything."""
    made = []
    for clip in clips:
        n = len(clip.truth) // 2
        first, second = slice(0, n), slice(n, 2 * n)
        listening = None if clip.listening is None else clip.listening[first] & clip.listening[second]
        made.append(Clip(clip.truth[first], clip.user[first], clip.truth[second], listening, clip.user[second]))
    return made


def baselines(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """What costs nothing, by name, in place of what was generated: the truth itself, the truth half a clip later (a
    person who moves alike and hears nobody), the first frame held, the mean of all frames, the user copied."""
    mean_D = np.concatenate([c.truth for c in clips]).mean(axis=0)

    def instead(make: Callable[[Clip], np.ndarray]) -> list[Clip]:
        return [replace(clip, generated=make(clip), more=()) for clip in clips]

    return {
        "ground_truth": instead(lambda c: c.truth),
        "shifted": instead(lambda c: np.roll(c.truth, len(c.truth) // 2, axis=0)),
        "hold_still": instead(lambda c: np.broadcast_to(c.truth[:1], c.truth.shape)),
        "mean_motion": instead(lambda c: np.broadcast_to(mean_D, c.truth.shape)),
        "copy_user": instead(lambda c: c.user),
    }


def dim(clips: Sequence[Clip], parts: Parts) -> dict[str, float]:
    """FD, P-FD, MSE and L2 per sequence, then the mean; SID, Var, rPCC and STS of all frames as one sequence.

    Formula: FD `frechet_distance`; P-FD the same of [user, avatar]; MSE the mean square; L2 the mean of ‖·‖;
        SID `entropy_over_clusters` of the truth, 40 of the expression and 20 of anything else; Var of all numbers;
        rPCC |corr(truth, user) − corr(generated, user)|, all numbers as one vector; STS `sts`.
    Source: DIM's script; L2 of Learning to Listen.
    Space: raw; each part.
    Floor: halves: FD 4.3, 5e-4, .010; P-FD 11, .0011, .020; MSE .55, .0024, .0094; L2 4.9, .065, .13; SID 4.4, 3.9, 2.9
        (the truth 5.0, 4.0, 3.6); rPCC .024, .11, .24; STS 146, 2.7, 2.0. Noise: FD 12, 5e-5, 5e-4; rPCC .027, .024,
        .006; STS 560, 8.6, 18; MSE as halves.
    Edges: one frame has MSE, L2, Var and, of several columns, rPCC, the others NaN; a constant dimension as any, and
        rPCC NaN where a side is all constant; no frames NaN (`listening_only` leaves such clips out).
    """

    def of_part(name: str, columns: slice) -> Iterator[tuple[str, float]]:
        some = [clip.part(columns) for clip in clips]
        yield from _each_then_mean(some, _exact(_DISTANCES | {"L2": _l2}))
        whole = _joined(some)
        yield "SID", entropy_over_clusters(whole.truth, whole.generated, _DIM_CLUSTERS.get(name, _DIM_OTHERS))
        whole = whole.double()
        yield "Var", float(whole.generated.var()) if whole.generated.size else math.nan
        yield "rPCC", _rpcc(whole)
        yield "STS", sts(whole.truth, whole.generated)

    return _by_part(parts, of_part)


def dualtalk(clips: Sequence[Clip], parts: Parts) -> dict[str, float]:
    """Everything per sequence, then the mean over those in which it is defined.

    Formula: as `dim`, but SID: DualTalk clusters the *prediction* and takes the entropy of the *truth* over them, 40
        clusters of the expression, 10 of jaw and pose; SID-truth is the other direction, which TIMAR prints beside it;
        Var the mean over dimensions of the variance over time (n).
    Source: DualTalk (arXiv 2505.18096), TIMAR.
    Space: raw; each part.
    Floor: halves: FD, P-FD and MSE as `dim`; SID 3.8, 2.6, 2.5 (the truth 5.0, 3.0, 3.0); SID-truth 4.1, 3.0, 1.9; rPCC
        .033, .037, .22. Noise: SID 3.8, 2.9, 3.1; rPCC .027, .062, .014.
    Edges: as `dim`; Var of one frame 0; SID of fewer frames than clusters NaN.
    """

    def of_part(name: str, columns: slice) -> Iterator[tuple[str, float]]:
        k = _DUALTALK_CLUSTERS.get(name, _DUALTALK_OTHERS)
        clusters: dict[str, Callable[[Clip], float]] = {
            "SID": lambda c: entropy_over_clusters(c.generated, c.truth, k),
            "SID-truth": lambda c: entropy_over_clusters(c.truth, c.generated, k),
        }
        figures = _DISTANCES | {
            "Var": lambda c: float(c.generated.var(axis=0).mean()) if c.generated.size else math.nan,
            "rPCC": _rpcc,
            "STS": lambda c: sts(c.truth, c.generated),
        }
        some = [clip.part(columns) for clip in clips]
        yield from _each_then_mean(some, clusters)
        yield from _each_then_mean(some, _exact(figures))

    return _by_part(parts, of_part)


def unils(clips: Sequence[Clip], parts: Parts) -> dict[str, float]:
    """FDD, PDD, JDD: 100 × mean over dimensions and sequences of |deviation over time of what was generated − of the
    truth|, over all frames, over listening and over speaking ones. Deviations divide by T.

    Formula: as above; a part `upper` is FDD, exp FDD-exp, pose PDD, jaw JDD.
    Source: UniLS (arXiv 2512.09327), which takes FDD of the upper face's vertices, for which one needs the FLAME model.
        FDD-exp, of coefficients, stands beside no published figure.
    Space: raw; each part.
    Floor: halves, all frames: FDD-exp 8.2, JDD .71, PDD 2.8; noise of the truth's own deviation 1.1, .027, .13.
    Edges: one frame NaN; a constant dimension counts with its truth's deviation; no listening frame NaN.
    """
    found: dict[str, float] = {}
    for part, columns in parts.items():
        name = {"upper": "FDD", "exp": "FDD-exp", "pose": "PDD", "jaw": "JDD"}.get(part, f"DD_{part}")
        some = [clip.part(columns).double() for clip in clips]
        known = [clip for clip in some if clip.listening is not None]
        speaking = [clip.frames(~clip.listening) for clip in known if clip.listening is not None]
        for frames, chosen in {"": some, "_listening": listening_only(some), "_speaking": speaking}.items():
            found[name + frames] = mean_defined(np.array([_deviation_gap(clip) for clip in chosen]))
    return found


def react(clips: Sequence[Clip], parts: Parts) -> dict[str, float]:
    """REACT's figures of K motions for each user, over all columns of `parts` together. Of one motion FRDiv is NaN.

    Formula: FRCorr: concordance of motion and truth, mean over dimensions, summed over K, mean over clips.
    FRDist: dynamic time warping between them part by part, each divided by its dimensions, summed over parts and K.
    FRDiv: mean squared difference between two of the K. FRVar: variance over time (T − 1). FRDvs: mean squared
    difference between motions for two users, over as many frames as the shortest clip has.
    FRSyn: |lag| within ± 49 frames at which motion and user correlate most, the mean over K and clips. NaN of clips of
    fewer than 51 frames, of which the script prints 49 whatever moves; as it does where a dimension never moves.
    The appropriate reactions of other clips, which the challenge also allows, are not looked for.

    Source: the challenge's script, REACT 2023 to 2026.
    Space: raw; all columns together, FRDist by part.
    Floor: K = 1: the truth FRCorr 1, FRDist 0; halves −.07 and 2.2; noise −.001 and 3.7; FRVar of the truth .23, FRDvs
        .88, FRSyn 44 (halves 43, noise 15: of two clips it says nothing).
    Edges: one frame has FRCorr, FRDist and FRDvs, the others NaN; a constant dimension has a concordance of 0
        and is left out of FRSyn; no frames NaN.
    """
    columns = np.concatenate([np.arange(10**6)[part] for part in parts.values()]) if parts else np.arange(0)
    some = [clip.each(lambda motion: motion[:, columns].astype(np.float64)) for clip in clips]
    places = _places(parts)
    figures: dict[str, Callable[[Clip], float]] = {
        "FRCorr": lambda c: sum(concordance(c.truth, motion) for motion in c.samples),
        "FRDist": lambda c: sum(_warped(c.truth, motion, places) for motion in c.samples),
        "FRDiv": lambda c: _spread(c.samples),
        "FRVar": lambda c: float(c.samples.var(axis=1, ddof=1).mean()) if len(c.truth) > 1 else math.nan,
        "FRSyn": lambda c: mean_defined(np.array([synchrony(motion, c.partner) for motion in c.samples])),
    }
    found = dict(_each_then_mean(some, figures))
    shortest = min(len(clip.truth) for clip in some)
    for_each = [_spread(np.stack(same)) for same in zip(*(clip.samples[:, :shortest] for clip in some), strict=False)]
    return found | {"FRDvs": mean_defined(np.array(for_each))}


def frechet_distance(one_TD: TD, two_TD: TD) -> float:
    """FD of two sets of frames.

    Formula: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), covariances over n − 1.
    Source: Heusel et al. 2017, Eq. 6; DIM, DualTalk, TIMAR.
    Space: raw; a part.
    Floor: `dim`.
    Edges: one frame or none NaN; a constant dimension as any.

    The trace of the root is the sum of the singular values of R₁R₂ᵀ, where Σ = RᵀR from a QR decomposition: exact to
    rounding where a covariance has no full rank, too, as that of 50 frames in 100 dimensions.
    """
    if min(len(one_TD), len(two_TD)) < 2:
        return math.nan
    gap = one_TD.mean(axis=0) - two_TD.mean(axis=0)
    one, two = _root(one_TD), _root(two_TD)
    crossed = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + (one * one).sum() + (two * two).sum() - 2 * crossed))


def _root(motion_TD: TD) -> np.ndarray:
    """R of a covariance RᵀR."""
    centred = motion_TD - motion_TD.mean(axis=0)
    return np.asarray(np.linalg.qr(centred, mode="r")) / math.sqrt(len(motion_TD) - 1)


def entropy_over_clusters(fitted_TD: TD, counted_TD: TD, clusters: int) -> float:
    """SID.

    Formula: −Σ p log₂(p + 1e-6), p the share of `counted_TD` in each of the k-means clusters of `fitted_TD`:
        scikit-learn's with random_state 0 and n_init "auto", as all scripts have it.
    Source: DIM, DualTalk, TIMAR.
    Space: raw; a part.
    Floor: `dim`, `dualtalk`.
    Edges: fewer fitted frames than clusters NaN, so one frame and none; a constant dimension as any.
    """
    from sklearn.cluster import KMeans

    if len(fitted_TD) < clusters or not len(counted_TD):
        return math.nan
    means = KMeans(n_clusters=clusters, random_state=0, n_init="auto").fit(fitted_TD)
    share_K = np.bincount(means.predict(counted_TD), minlength=clusters) / len(counted_TD)
    return float(-(share_K * np.log2(share_K + _EPS)).sum())


def sts(truth_TD: TD, generated_TD: TD) -> float:
    """STS, which grows with the length.

    Formula: √(Σ (Δ truth − Δ generated)² / 0.1), over frames and dimensions.
    Source: DIM, DualTalk; they divide by 0.1 whatever the frame rate.
    Space: raw; a part.
    Floor: `dim`.
    Edges: one frame or none NaN; a constant dimension adds what the other side moves.
    """
    if len(truth_TD) < 2:
        return math.nan
    return math.sqrt(float(((np.diff(truth_TD, axis=0) - np.diff(generated_TD, axis=0)) ** 2).sum()) / _STEP)


def concordance(truth_TD: TD, generated_TD: TD) -> float:
    """Concordance.

    Formula: 2 cov / (var₁ + var₂ + (μ₁ − μ₂)² + 1e-8), mean over dimensions.
    Source: Lin 1989; REACT adds the last term.
    Space: raw.
    Floor: the truth itself 1, halves of it −.07, noise −.001.
    Edges: one frame 0; a constant dimension 0; no frames NaN.
    """
    if not len(truth_TD):
        return math.nan
    a, b = truth_TD - truth_TD.mean(axis=0), generated_TD - generated_TD.mean(axis=0)
    gap = truth_TD.mean(axis=0) - generated_TD.mean(axis=0)
    covariance = (a * b).mean(axis=0)
    return float((2 * covariance / ((a * a).mean(axis=0) + (b * b).mean(axis=0) + gap * gap + 1e-8)).mean())


def synchrony(motion_TD: TD, user_TD: TD, lag: int = SYNCHRONY_LAG) -> float:
    """|lag| of most correlation, frames.

    Formula: |argmax| over lags of the mean over dimensions of the correlation, the first of equals from the most
        negative on; NaN, unless two frames are left at every lag.
    Source: REACT, whose script returns 49 for clips of 50 frames, whatever moves.
    Space: raw.
    Floor: any lag is as likely of noise: of 49 about 24.
    Edges: fewer than lag + 2 frames NaN; a constant dimension is left out, all constant NaN; no frames NaN.
    """
    if len(motion_TD) < lag + 2:
        return math.nan
    mean_L = np.array([mean_defined(each_D) for each_D in lagged_correlations(motion_TD, user_TD, lag)])
    if np.isnan(mean_L).all():  # one of the two holds still
        return math.nan
    return float(abs(int(np.nanargmax(mean_L)) - lag))


def lagged_correlations(motion_TD: TD, user_TD: TD, lag: int) -> Float[np.ndarray, "L D"]:
    """Correlation of each dimension with the user's at every lag from −lag (the user follows) to lag, over the frames
    that both have there; NaN where one of the two does not move.

    Sums of products come from Fourier transforms, those of one side from running sums, both about the mean of all.
    """
    frames = len(motion_TD)
    a_TD, b_TD = motion_TD - motion_TD.mean(axis=0), user_TD - user_TD.mean(axis=0)
    size = 1 << (frames + lag).bit_length()
    spectrum = np.fft.rfft(a_TD, size, axis=0) * np.fft.rfft(b_TD, size, axis=0).conj()
    shifts_L = np.arange(-lag, lag + 1)
    products_LD = np.fft.irfft(spectrum, size, axis=0)[shifts_L]
    begin_L, late_L = np.maximum(shifts_L, 0), np.maximum(-shifts_L, 0)
    count_L1 = (frames - np.abs(shifts_L))[:, None]

    def moments(side_TD: TD, first_L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum and squared deviation of the frames that are left, [L, D]; 0 for what is rounding alone."""
        sums, squares = (np.pad(np.cumsum(x, axis=0), ((1, 0), (0, 0))) for x in (side_TD, side_TD * side_TD))
        last_L = first_L + count_L1[:, 0]
        total_LD, power_LD = sums[last_L] - sums[first_L], squares[last_L] - squares[first_L]
        spread_LD = power_LD - total_LD * total_LD / count_L1
        return total_LD, np.where(spread_LD > 1e-12 * squares[-1], spread_LD, 0.0)

    (a_sum, a_power), (b_sum, b_power) = moments(a_TD, begin_L), moments(b_TD, late_L)
    power_LD = np.sqrt(a_power * b_power)
    return np.divide(
        products_LD - a_sum * b_sum / count_L1, power_LD, out=np.full(power_LD.shape, math.nan), where=power_LD > 0
    )


def _check(clips: Sequence[Clip]) -> None:
    if not clips:
        raise UsageError("there are no sequences to score")
    for number, clip in enumerate(clips):
        sides = [clip.truth, clip.user, clip.generated, *clip.more, *(() if clip.beside is None else (clip.beside,))]
        if len({side.shape for side in sides}) > 1:
            raise UsageError(
                f"sequence {number}: sides of {', '.join(str(side.shape) for side in sides)} do not compare"
            )
        if not all(np.isfinite(side).all() for side in sides):
            raise UsageError(f"sequence {number}: a number is not finite")


def _by_part(parts: Parts, of_part: Callable[[str, slice], Iterator[tuple[str, float]]]) -> dict[str, float]:
    return {f"{figure}_{name}": value for name, part in parts.items() for figure, value in of_part(name, part)}


def _each_then_mean(
    clips: Sequence[Clip], figures: Mapping[str, Callable[[Clip], float]]
) -> Iterator[tuple[str, float]]:
    """The mean of every figure over the clips in which it is defined.

    In processes, one a core: k-means of a few hundred frames is mostly Python, so threads wait for each other.
    """
    if len(clips) <= _FEW:
        each = [_of_clip(list(figures.values()), clip) for clip in clips]
    else:
        from joblib import Parallel, delayed

        each = Parallel(n_jobs=-1)(delayed(_of_clip)(list(figures.values()), clip) for clip in clips)
    for name, values in zip(figures, zip(*each, strict=True), strict=True):
        yield name, mean_defined(np.array(values))


def _of_clip(figures: Sequence[Callable[[Clip], float]], clip: Clip) -> list[float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")  # of a face that holds still
        return [figure(clip) for figure in figures]


def _exact(figures: Mapping[str, Callable[[Clip], float]]) -> dict[str, Callable[[Clip], float]]:
    """The same in float64, one clip at a time: all of a large test set would not fit into 1 GB."""
    return {name: lambda clip, figure=figure: figure(clip.double()) for name, figure in figures.items()}  # type: ignore[misc]


def _joined(clips: Sequence[Clip]) -> Clip:
    sides = zip(*((c.truth, c.user, c.generated, c.partner) for c in clips), strict=True)
    truth, user, generated, beside = (np.concatenate(side) for side in sides)
    return Clip(truth, user, generated, beside=beside)


def _fd(clip: Clip) -> float:
    return frechet_distance(clip.truth, clip.generated)


def _paired_fd(clip: Clip) -> float:
    """FD of user and avatar together, so of how they move with each other."""
    pairs = (clip.user, clip.truth), (clip.partner, clip.generated)
    return frechet_distance(*(np.concatenate(pair, axis=1) for pair in pairs))


def _mse(clip: Clip) -> float:
    return float(((clip.truth - clip.generated) ** 2).mean()) if clip.truth.size else math.nan


def _l2(clip: Clip) -> float:
    """Mean over frames of the Euclidean distance (Learning2Listen)."""
    return float(np.linalg.norm(clip.truth - clip.generated, axis=1).mean()) if clip.truth.size else math.nan


_DISTANCES: dict[str, Callable[[Clip], float]] = {"FD": _fd, "P-FD": _paired_fd, "MSE": _mse}


def _rpcc(clip: Clip) -> float:
    """|corr(truth, user) − corr(generated, user)|, frames and dimensions as one vector."""
    if not clip.truth.size:
        return math.nan
    pairs = (clip.truth, clip.user), (clip.generated, clip.partner)
    real, made = (float(_correlations(a.reshape(-1, 1), b.reshape(-1, 1))[0]) for a, b in pairs)
    return abs(real - made)


def _correlations(a_TD: TD, b_TD: TD) -> np.ndarray:
    """Of each dimension, [D]; NaN where one of the two does not move."""
    a, b = a_TD - a_TD.mean(axis=0), b_TD - b_TD.mean(axis=0)
    power = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), power, out=np.full(a.shape[1], math.nan), where=power > 0)


def _deviation_gap(clip: Clip) -> float:
    if len(clip.truth) < 2:
        return math.nan
    return 100 * float(np.abs(clip.generated.std(axis=0) - clip.truth.std(axis=0)).mean())


def _places(parts: Parts) -> list[slice]:
    """Where each part lies when only the columns of parts are kept, one part after the other."""
    ends = np.cumsum([part.stop - part.start for part in parts.values()]).tolist()
    return [slice(end - (part.stop - part.start), end) for end, part in zip(ends, parts.values(), strict=True)]


def _warped(truth_TD: TD, generated_TD: TD, parts: Sequence[slice]) -> float:
    if not len(truth_TD):
        return math.nan
    return sum(dynamic_time_warping(generated_TD[:, p], truth_TD[:, p]) / (p.stop - p.start) for p in parts)


def _spread(motions_KTD: KTD) -> float:
    """Mean squared difference between two different ones; NaN of fewer than two."""
    count = len(motions_KTD)
    if count < 2:
        return math.nan
    flat_KN = motions_KTD.reshape(count, -1)
    centred_KN = flat_KN - flat_KN.mean(axis=0)
    return 2 * float((centred_KN * centred_KN).sum()) / ((count - 1) * flat_KN.shape[1])


_SCORES: dict[Protocol, Callable[[Sequence[Clip], Parts], dict[str, float]]] = {
    "dim": dim,
    "dualtalk": dualtalk,
    "unils": unils,
    "react": react,
}

"""Is this the same person? A log-likelihood ratio of two faces' textures, in nats.

What is compared, turn by turn (`stages.face.texture.TURNS`), and only where both were seen:

    pattern    three maps (log luminance; red and blue against green), each without what is smooth in it (light) and
               without what all faces have (the mean texture at this turn): brows, folds, beard, moles, glasses
    tint       the colour of the skin as a whole

A logistic regression puts the three correlations and the distance of tints together; how far the heads are turned apart
weakens each. It and the mean texture were learned from people of `benchmarks.identity`, other than those it reports.

What a recording itself is sure of moves the regression (`Scale.adapted`): one track shows one person, faces seen at
once are two. Until it shows two at once, how much its light and camera make people alike is unknown, and it takes more
to call two faces one. No common view is 0 nats: unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

import numpy as np
from safetensors.numpy import load as load_tensors

from visavis.stages.face.texture import SEEN, TEXELS, TURNS, used_texels

_SMOOTH = 3.0  # texels; what varies more slowly than this is light
_DARK = 8.0  # grey levels that are added before the logarithm: noise
_TINT = 0.05  # a distance of tints that says nothing
_COMMON = 0.12  # of the texels: a smaller common view is none
_SAME_TURN = 4.0  # how much more two views of one turn count than two that are 20° apart
_MOST = 8.0  # nats
_SURE = 6.0  # as many pairs of each kind as a recording's own count for at most
_TRUST = 4.0  # 1 / variance of the regression's weights from recording to recording
_SHIFT = 3.0  # nats: deviation of its constant from recording to recording; two people of one of 18 rendered ones
_WEIGHTS = np.array([5.88, 6.48, 5.9, -1.42, 0.08, -0.3, -0.65, -0.33, 1.55, -6.62])


@dataclass(frozen=True)
class View:
    """A face at one turn. pattern_3K: the maps, weight_K 0…1: how well each texel was seen. tint_2K: log R/G, B/G."""

    turn: int
    pattern_3K: np.ndarray
    tint_2K: np.ndarray
    weight_K: np.ndarray


@dataclass(frozen=True)
class Appearance:
    """total_BSS3, seen_BSS: sums over all that was seen of somebody. float32."""

    total_BSS3: np.ndarray
    seen_BSS: np.ndarray

    @classmethod
    def of(cls, textures: Sequence[np.ndarray]) -> Appearance:
        """Of one or several tracks' textures (`stages.face.texture.by_turn`)."""
        seen = [texture[..., 3].astype(np.float32) / SEEN for texture in textures]
        total = [t[..., :3] * s[..., None] for t, s in zip(textures, seen, strict=True)]
        return cls(np.sum(total, axis=0), np.sum(seen, axis=0))

    @classmethod
    def sum(cls, parts: Sequence[Appearance]) -> Appearance:
        """What is known of somebody from several faces."""
        if len(parts) == 1:
            return parts[0]
        return cls(np.sum([p.total_BSS3 for p in parts], axis=0), np.sum([p.seen_BSS for p in parts], axis=0))

    @cached_property
    def views(self) -> list[View]:
        """Of the turns at which the face was seen."""
        return [self._view(turn) for turn in range(len(TURNS)) if self.seen_BSS[turn].sum() > _COMMON * used_texels()]

    @cached_property
    def amount(self) -> float:
        """Frames, about."""
        return float(self.seen_BSS.sum()) / used_texels()

    def mirrored(self) -> Appearance:
        return Appearance(self.total_BSS3[::-1, :, ::-1], self.seen_BSS[::-1, :, ::-1])

    def _view(self, turn: int) -> View:
        seen_SS = self.seen_BSS[turn]
        weight_SS = seen_SS / (seen_SS + 1.0)  # one frame is half as good as many
        colour_SS3 = np.log(self.total_BSS3[turn] / np.maximum(seen_SS, 1e-6)[..., None] + _DARK)
        maps_3SS = channels(colour_SS3)
        pattern_3K = np.stack(
            [
                _without(_detail(map_SS, weight_SS).ravel(), usual, weight_SS.ravel())
                for map_SS, usual in zip(maps_3SS, usual_patterns()[turn], strict=True)
            ]
        )
        return View(turn, pattern_3K, maps_3SS[1:].reshape(2, -1), weight_SS.ravel())


def channels(colour_SS3: np.ndarray) -> np.ndarray:
    """Luminance, red and blue against green: float32 [3, S, S], of logarithms of RGB."""
    luma = colour_SS3 @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.stack([luma, *(colour_SS3[..., c] - colour_SS3[..., 1] for c in (0, 2))]).astype(np.float32)


def _detail(map_SS: np.ndarray, weight_SS: np.ndarray) -> np.ndarray:
    """Against the mean of what was seen around."""
    import cv2

    around = cv2.GaussianBlur(map_SS * weight_SS, (0, 0), _SMOOTH)
    detail: np.ndarray = map_SS - around / np.maximum(cv2.GaussianBlur(weight_SS, (0, 0), _SMOOTH), 1e-3)
    return detail


def _without(map_K: np.ndarray, usual_K: np.ndarray, weight_K: np.ndarray) -> np.ndarray:
    """What is left after the weighted regression on the usual map."""
    total = weight_K.sum()
    usual_K = usual_K - weight_K @ usual_K / total
    map_K = map_K - weight_K @ map_K / total
    rest: np.ndarray = map_K - usual_K * (weight_K @ (map_K * usual_K)) / max(float(weight_K @ usual_K**2), 1e-9)
    return rest


@cache
def usual_patterns() -> np.ndarray:
    """Mean details of all faces at each of the turns: float32 [B, 3, K]."""
    data = load_tensors(resources.files("visavis.stages").joinpath("data", "mean_texture.safetensors").read_bytes())
    return data["detail"].astype(np.float32).reshape(len(TURNS), 3, TEXELS * TEXELS)


def compared(a: View, b: View) -> tuple[np.ndarray, float] | None:
    """What tells, and how much was seen in both (frames of a face, about); None without a common view.

    Features: three correlations, the log of the tints' distance; these times how far apart the turns are; that; 1.
    """
    weight_K = np.minimum(a.weight_K, b.weight_K)
    common = float(weight_K.sum())
    if common < _COMMON * used_texels() / 2:
        return None
    agreed = [_correlation(one, other, weight_K) for one, other in zip(a.pattern_3K, b.pattern_3K, strict=True)]
    tint = float(np.hypot(*((a.tint_2K - b.tint_2K) @ weight_K / common)))
    cues = np.array([*agreed, np.log(tint + _TINT)])
    apart = abs(TURNS[a.turn] - TURNS[b.turn]) / 45
    return np.array([*cues, *(cues * apart), apart, 1.0]), common / used_texels()


def _correlation(a_K: np.ndarray, b_K: np.ndarray, weight_K: np.ndarray) -> float:
    total = weight_K.sum()
    a_K, b_K = a_K - weight_K @ a_K / total, b_K - weight_K @ b_K / total
    scale = float(np.sqrt((weight_K @ a_K**2) * (weight_K @ b_K**2)))
    return float(weight_K @ (a_K * b_K)) / scale if scale > 1e-9 else 0.0


@dataclass(frozen=True)
class Scale:
    """weights_F: of the features. spread_FF: their covariance, for how far a recording may be from what was learned."""

    weights_F: np.ndarray
    spread_FF: np.ndarray

    def same(self, a: Appearance, b: Appearance) -> float:
        """log P(what is seen | one person) − log P(… | two), nats; 0 without a common view.

        Views of one turn tell most. They are averaged, not added: all show the same skin.
        """
        ratios, counts = [0.0], [1e-3]
        for one in a.views:
            for other in b.views:
                found = compared(one, other)
                if found is not None:
                    features, common = found
                    ratios.append(self._ratio(features))
                    counts.append(common / _SAME_TURN ** abs(one.turn - other.turn))
        return float(np.average(ratios, weights=counts))

    def _ratio(self, features_F: np.ndarray) -> float:
        """Expected under the spread (MacKay 1992) where it says "the same".

        Light, camera and make-up, which two people of one recording share, make them more alike, and how much is not
        known until two are seen at once. Nothing alike makes one person two.
        """
        ratio = float(features_F @ self.weights_F)
        if ratio > 0:
            ratio /= np.sqrt(1 + np.pi / 8 * float(features_F @ self.spread_FF @ features_F))
        return float(np.clip(ratio, -_MOST, _MOST))

    def adapted(self, people: Sequence[Appearance], two: Sequence[tuple[int, int]]) -> Scale:
        """Moved by what is certain: the views of each of `people` show one person, the pairs `two` show two.

        Maximum a posteriori, by Newton's method, and how sure that is (Laplace). Where one kind is missing nothing
        moves: alone it would only say that all are one, or that none is.
        """
        same = [f for p in people for i, a in enumerate(p.views) for b in p.views[i + 1 :] if (f := compared(a, b))]
        other = [
            f for i, j in two for a in people[i].views for b in people[j].views if (f := compared(a, b)) is not None
        ]
        if not same or not other:
            return self
        features_NF = np.stack([features for features, _ in same + other])
        is_same_N = np.repeat([1.0, 0.0], [len(same), len(other)])
        count_N = np.where(is_same_N, min(1.0, _SURE / len(same)), min(1.0, _SURE / len(other)))
        trust_FF, weights_F = np.linalg.inv(self.spread_FF), self.weights_F.copy()
        for _ in range(8):
            expected_N = 1 / (1 + np.exp(-features_NF @ weights_F))
            slope_F = features_NF.T @ (count_N * (is_same_N - expected_N)) - trust_FF @ (weights_F - self.weights_F)
            curve_FF = (features_NF.T * (count_N * expected_N * (1 - expected_N))) @ features_NF + trust_FF
            weights_F += np.linalg.solve(curve_FF, slope_F)
        return Scale(weights_F, np.linalg.inv(curve_FF))


def learned() -> Scale:
    """What `benchmarks.identity` learned from many people."""
    spread_FF = np.eye(len(_WEIGHTS)) / _TRUST
    spread_FF[-1, -1] += _SHIFT**2
    return Scale(_WEIGHTS, spread_FF)

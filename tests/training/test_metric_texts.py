"""Every public metric says what it is and what it answers at the edges; the answers are as it says."""

from __future__ import annotations

import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest

from visavis.training import granger, metrics, protocols, reactions
from visavis.training.granger import Space, user_gain
from visavis.training.metrics.correlation import pcc, rpcc, rpcc_flat
from visavis.training.metrics.distributions import fd, sid
from visavis.training.metrics.lags import lagged
from visavis.training.metrics.movement import jerk, var
from visavis.training.protocols.clips import Clip, halves, listening_only
from visavis.training.protocols.score import PROTOCOLS, Protocol, score
from visavis.training.reactions import Reactions
from visavis.training.sequences import Recorded, Side

SAID = ("Formula:", "Source:", "Space:", "Floor:", "Edges:")
ANSWERS = {"float", "dict[str, float]", "dict[str, Mean]", "dict[Kind, dict[str, float]]", "Lagged", "Followed", "Gain"}
PARTS = {
    "mean_defined",
    "flat_pcc",
    "lagged_from",
    "mean_jerk",
    "entropy",
    "frechet",
    "p_value",
    "score",
    "means",
    "by_part",
}
"""What a metric is made of, or what calls one by its name."""


def public_metrics() -> dict[str, Callable[..., object]]:
    """Functions and methods of the modules whose answer is a figure, by name."""
    found: dict[str, Callable[..., object]] = {}
    for module in modules():
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) != module.__name__ or name.startswith("_"):
                continue
            of = vars(thing).values() if inspect.isclass(thing) else [thing]
            for each in of:
                if inspect.isfunction(each) and not each.__name__.startswith("_"):
                    returned = inspect.get_annotations(each).get("return")
                    if returned in ANSWERS and each.__name__ not in PARTS:
                        found[f"{short(module)}.{each.__qualname__}"] = each
    return found


def modules() -> Iterator[ModuleType]:
    for package in (metrics, protocols):
        yield from (import_module(each.name) for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}."))
    yield from (reactions, granger)


def short(module: ModuleType) -> str:
    return module.__name__.removeprefix("visavis.training.")


METRICS = public_metrics()


def test_the_metrics_are_found() -> None:
    names = {name.partition(".")[0] for name in METRICS}
    assert names == {"metrics", "protocols", "reactions", "granger"}
    wanted = {
        "metrics.distributions.fd",
        "protocols.dualtalk.dualtalk",
        "protocols.react.synchrony",
        "reactions.Reactions.figures",
        "reactions.lagged",
    }
    assert wanted | {"granger.user_gain"} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_formula_source_space_floor_and_edges(name: str) -> None:
    text = METRICS[name].__doc__ or ""
    missing = [said for said in SAID if said not in text]
    assert not missing, f"{name} does not say {', '.join(missing)}"


DIMS, FRAMES = 3, 60
RANDOM = np.random.default_rng(0)
TRUTH, USER, MADE = RANDOM.standard_normal((3, 1, FRAMES, DIMS)).cumsum(axis=2)
NAN, ANY = math.nan, None
"""ANY: a number, whichever."""

# metric: answers to one frame, to a dimension in which what was generated is constant, to no frames
WINDOWED: dict[str, tuple[Callable[..., float], tuple[float | None, ...]]] = {
    "pcc": (lambda t, u, g, v: pcc(g, u, v), (NAN, ANY, NAN)),
    "rpcc": (lambda t, u, g, v: rpcc(t, g, u, v), (NAN, ANY, NAN)),
    "rpcc_flat": (lambda t, u, g, v: rpcc_flat(t, g, u, v), (ANY, ANY, NAN)),
    "lagged": (lambda t, u, g, v: max(lagged(g, u, v).correlation), (NAN, ANY, NAN)),
    "var": (lambda t, u, g, v: var(g, v), (NAN, ANY, NAN)),
    "jerk": (lambda t, u, g, v: jerk(g, v), (NAN, ANY, NAN)),
    "sid": (lambda t, u, g, v: sid(t[v], g[v], 4), (0.0, ANY, NAN)),
    "fd": (lambda t, u, g, v: fd(t[v], g[v]), (NAN, ANY, NAN)),
}


@pytest.mark.parametrize("name", WINDOWED)
def test_answers_of_windows_at_the_edges(name: str) -> None:
    figure, (one, constant, none) = WINDOWED[name]
    held = MADE.copy()
    held[..., 1] = 0.5
    valid = np.ones((1, FRAMES), bool)
    same(figure(TRUTH, USER, held, valid), constant)
    first = np.arange(FRAMES)[None] == 0
    same(figure(TRUTH, USER, MADE, first), one)
    same(figure(TRUTH, USER, MADE, ~valid), none)


def same(found: float, wanted: float | None) -> None:
    assert math.isfinite(found) if wanted is None else found == pytest.approx(wanted, nan_ok=True), found


def clip(frames: int, *, held: bool = False, still: bool = False) -> Clip:
    made = MADE[0].copy()
    made[:, 1] = 0.5 if held or still else made[:, 1]
    made = np.full_like(made, 0.5) if still else made
    sides = (side[:frames] for side in (TRUTH[0], USER[0], made))
    return Clip(*sides, listening=np.zeros(frames, bool))


ONE_FRAME = {
    "dim": {"MSE", "L2", "Var", "rPCC"},
    "dualtalk": {"MSE", "Var", "rPCC"},
    "unils": set[str](),
    "react": {"FRCorr", "FRDist"},
}
"""Figures that a sequence of one frame has."""
STILL = {"dim": {"rPCC"}, "dualtalk": {"rPCC"}, "unils": set[str](), "react": {"FRSyn", "FRSyn-2024"}}
"""Figures that are lost where nothing moves."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_of_protocols_at_the_edges(protocol: Protocol) -> None:
    def defined(*clips: Clip) -> set[str]:
        found = score(protocol, clips, {"exp": slice(0, DIMS)})
        return {name.partition("_exp")[0] for name, value in found.items() if not math.isnan(value)}

    whole = defined(clip(FRAMES))
    assert defined(clip(1)) == ONE_FRAME[protocol]
    assert defined(clip(FRAMES, held=True)) == whole
    assert defined(clip(FRAMES, still=True)) == whole - STILL[protocol]
    assert defined(clip(0)) == set()
    assert listening_only([clip(FRAMES)]) == []
    assert defined(*halves([clip(1)])) == set(), "half of one frame is none"


def recorded(frames: int, person: str) -> Recorded:
    sides = (side[0, :frames] for side in (TRUTH, USER))
    silence = np.zeros(0, np.float32)
    speaks = (np.arange(frames) % 20 < 10).astype(np.uint8) * 2
    return Recorded(
        person, Side(person, person, "u"), *sides, speaks, np.ones(frames, bool), np.zeros(DIMS), silence, silence
    )


@pytest.mark.parametrize("frames", [0, 1])
def test_timing_of_no_frames_and_of_one_is_not_said(frames: int) -> None:
    few = [recorded(frames, "a"), recorded(frames, "b")]
    motions = [each.truth for each in few]
    assert all(math.isnan(value) for value in vars(reactions.lagged(few, motions)).values())
    assert math.isnan(user_gain(few, motions, Space.of(few)).value)
    found = Reactions(few, {"pitch": np.eye(DIMS)[0]}).figures(motions)["nod"]
    assert all(math.isnan(found[name]) for name in ("recall", "chance", "p", "delay_s", "precision", "onset_error_s"))


def test_timing_of_what_is_constant() -> None:
    some = [recorded(FRAMES, person) for person in "abcde"]
    still = [np.full_like(each.truth, 0.5) for each in some]
    held = [each.truth * [1, 0, 1] for each in some]
    assert math.isnan(reactions.lagged(some, still).best)
    assert math.isnan(user_gain(some, still, Space.of(some)).value)
    assert math.isfinite(reactions.lagged(some, held).best)
    assert math.isfinite(user_gain(some, held, Space.of(some)).value)
    found = Reactions(some, {"pitch": np.eye(DIMS)[0]}).figures(still)["nod"]
    assert found["events_min"] == 0
    assert math.isnan(found["delay_s"])

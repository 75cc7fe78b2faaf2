"""What a study shows: held-out windows, or pairs, with the motion of every system, and what was measured of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from visavis.pipeline.page.votes import RECORDED, Trial
from visavis.pipeline.view.film import write_film
from visavis.pipeline.view.looks import Looks
from visavis.pipeline.view.timeline import AVATAR
from visavis.pipeline.view.windows import People, Version, people_of, window_scene
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import ShardEntry, Split
from visavis.schemas.pairs import REACTIVITY
from visavis.schemas.sample import Sample
from visavis.stages.face.decode import avatar_of
from visavis.stages.pairing.measurements import normalised
from visavis.stages.pairing.reactivity import reactivity
from visavis.stages.pairing.reference_statistics import learn_from
from visavis.training.dataset import Dataset, choose
from visavis.training.metrics.correlation import window_pcc
from visavis.training.metrics.movement import jerk, var
from visavis.training.metrics.windows import columns

_LOOKED_AT = 4000  # windows to draw from
_MARGINS = ("reactivity_margin", "lagged_margin", "event_margin", "energy_margin", "distance")


@dataclass
class Shown:
    """A window: its sample, what draws it, the avatar's motion [T, D] by system, and what was measured of it."""

    sample: Sample
    people: People
    shard: str  # its path in the dataset
    motions: dict[str, np.ndarray] = field(default_factory=dict)
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    margins: dict[str, float | None] = field(default_factory=dict)


def choose_windows(
    data: Dataset, count: int, seed: int, looks: Looks, *, label: WindowClass | None, splits: Sequence[Split]
) -> list[Shown]:
    """Windows drawn at random, those first that share no frame with another one. looks: how their people are drawn.

    Raises:
        UsageError: there is none.
    """
    entries = [entry for split in splits for entry in data.manifest.of(split, label)]
    entries = [entry for entry in entries if entry.faces is not None or looks.flame is not None]
    found = [(key, entry) for entry, many in choose(entries, _LOOKED_AT) for key in _keys(data, entry, many)]
    if not found:
        kind = f"{label.value} window" if label and data.manifest.kind == "windows" else data.manifest.kind
        raise UsageError(f"{data.location} has no {kind} of split {' or '.join(splits)} whose faces can be drawn")
    order = np.random.default_rng(seed).permutation(len(found))
    apart: list[tuple[str, ShardEntry]] = []
    close: list[tuple[str, ShardEntry]] = []
    taken: dict[str, list[int]] = {}
    for n in order:
        who, start = _place(found[n][0])
        starts = taken.setdefault(who, [])
        if all(abs(start - other) >= data.manifest.window for other in starts):
            starts.append(start)
            apart.append(found[n])
        else:
            close.append(found[n])
    chosen = (apart + close)[:count]
    return _decoded(data, chosen, looks)


def deal(windows: Sequence[Shown], trials: int, checks: int) -> tuple[list[Shown], list[Shown]]:
    """Windows for trials and for attention checks, of which none serves as both, not even in two pairs of it: whoever
    has seen it once would know it. Where they run out, both get fewer."""
    by_place: dict[tuple[str, int], Shown] = {}
    for each in windows:
        by_place.setdefault(_place(each.sample.key), each)
    kept = len(by_place) * checks // (trials + checks)
    for_checks = dict(list(by_place.items())[len(by_place) - kept :])
    for_trials = [each for each in windows if _place(each.sample.key) not in for_checks]
    return for_trials[:trials], list(for_checks.values())


def _keys(data: Dataset, entry: ShardEntry, many: int) -> list[str]:
    return [key for key, _ in data.groups(entry, data.fetch(entry))][:many]


def _place(key: str) -> tuple[str, int]:
    """Whose window, and its first frame, by its key; a pair's `-rN` is no part of either."""
    avatar_of(key)  # refuses others
    conversation, avatar, start = key.split("-")[:3]
    return f"{conversation}-{avatar}", int(start)


def _decoded(data: Dataset, chosen: Sequence[tuple[str, ShardEntry]], looks: Looks) -> list[Shown]:
    wanted, shown = dict(chosen), dict[str, Shown]()
    for entry in {entry.path: entry for entry in wanted.values()}.values():
        for key, members in data.groups(entry, data.fetch(entry)):
            if key in wanted and wanted[key].path == entry.path:
                sample = data.decode(key, members)
                people = people_of(data, sample, entry.path, looks)
                shown[key] = Shown(sample, people, entry.path, {RECORDED: sample.avatar_motion})
    return [shown[key] for key, _ in chosen]


def add_pairs(windows: Sequence[Shown]) -> list[str]:
    """Chosen and rejected motion of pairs, and what the gate measured. Returns the systems."""
    for each in windows:
        sample = each.sample
        if sample.chosen is None or sample.rejected is None or sample.pair is None:
            raise UsageError(f"{sample.key} is no pair")
        each.motions |= {"chosen": sample.chosen, "rejected": sample.rejected}
        each.margins |= {name: getattr(sample.pair, name) for name in _MARGINS}
        if sample.pair.scorer not in ("", REACTIVITY):
            each.margins["score_margin"] = sample.pair.score_margin
    recorded = all(s.pair is not None and s.pair.chosen == "ground_truth" for s in (w.sample for w in windows))
    return ["chosen", "rejected"] if recorded else ["chosen", "rejected", RECORDED]


def add_generated(
    windows: Sequence[Shown],
    checkpoints: Mapping[str, Path],
    data: Dataset,
    seed: int,
    encoder: str | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, str]:
    """The motion of each checkpoint, all from the same noise, each with its own sampler's settings.

    Returns: the sha256 of each checkpoint, by name.

    Raises:
        UsageError: a checkpoint of another codec.
        RunFailed: motion that is not finite.
    """
    from visavis.training.checkpoint import checkpoint_id
    from visavis.training.generate import generator

    digests = {}
    for name, path in checkpoints.items():
        generated = generator(path, data.location, seed=seed, encoder=encoder)
        for each in windows:
            each.motions[name] = generated(each.sample)
            progress()
        digests[name] = checkpoint_id(path)
    return digests


def jumbled(motion_TD: np.ndarray) -> np.ndarray:
    """Motion that anybody sees is wrong: frames in disorder, eight a second, the head thrown about by up to 14°.

    A face that holds still would not do: in two seconds many listeners hardly move.
    """
    random = np.random.default_rng(0)
    held_TD = motion_TD[random.permutation(len(motion_TD))]
    held_TD[:, 0:3] += random.uniform(-0.25, 0.25, (len(motion_TD), 3)).astype(motion_TD.dtype)  # rad
    return np.repeat(held_TD[::3], 3, axis=0)[: len(motion_TD)]


def measure_windows(windows: Sequence[Shown], data: Dataset) -> None:
    """Figures of each motion by itself: how it goes with its user, varies and jerks; of windows, also how well it fits
    the reactions that the corpus predicts (`reactivity`)."""
    spec = data.manifest.motion
    parts = columns(spec)
    for each in windows:
        valid = np.asarray(each.sample.valid.all(axis=1))[None]
        user = normalised(each.sample.user_motion[None], spec)
        truth = normalised(each.sample.avatar_motion[None], spec)
        for system, motion in each.motions.items():
            moves = normalised(motion[None], spec)
            found: dict[str, float] = {}
            for part, at in parts.items():
                found |= {
                    f"pcc_{part}": float(window_pcc(moves[..., at], user[..., at], valid)[0]),
                    f"pcc_truth_{part}": float(window_pcc(moves[..., at], truth[..., at], valid)[0]),
                    f"var_{part}": var(moves[..., at], valid),
                    f"jerk_{part}": jerk(moves[..., at], valid),
                }
            each.figures[system] = {name: value if math.isfinite(value) else None for name, value in found.items()}
    if data.manifest.kind == "windows":
        _measure_reactivity(windows, data)


def _measure_reactivity(windows: Sequence[Shown], data: Dataset) -> None:
    for label, some in _by_class(windows):
        if not any(entry.samples for entry in data.manifest.of("train", label)):
            continue
        reference = learn_from(data, label)
        for system in set.intersection(*(set(each.motions) for each in some)):
            motion, samples = np.stack([each.motions[system] for each in some]), [each.sample for each in some]
            found = reactivity(samples, motion, data.manifest.motion, reference)
            for each, value in zip(some, found.total.tolist(), strict=True):
                each.figures[system]["reactivity"] = value


def _by_class(windows: Sequence[Shown]) -> Iterator[tuple[WindowClass, list[Shown]]]:
    for label in WindowClass:
        if some := [each for each in windows if each.sample.meta.label == label]:
            yield label, some


def film_clip(shown: Shown, motion_TD: np.ndarray, path: Path, side: int) -> None:
    """The user beside the avatar, with both voices, to an mp4. Every motion in one colour, and whole: where a recorded
    face was not seen is not shown, which would tell it from a generated one."""
    scene = window_scene(shown.sample, shown.people, [Version("avatar", motion_TD, AVATAR)], timeline=False, side=side)
    write_film(path, [scene], side=side)


def with_figures(trial: Trial, shown: Shown) -> Trial:
    """A trial with what was measured of its clips, and where its window is."""
    clips = tuple(clip.model_copy(update={"figures": shown.figures.get(clip.system, {})}) for clip in trial.clips)
    margins = shown.margins if {clip.system for clip in trial.clips} == {"chosen", "rejected"} else {}
    return trial.model_copy(update={"clips": clips, "margins": margins, "shard": shown.shard})

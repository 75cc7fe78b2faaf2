"""Where everything of the preference table lies: each folder is named by what it was made by.

So a run that was stopped goes on, and what has changed is made anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.listeners import CORPORA, Rule
from benchmarks.reactions import Windows
from benchmarks.reactive import Corpus, fingerprint, make_dyad
from benchmarks.reactivity import SAMPLER, held_out, recipe
from benchmarks.rows import Rows, RowSpec, digest
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.sample import Sample
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.schemas.windows_config import BalanceConfig
from visavis.stages.pairs import PairsStage
from visavis.training.dataset import Dataset

WINDOW = 100
JUDGES = {"dull": "lively", "balanced": "lively"}
"""Whose held-out windows a corpus is judged on, where not on its own: the truth is what the lively do."""


@dataclass(frozen=True)
class Scale:
    """How much is made, trained and sampled. lr: peak of further steps, with pairs and without."""

    conversations: int  # to train on; where most of the time is speaking, 2.5 times as many
    held_out: int
    steps: int  # of a base
    further: int
    lr: float
    seeds: tuple[int, ...]
    one_base: bool  # for all seeds; else one for each


@dataclass(frozen=True)
class Place:
    """A corpus, a base on it, and a seed of further steps."""

    corpus: str
    seed: int
    scale: Scale
    out: Path

    @property
    def data(self) -> Path:
        return self.out / f"{self.corpus}-{fingerprint(corpus_of(self.corpus, self.scale), rule_of(self.corpus))[:10]}"

    @property
    def judge(self) -> Place:
        """Where its held-out windows lie."""
        return replace(self, corpus=JUDGES.get(self.corpus, self.corpus), seed=self.scale.seeds[0])

    @property
    def base_seed(self) -> int:
        return self.scale.seeds[0] if self.scale.one_base else self.seed

    @property
    def base_config(self) -> TrainConfig:
        steps = self.scale.steps
        own = {"seed": self.base_seed, "checkpoint_every": max(1, steps // 6)}
        return recipe("block", steps).model_copy(update=own)

    @property
    def base(self) -> Path:
        shaped_by = self.base_config.model_dump(exclude={"dpo", "distill"})
        return self.data / "models" / f"base-{self.base_seed}-{digest(shaped_by)}"

    def pairs(self, settings: dict[str, Any]) -> Path:
        return self.base / f"pairs-{digest(pairs_config(settings).model_dump(), PairsStage.version)}"

    def further(self, row: RowSpec, rows: Rows) -> Path:
        """Folder of the further steps of a row; rows that differ in sampling alone share it."""
        preferences = (self.pairs(rows.pairs[row.pairs]).name, dpo_config(row).model_dump()) if row.pairs else ()
        steps = (row.steps, self.scale.further, row.lr or self.scale.lr)
        return self.base / f"further-{digest(preferences, row.objective, steps, self.seed)}"


def pairs_config(settings: dict[str, Any]) -> PairsConfig:
    """The table's pairs with their defaults, which are part of what they were made by."""
    return PairsConfig.model_validate({"sampler": SAMPLER.model_dump(), "batch": 128} | settings)


def dpo_config(row: RowSpec) -> DpoConfig:
    """Of a row, but for the steps, which are the table's."""
    return DpoConfig.model_validate({"max_chosen_rise": None} | row.dpo)


def rule_of(corpus: str) -> Rule:
    return CORPORA[corpus][0]


@lru_cache(maxsize=8)
def corpus_of(name: str, scale: Scale) -> Corpus:
    """Where listeners are dull there is more, shown as it comes: no class or window is drawn more often than it is."""
    rule, shape = CORPORA[name]
    if not shape:
        return Corpus(train=scale.conversations, val=scale.held_out, window=WINDOW)
    made = Corpus(train=scale.conversations * 5 // 2, val=4, window=WINDOW, **shape)
    if name == "balanced":
        return made
    counts = Counter(window.label for n in range(made.train) for window in make_dyad(made, rule, n).windows)
    mixture = {label: n / counts.total() for label, n in counts.items()}
    return replace(made, balance=BalanceConfig(mixture=mixture, dull_keep=1))


@lru_cache(maxsize=1)
def judgement(place: Place) -> tuple[list[Sample], Windows]:
    """Held-out windows of a corpus."""
    data = Dataset(str(place.data))
    samples = held_out(data, 10**6)
    return samples, Windows.of(samples, data.manifest.motion, rule_of(place.corpus))

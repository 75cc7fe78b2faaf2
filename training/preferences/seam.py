"""The seam between training and an objective: what is asked of the models, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from visavis.schemas.manifest import Manifest, MotionColumn
from visavis.schemas.train import DpoConfig, Preferences, TrainConfig
from visavis.training.flow import Noise
from visavis.training.loader import Batch
from visavis.training.model import Listener
from visavis.training.preferences.adaptive import adaptive
from visavis.training.preferences.anchored import anchored
from visavis.training.preferences.clipped import clipped
from visavis.training.preferences.contrastive import contrastive
from visavis.training.preferences.dpo import dpo
from visavis.training.preferences.groups import Shortfall, groups, groups_of, weights_of
from visavis.training.preferences.nft import nft
from visavis.training.preferences.pairs import (
    Compared,
    Loss,
    PairErrors,
    PairNoise,
    PairOffsets,
    pair_offsets,
    sizes,
    watched,
)
from visavis.training.preferences.segments import segments
from visavis.training.preferences.tracked import check_tracked, tracked_noise
from visavis.training.shapes import ValidBT

OBJECTIVES: dict[Preferences, Callable[[Compared, TrainConfig], Loss]] = {
    "dpo": dpo,
    "anchored": anchored,
    "adaptive": adaptive,
    "clipped": clipped,
    "tracked": dpo,  # of other noise
    "segments": segments,
    "groups": groups,
    "contrastive": contrastive,
    "nft": nft,
}
_BY_DIMENSION = ("groups", "nft")
"""Objectives that want the reference's offsets, [B, T, D]; to the others errors per frame are enough."""


def check_pairs(config: DpoConfig, manifest: Manifest, reference: str) -> None:
    """See that pairs have what the objective needs, before any work starts.

    Args:
        reference: id of the initial checkpoint.

    Raises:
        UsageError: they have not.
    """
    found = groups_of(manifest.motion, manifest.columns, config)
    weights_of(found, config, manifest.pairs.shortfall if manifest.pairs else None)
    if config.objective == "tracked":
        check_tracked(manifest.pairs, reference)


class Preference:
    """The objective of a run (`dpo.objective`), for models of one kind of motion."""

    def __init__(
        self,
        config: TrainConfig,
        model: Listener,
        columns: Sequence[MotionColumn] | None = None,
        shortfall: Shortfall | None = None,
    ) -> None:
        """
        Args:
            columns: of the motion, as the manifest names them.
            shortfall: of the model's reactions by group, as the manifest of the pairs has it.

        Raises:
            UsageError: no such group (`dpo.groups`), or no shortfall where it is asked for.
        """
        self._config, self._model = config, model.config
        self.by_dimension = config.dpo.objective in _BY_DIMENSION
        self._groups = groups_of(model.motion, columns, config.dpo)
        self._group_weights = weights_of(self._groups, config.dpo, shortfall)

    def noise(self, pairs: Batch, drawn: Noise) -> PairNoise:
        """What both sides are scored with, of what was drawn for the batch."""
        if self._config.dpo.objective != "tracked":
            return drawn, drawn
        return tracked_noise(pairs.records, drawn, self._model)

    @torch.no_grad()
    def ask(self, frozen: Listener, pairs: Batch, noise: PairNoise) -> PairErrors | PairOffsets:
        """What the objective wants to know of the reference model: errors, or offsets."""
        offsets = pair_offsets(frozen, pairs, noise)
        return offsets if self.by_dimension else sizes(offsets, self._config.dpo.norm)

    def loss(
        self, model: Listener, reference: PairErrors | PairOffsets, pairs: Batch, noise: PairNoise, valid: ValidBT
    ) -> Loss:
        """The loss of pairs, a mean over the frames that are compared, and what to watch.

        Args:
            reference: from `ask`, of the same pairs and noise.
            valid: frames that are compared.
        """
        offsets, norm = pair_offsets(model, pairs, noise), self._config.dpo.norm
        errors = sizes(reference, norm) if self.by_dimension else reference
        compared = Compared(
            pairs=pairs,
            noise=noise,
            valid=valid,
            policy=sizes(offsets, norm),
            reference=errors,
            policy_offsets=offsets,
            reference_offsets=reference if self.by_dimension else None,
            groups=self._groups,
            group_weights=self._group_weights,
        )
        loss, logs = OBJECTIVES[self._config.dpo.objective](compared, self._config)
        return loss, watched(compared.policy, errors, valid) | {name: value.detach() for name, value in logs.items()}

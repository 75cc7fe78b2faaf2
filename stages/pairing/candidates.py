"""Candidates: the chosen and the rejected motion of windows, by a model, or the rejected one by the same model left
without its user, or by another.

Avatar Forcing (§4.2) needs no labels: the rejected sample is motion generated without the user's signals, by a model
that never had them (`rejected: checkpoint`) or by the same model without them (`dropped`). That pushes towards all that
the user explains, also where nothing was lacking. Against the model's own motion (`own`, self-play as in arXiv
2401.01335) only what it still lacks is taught. Noise depends on (seed, window) alone, so both motions share it,
whatever model, batch or machine made them. Precision, batch and card decide last bits (`schemas.sampling`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import AudioSpec, MotionSpec
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.sample import Sample
from visavis.schemas.sampling import Sampling
from visavis.schemas.train import Drop
from visavis.stages.pairing.measurements import Motions
from visavis.training.checkpoint import Checkpoint, checkpoint_id, load_checkpoint, load_model
from visavis.training.encoder import load_encoder, named_by
from visavis.training.guidance import check_student
from visavis.training.loader import Batch, collate
from visavis.training.precision import check, name_of, settle
from visavis.training.process_group import pick_device
from visavis.training.rollouts import Rollouts, need_of
from visavis.training.shards import Members

BATCH = 64
"""Windows that a CPU samples together, where nothing is said."""


@dataclass(frozen=True)
class SourceWindow:
    """A window of the dataset, decoded, and its members as they lie in the shard."""

    sample: Sample
    members: Members


@dataclass(frozen=True)
class Candidates:
    """A batch of windows, and their motions in codec units by the seed of their noise.

    own: motion that the model makes of some of them under every condition (of several seeds the mean), with the
    windows' numbers, for what falls short of the recorded ones.
    """

    windows: Sequence[SourceWindow]
    motions: dict[int, Motions]
    own: Sequence[tuple[Sequence[int], np.ndarray]]


class Generator:
    """Makes both motions of windows' pairs. sampling: how, the same for all of them."""

    def __init__(
        self,
        config: PairsConfig,
        checkpoint: str,
        frames: int,
        agreed: Callable[[Callable[[], Sampling]], Sampling] = lambda own: own(),
    ) -> None:
        """Load the models.

        Args:
            frames: of a window.
            agreed: what workers before this one settled, or what is settled here if there were none.

        Raises:
            UsageError: as `check_checkpoints`, or this device cannot do what was settled.
        """
        self._config, self._seeds, self._conditions = config, config.seeds, config.conditions
        self._device = pick_device(config.device)
        paths = _paths(config, checkpoint)
        loaded = [load_checkpoint(Path(path), whole=False) for path in paths]
        # Made up of one or two: without a checkpoint of its own, the rejected motion is the same model's.
        models = [load_model(c, self._device, weights=_weights(config, c, loaded[0])) for c in loaded]
        self.digests = checkpoint_id(Path(paths[0])), checkpoint_id(Path(paths[-1]))

        wanted = [(models[0], {"full", self._conditions}), (models[-1], {self._conditions})][: len(models)]

        def own() -> Sampling:
            def need(trial: Sampling) -> float:
                return need_of(wanted, trial, frames, config.sampler)

            return settle(config, self._device, on_gpu="bfloat16", usual=BATCH, need=need)

        settled = agreed(own)
        check(settled.precision, self._device)
        here = {"device": name_of(self._device)} | ({} if config.graph is None else {"graphs": config.graph})
        self.sampling = settled.model_copy(update=here)
        self._rollouts = [Rollouts(model, self.sampling) for model in models]

    def generate(self, batches: Iterable[Sequence[SourceWindow]]) -> Iterator[Candidates]:
        """Candidates of every batch, for each of the seeds."""
        for windows in batches:
            batch = collate([window.sample for window in windows]).to(self._device)
            motions = {seed: self._motions(batch, seed) for seed in self._seeds}
            yield Candidates(windows, motions, list(self._own(windows, motions)))

    def _motions(self, batch: Batch, seed: int) -> Motions:
        if self._config.chosen == "full":
            chosen = self._sampled(0, batch, seed, "full")
        else:  # of chosen=best the rejected ones are ranked
            chosen = batch.avatar_motion.cpu().numpy()
        return chosen, self._sampled(-1, batch, seed, self._conditions)

    def _own(
        self, windows: Sequence[SourceWindow], motions: dict[int, Motions]
    ) -> Iterator[tuple[Sequence[int], np.ndarray]]:
        if not self._config.asks_shortfall:
            return
        if self._config.rejected == "own":
            mean = np.mean([rejected for _, rejected in motions.values()], axis=0)  # windows are what is independent
            yield range(len(windows)), mean
            return
        share = 1.0 if self._config.shortfall_share is None else self._config.shortfall_share
        some = [n for n, window in enumerate(windows) if _share(window.sample.key) < share]
        if some:
            batch = collate([windows[n].sample for n in some]).to(self._device)
            yield some, self._sampled(0, batch, self._seeds[0], "full")

    def _sampled(self, which: int, b: Batch, seed: int, conditions: Drop) -> np.ndarray:
        """Motion by the generator (0), or by that of the rejected motion (-1)."""
        sampler, given = self._config.sampler.model_copy(update={"seed": seed}), (b.avatar_audio, b.user_audio)
        motion = self._rollouts[which](*given, b.user_motion, b.reference, sampler, b.keys, conditions)
        return np.asarray(motion.cpu().numpy())


def _share(key: str) -> float:
    """Evenly spread over windows, 0 … 1: which of them are taken does not depend on batches."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32


def check_checkpoints(
    config: PairsConfig, checkpoint: str, motion: MotionSpec
) -> tuple[tuple[str, str], tuple[AudioSpec, AudioSpec]]:
    """See whether the models can make pairs of motion like this, before any work starts.

    Returns: digests, and what they hear, of the generator and of who makes the rejected motion.

    Raises:
        UsageError: no such checkpoint, another codec or columns, an encoder that is not at hand, or a student that is
            asked for other evaluations than it was distilled for.
    """
    paths = _paths(config, checkpoint)
    loaded = [load_checkpoint(Path(path), whole=False) for path in paths]
    for path, each in zip(paths, loaded, strict=True):
        if each.motion.codec != motion.codec:
            raise UsageError(f"{path} speaks codec {each.motion.codec}, the dataset has {motion.codec}")
        if _columns(each.motion) != _columns(motion):
            raise UsageError(f"{path} has motion of other columns than the dataset: {_columns(each.motion)}")
        check_student(each.config.distill.evaluations, config.sampler)
        load_encoder(named_by(each.config.features, _weights(config, each, loaded[0])))
    digests = [checkpoint_id(Path(path)) for path in paths]
    if len(digests) == 2 and digests[0] == digests[1] and config.conditions == "full":
        raise UsageError("rejected_checkpoint is the same model under the same conditions: say rejected=own")
    heard = [each.audio for each in loaded]
    return (digests[0], digests[-1]), (heard[0], heard[-1])


def _paths(config: PairsConfig, checkpoint: str) -> list[str]:
    return [checkpoint] if config.rejected_checkpoint is None else [checkpoint, config.rejected_checkpoint]


def _weights(config: PairsConfig, checkpoint: Checkpoint, first: Checkpoint) -> str | None:
    """Where the encoder lies, by the user's word: `config.rejected_encoder` for another one than the first has."""
    same = checkpoint.config.features.weights_sha256 == first.config.features.weights_sha256
    return config.encoder if same else config.rejected_encoder


def _columns(motion: MotionSpec) -> tuple[int, tuple[int, int], tuple[int, int], tuple[int, int]]:
    return motion.dim, motion.rotation, motion.translation, motion.expression

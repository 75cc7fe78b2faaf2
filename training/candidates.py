"""Who makes the two sides of a pair: a model, and for the losing side the same one left without its user, or another.

Avatar Forcing (§4.2) needs no labels: the losing sample is motion generated without the user's signals, by a model that
never had them (`rejected: checkpoint`) or by the same model without them (`dropped`). That pushes towards all that the
user explains, also where nothing was lacking. Against the model's own motion (`own`, self-play as in arXiv 2401.01335)
only what it still lacks is taught. Noise depends on (seed, window) alone, so both sides share it, whatever model, batch
or machine made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import AudioSpec, MotionSpec
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.sample import Sample
from visavis.schemas.train import Drop
from visavis.training.checkpoint import Checkpoint, checkpoint_id, load_checkpoint, load_model
from visavis.training.encoder import load_encoder, named_by
from visavis.training.loader import Batch, collate
from visavis.training.model import Listener
from visavis.training.process_group import pick_device
from visavis.training.sampler import rollout

DROPPED: dict[Drop, tuple[str, ...]] = {
    "full": (),
    "no_user": ("user_audio", "user_motion"),
    "no_avatar": ("avatar_audio",),
    "none": ("avatar_audio", "user_audio", "user_motion"),
}
"""Names of the conditions that are missing."""


class Sides:
    """Makes both sides of windows' pairs."""

    def __init__(self, config: PairsConfig, checkpoint: str) -> None:
        """Load the models.

        Raises:
            UsageError: as `check_checkpoints`.
        """
        self._config = config
        self._device = pick_device(config.device)
        paths = _paths(config, checkpoint)
        loaded = [load_checkpoint(Path(path), whole=False) for path in paths]
        # Made up of one or two: without a checkpoint of its own, the losing side is the same model's.
        models = [load_model(c, self._device, weights=_weights(config, c, loaded[0])) for c in loaded]
        self._model, self._loser = models[0], models[-1]
        digests = [checkpoint_id(Path(path)) for path in paths]
        self.generator, self.rejected_generator = digests[0], digests[-1]

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Windows where the models are."""
        return collate(samples).to(self._device)

    def make(self, batch: Batch, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Chosen and rejected motion, [W, T, D] float32 in codec units."""
        if self._config.chosen == "ground_truth":
            chosen = batch.avatar_motion.cpu().numpy()
        else:
            chosen = self._generate(self._model, batch, seed, "full")
        return chosen, self._generate(self._loser, batch, seed, self._config.left)

    def _generate(self, model: Listener, batch: Batch, seed: int, left: Drop) -> np.ndarray:
        sampler = self._config.sampler.model_copy(update={"seed": seed})
        motion = rollout(
            model, batch.avatar_audio, batch.user_audio, batch.user_motion, batch.reference, sampler, batch.keys, left
        )
        return np.asarray(motion.cpu().numpy())


def check_checkpoints(
    config: PairsConfig, checkpoint: str, motion: MotionSpec
) -> tuple[tuple[str, str], tuple[AudioSpec, AudioSpec]]:
    """See whether the models can make pairs of motion like this, before any work starts.

    Returns: digests, and what they hear, of the generator and of who makes the losing side.

    Raises:
        UsageError: no such checkpoint, another codec or columns, or an encoder that is not at hand.
    """
    paths = _paths(config, checkpoint)
    loaded = [load_checkpoint(Path(path), whole=False) for path in paths]
    for path, each in zip(paths, loaded, strict=True):
        if each.motion.codec != motion.codec:
            raise UsageError(f"{path} speaks codec {each.motion.codec}, the dataset has {motion.codec}")
        if _columns(each.motion) != _columns(motion):
            raise UsageError(f"{path} has motion of other columns than the dataset: {_columns(each.motion)}")
        load_encoder(named_by(each.config.features, _weights(config, each, loaded[0])))
    digests = [checkpoint_id(Path(path)) for path in paths]
    if len(digests) == 2 and digests[0] == digests[1] and config.left == "full":
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

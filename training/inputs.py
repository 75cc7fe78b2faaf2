"""What a run works on: its inputs opened, held against each other and against the run that lies in its folder."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import Split
from visavis.schemas.markers import shaping
from visavis.schemas.secrets import written
from visavis.schemas.train import TrainConfig
from visavis.schemas.words import counted, first_difference
from visavis.training.checkpoint import (
    CHECKPOINT_NAME,
    OLD_NAME,
    Checkpoint,
    checkpoint_id,
    load_checkpoint,
    load_model,
)
from visavis.training.dataset import Dataset, class_mixture
from visavis.training.distill import check_goes_on, distilling
from visavis.training.encoder import load_encoder, named_by
from visavis.training.loader import Batch, Loader
from visavis.training.model import Listener, build_model
from visavis.training.preferences.seam import Preference, check_pairs
from visavis.training.process_group import Processes
from visavis.training.readers import room_beside
from visavis.training.reference import ReferenceErrors


@dataclass
class Run:
    """What a run works on, in one of its processes."""

    config: TrainConfig
    group: Processes
    windows: Dataset
    pairs: Dataset | None
    model: Listener
    average: Listener
    frozen: Listener | None  # the reference of preference tuning or `objective.user_weight`; a student's teacher
    reference: str  # its id
    resumed: Checkpoint | None

    @property
    def device(self) -> torch.device:
        return self.group.device

    @property
    def first_step(self) -> int:
        return self.resumed.step if self.resumed else 0

    @property
    def steps(self) -> int:
        return self.config.steps(pairs=self.pairs is not None)

    @property
    def distils(self) -> bool:
        """Whether the model is a student's, and `frozen` its teacher."""
        return self.config.distill.evaluations > 0

    @cached_property
    def held_out(self) -> list[Batch]:
        """Batches of validation, the same every time, read once; none where nothing is held out."""
        return self._first_batches(self.windows, "val") if class_mixture(self.windows.manifest, "val") else []

    @cached_property
    def watched(self) -> list[Batch]:
        """Batches of pairs, the same every time, read once: held-out ones where there are any."""
        assert self.pairs is not None
        return self._first_batches(self.pairs, "val" if class_mixture(self.pairs.manifest, "val") else "train")

    def _first_batches(self, dataset: Dataset, split: Split) -> list[Batch]:
        loader = Loader(dataset, self.config.optim.batch, split=split, max_bad=self.config.max_bad_samples)
        return [batch for batch, _ in islice(loader, self.config.val_batches)]

    @cached_property
    def preference(self) -> Preference | None:
        """What is minimised of pairs; none without them."""
        if self.pairs is None:
            return None
        manifest = self.pairs.manifest
        return Preference(
            self.config, self.model, manifest.columns, manifest.pairs.shortfall if manifest.pairs else None
        )

    @property
    def reference_answers(self) -> ReferenceErrors | None:
        """What the reference model said of this process' pairs in a run like this one; none without `dpo.cache`."""
        config, group = self.config, self.group
        if self.pairs is None or self.preference is None or config.dpo.cache is None:
            return None
        shape: tuple[int, ...] = config.optim.batch, self.pairs.manifest.window
        if self.preference.by_dimension:
            shape = *shape, self.model.motion.dim
        asked = {
            "reference": self.reference,
            "pairs": self.pairs.hash,
            "norm": config.dpo.norm,
            "tracked": config.dpo.objective == "tracked",
            "precision": config.optim.precision,
            "device": group.device.type,
            "seed": config.seed,
            "accumulate": config.optim.accumulate,
            "process": [group.rank, group.size],
            "steps": self.steps,
            "shape": shape,
        }
        return ReferenceErrors(Path(config.dpo.cache), asked, self.steps * config.optim.accumulate, *shape)

    def loader(self, dataset: Dataset, name: str) -> Loader:
        """This process' loader of `windows` or `pairs`, where the run left it. To be closed."""
        return Loader(
            dataset,
            self.config.optim.batch,
            seed=self.config.seed,
            rank=self.group.rank,
            world_size=self.group.size,
            max_bad=self.config.max_bad_samples,
            state=self.resumed.loaders[name][self.group.rank] if self.resumed else None,
            beside=self._reads_beside(dataset),
        )

    def _reads_beside(self, dataset: Dataset) -> bool:
        if self.config.readers != "auto":
            return self.config.readers == "processes"
        return self.device.type == "cuda" and room_beside(dataset, len(class_mixture(dataset.manifest, "train")))

    def checkpoint(
        self, step: int, optimizer: torch.optim.Optimizer, loaders: dict[str, list[dict[str, Any]]]
    ) -> Checkpoint:
        """loaders: states of `windows` and `pairs`, by process."""
        return Checkpoint(
            config=TrainConfig.model_validate(written(self.config.model_dump(mode="json"))),
            motion=self.model.motion,
            manifest=self.windows.hash,
            step=step,
            model=self.model.state_dict(),
            ema=self.average.state_dict(),
            optimizer=optimizer.state_dict(),
            loaders=loaders,
            reference=self.reference,
            pairs=self.pairs.hash if self.pairs else "",
        )


def open_run(
    dataset: str, out: Path, config: TrainConfig, init: Path | None, pairs: str | None, group: Processes
) -> Run:
    """Check that everything belongs together, and load or build the models. Called by all processes alike.

    Raises:
        UsageError, DatasetError: as `training.train.train`.
    """
    with group.together():
        run = _open(dataset, out, config, init, pairs, group)
        seen = json.dumps([run.windows.hash, run.pairs and run.pairs.hash, run.reference, run.first_step])
    if len(set(group.gather(seen))) > 1:
        raise UsageError(f"the processes do not see the same dataset, checkpoint or {out}: all need the same folders")
    return run


def _open(dataset: str, out: Path, config: TrainConfig, init: Path | None, pairs: str | None, group: Processes) -> Run:
    windows = Dataset(dataset)
    preferences = None if pairs is None else Dataset(pairs)
    if preferences is not None and preferences.manifest.kind != "pairs":
        raise UsageError(f"{pairs} holds windows, not pairs; make pairs with `visavis pairs`")
    if preferences is not None and init is None:
        raise UsageError("preference tuning starts from a trained checkpoint: give one as init")
    if config.objective.user_weight and init is None:
        raise UsageError("objective.user_weight is for further steps from a trained checkpoint: give one as init")
    if config.distill.evaluations and (init is None or preferences is not None):
        raise UsageError("a student is distilled from a trained checkpoint: give one as init, and no pairs")
    started = None if init is None else load_checkpoint(init, whole=False)
    if started is not None:
        features = named_by(started.config.features, config.features.weights)
        config = config.model_copy(update={"model": started.config.model, "features": features})
        if config.distill.evaluations:
            config = distilling(config, started)
        else:
            check_goes_on(started)
    motion = started.motion if started else windows.manifest.motion
    for each in (windows, preferences):
        if each is not None and (each.manifest.motion.codec, each.manifest.motion.dim) != (motion.codec, motion.dim):
            raise UsageError(
                f"{each.location} has motion of codec {each.manifest.motion.codec}, the model was trained on "
                f"{motion.codec}; rebuild the dataset with the model's codec (motion.codec)"
            )
    features, encoder = load_encoder(config.features, group.device)
    config = config.model_copy(update={"features": features})
    reference = checkpoint_id(init) if init is not None else ""
    if preferences is not None:
        check_pairs(config.dpo, preferences.manifest, reference)
    path = out / CHECKPOINT_NAME
    if (out / OLD_NAME).exists() and not path.exists():
        raise UsageError(f"{out / OLD_NAME} is of an older format; `visavis convert` makes {CHECKPOINT_NAME} of it")
    resumed = load_checkpoint(path) if path.exists() else None
    if resumed is not None:
        _check_same_run(resumed, config, windows, preferences, reference, group, out)

    model, average = (build_model(config.model, features, motion, config.seed, encoder) for _ in range(2))
    if resumed is not None:
        model.load_state_dict(resumed.model)
        average.load_state_dict(resumed.ema)
    elif started is not None:
        model.load_state_dict(started.ema)
        average.load_state_dict(started.ema)
    refers = preferences is not None or config.objective.user_weight > 0 or config.distill.evaluations > 0
    frozen = load_model(started, group.device, encoder=encoder) if started and refers else None
    model.checkpointing = config.optim.activation_checkpointing
    if config.optim.compile:
        _check_compiler()
        for network in (model, frozen):
            if network is not None:
                compile_network(network)
    return Run(
        config=config,
        group=group,
        windows=windows,
        pairs=preferences,
        model=model.to(group.device).train(),
        average=average.to(group.device).eval().requires_grad_(False),
        frozen=frozen,
        reference=reference,
        resumed=resumed,
    )


def compile_network(model: Listener) -> None:
    """Compile what takes the time, the transformer, in place: the names of weights stay, and so do checkpoints."""
    model.denoise = torch.compile(model.denoise)  # type: ignore[method-assign]


def _check_compiler() -> None:
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    if not any(name and shutil.which(name) for name in names):
        raise UsageError("optim.compile needs a C++ compiler on PATH (g++ or clang++); install one, or leave it off")


def _check_same_run(
    resumed: Checkpoint,
    config: TrainConfig,
    windows: Dataset,
    pairs: Dataset | None,
    reference: str,
    group: Processes,
    out: Path,
) -> None:
    again = "give another output folder, or remove this one"
    if resumed.manifest != windows.hash:
        was, now = resumed.manifest[:12], windows.hash[:12]
        raise UsageError(
            f"{out} holds a run on another dataset (its manifest is {was}, that of {windows.location} {now}); {again}"
        )
    if resumed.pairs != (pairs.hash if pairs else ""):
        was, now = resumed.pairs[:12] or "none", pairs.hash[:12] if pairs else "none"
        raise UsageError(f"{out} holds a run with other pairs (their manifest is {was}, now {now}); {again}")
    if resumed.reference != reference:
        was, now = resumed.reference[:12] or "none", reference[:12] or "none"
        raise UsageError(f"{out} holds a run from another initial checkpoint (it was {was}, now {now}); {again}")
    if resumed.config.features.weights_sha256 != config.features.weights_sha256:
        raise UsageError(f"{out} holds a run with another encoder; name its weights (features.weights), {again}")
    before, after = (shaping(each) for each in (resumed.config, config))
    if not pairs:
        before["dpo"] = after["dpo"]
    if not resumed.config.distill.evaluations and not config.distill.evaluations:
        before["distill"] = after["distill"]
    if changed := first_difference(before, after):
        raise UsageError(f"{out} was trained with {changed}; set it back, {again}")
    if resumed.processes != group.size:
        raise UsageError(
            f"{out} holds a run of {counted(resumed.processes, 'process', 'processes')}, and now there "
            f"{'is' if group.size == 1 else 'are'} {group.size}: start as many, or "
            f"take its {CHECKPOINT_NAME} as the initial checkpoint (init) of a run in another folder"
        )

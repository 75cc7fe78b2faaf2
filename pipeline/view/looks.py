"""What faces look like in a film: a given picture, a frame of the person's own video, or a mesh."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from visavis.pipeline.plan.file_names import DATASET, RUN_FILE
from visavis.pipeline.plan.outputs import Outputs
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.view.portrait import Portrait
from visavis.pipeline.view.portrait_sources import portrait_of
from visavis.pipeline.view.puppet import Puppet
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import DatasetError, Rejected, UsageError
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import first_line
from visavis.schemas.uris import is_local
from visavis.stages.face.flame_landmarks import FlameFace


class Looks:
    """Chooses how people are drawn; each portrait is looked for once.

    Args:
        given: pictures for the user and for the avatar, which go before anything else.
        run: folder of the build in which frames of people's own videos are looked for; none: meshes.
        missed: is told once why own pictures cannot be had; meshes are drawn then.
        flame: draws motion that is FLAME's coefficients.
    """

    def __init__(
        self,
        given: tuple[Portrait | None, Portrait | None] = (None, None),
        run: str | None = None,
        missed: Callable[[str], object] | None = None,
        flame: FlameFace | None = None,
    ) -> None:
        self.flame = flame
        self._given, self._run, self._missed = given, run, missed
        self._own: dict[tuple[str, int], Portrait] = {}
        self._outputs: Outputs | None = None

    def puppet(
        self, codec: Codec, neutral_L3: np.ndarray, conversation: str, participant: int, *, avatar: bool, uri: str = ""
    ) -> Puppet:
        """A participant of a conversation, ready to be moved.

        Args:
            avatar: whether as the avatar, or as the user.
            uri: address of the person's video, where the run keeps only a part of it.
        """
        portrait = self._given[avatar] or self._of(conversation, participant, uri)
        try:
            return Puppet.of(codec, neutral_L3) if portrait is None else Puppet.carrying(codec, portrait)
        except ValueError as error:  # motion of another codec: the run was built anew since
            self._give_up(str(error))
            return Puppet.of(codec, neutral_L3)

    def _of(self, conversation: str, participant: int, uri: str) -> Portrait | None:
        where = conversation, participant
        if self._run is not None and where not in self._own:
            try:
                self._outputs = self._outputs or Outputs(self._run)
                self._own[where] = portrait_of(self._outputs, conversation, participant, uri or None)
            except (UsageError, Rejected, DatasetError, OSError) as error:  # a picture is not what was asked for
                self._give_up(first_line(error))
        return self._own.get(where)

    def _give_up(self, why: str) -> None:
        self._run = self._outputs = None
        if self._missed is not None:
            self._missed(f"faces are drawn as meshes: {why}")


def run_of(dataset: str) -> str | None:
    """The run of `visavis build` behind a dataset, or behind the dataset that pairs were made of, if it is at hand on
    this machine: a folder makes us call nobody."""
    for _ in range(2):
        folder = dataset.rstrip("/")
        run = folder.removesuffix(f"/{DATASET}")
        if run == folder or not is_local(run) or not Store(run).exists(RUN_FILE):
            return None
        settings = read_settings(Store(run))
        if "pairs" not in settings["fingerprints"]:
            return run
        dataset = str(settings.get("places", {}).get("dataset", ""))
    return None

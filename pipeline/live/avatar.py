"""The avatar of a live session: a model, the person that it moves as, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from visavis.pipeline.live.looking import LookingProcess
from visavis.pipeline.live.perception import check_codec
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.view.portrait import Portrait
from visavis.pipeline.view.puppet import Puppet
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.config import FacesConfig
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import UsageError
from visavis.schemas.sample import Sample
from visavis.schemas.storage.store import Store
from visavis.schemas.train import SamplerConfig
from visavis.stages.face.decode import avatar_of, conversation_of, read_codec, read_faces, why_not_drawn
from visavis.stages.face.landmarker import check_faces
from visavis.stages.models.devices import pick_device
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.masks import ahead
from visavis.training.model import Listener
from visavis.training.sampler import Stream

_LONGEST_SPEECH = 600  # seconds


@dataclass(frozen=True)
class Avatar:
    """What sessions share.

    reference_D: the person at rest. neutral_L3: their face, cm. speech_N: float32 16 kHz, what it may say; empty: it
    says nothing. key: the window of the dataset that the person is from.
    """

    model: Listener
    sampler: SamplerConfig
    codec: Codec
    reference_D: np.ndarray
    neutral_L3: np.ndarray
    speech_N: np.ndarray
    faces: FacesConfig
    key: str

    @property
    def block(self) -> int:
        """Frames that are generated at once."""
        return self.model.config.block

    @property
    def ahead(self) -> int:
        """Frames that are waited for behind a block."""
        return ahead(self.model.config) + self.model.features.look_ahead

    def puppet(self, portrait: Portrait | None = None) -> Puppet:
        """The face that the page draws."""
        return Puppet.carrying(self.codec, portrait) if portrait else Puppet.of(self.codec, self.neutral_L3)

    def looking(self) -> LookingProcess:
        """What sees a person's motion as this model takes it."""
        motion = self.model.motion
        return LookingProcess(self.codec, self.faces, np.array(motion.mean), np.array(motion.std))

    def reaction(self, key: str) -> Reaction:
        return Reaction(self, key)


class Reaction:
    """One session's stream. Calls do not overlap."""

    def __init__(self, avatar: Avatar, key: str) -> None:
        self._device = avatar.model.mean.device
        reference = torch.from_numpy(avatar.reference_D)[None].to(self._device)
        self._stream = Stream(avatar.model, reference, avatar.sampler, keys=[key])

    @property
    def given(self) -> int:
        """Frames of conditions that it was given."""
        return self._stream.state.given

    @property
    def done(self) -> int:
        """Frames that it has made."""
        return self._stream.state.done

    @property
    def needs(self) -> int:
        """Frames of conditions that the next step takes."""
        return self._stream.needs

    def step(self, avatar_sound_N: np.ndarray, user_sound_N: np.ndarray, user_motion_TD: np.ndarray) -> np.ndarray:
        """The next block of motion, float32 [B, D], from `needs` frames of what was heard and seen."""
        given = (
            torch.from_numpy(part)[None].to(self._device) for part in (avatar_sound_N, user_sound_N, user_motion_TD)
        )
        return self._stream.step(*given)[0].cpu().numpy()

    def remember(self) -> None:
        """What can be done while waiting: see `Stream.remember`."""
        self._stream.remember()


def load_avatar(
    checkpoint: Path,
    dataset: str | None,
    *,
    key: str | None = None,
    speak: str | None = None,
    landmarker: str | None = None,
    encoder: str | None = None,
) -> Avatar:
    """Read all that a session needs, and run it once.

    Args:
        dataset: what the model was trained on, for its codec and a person; none: it is looked for where `visavis demo`
            puts it.
        key: a window of the dataset whose avatar is shown; none: the first that is held out.
        speak: any file with sound. landmarker: a .task file, in place of the face model in MediaPipe's wheel.

    Raises:
        UsageError: they do not fit together, or something is not there. One line.
    """
    faces = FacesConfig(max_faces=1)
    if landmarker:
        faces = FacesConfig(max_faces=1, model="face-landmarker", landmarker=landmarker)
    check_faces(faces)
    loaded = load_checkpoint(checkpoint, whole=False)
    data = Dataset(dataset or _beside(checkpoint))
    codec = read_codec(Store(data.location), data.manifest)
    if codec is None and (why := why_not_drawn(data.manifest)):
        raise UsageError(f"{data.location}: its motion cannot be drawn as a face: {why}")
    if codec is None or codec.id != loaded.motion.codec:
        found = codec.id if codec else "none"
        raise UsageError(
            f"{checkpoint} moves by codec {loaded.motion.codec}, {data.location} has {found}; name the dataset that it"
            " was trained on"
        )
    check_codec(codec, has_landmarker=landmarker is not None)
    sample, neutral = _person(data, key)
    model = load_model(loaded, pick_device(loaded.config.device), weights=encoder)
    avatar = Avatar(
        model=model,
        sampler=loaded.config.sampler,
        codec=codec,
        reference_D=sample.reference,
        neutral_L3=neutral.astype(np.float32),
        speech_N=_speech(speak),
        faces=faces,
        key=sample.key,
    )
    _warm_up(avatar)
    return avatar


def _beside(checkpoint: Path) -> str:
    """Where the dataset lies in the folder of a demo: DEMO/base/checkpoint.safetensors, DEMO/build/dataset."""
    found = checkpoint.absolute().parent.parent / "build" / DATASET
    if not found.is_dir():
        raise UsageError(f"name the dataset that {checkpoint} was trained on: visavis live CHECKPOINT DATASET")
    return str(found)


def _person(data: Dataset, key: str | None) -> tuple[Sample, np.ndarray]:
    """A window, and its avatar's neutral face."""
    for entry in chain(data.manifest.of("val"), data.manifest.of("train")):
        for name, members in data.groups(entry, data.fetch(entry)):
            if key not in (None, name):
                continue
            faces = read_faces(Store(data.location), entry).get(conversation_of(name))
            if faces is None:
                raise UsageError(f"{data.location} has no neutral faces, as an old one; build it again")
            return data.decode(name, members), faces.neutral[avatar_of(name)]
    raise UsageError(f"{data.location} has no window {key}" if key else f"{data.location} has no windows")


def _speech(file: str | None) -> np.ndarray:
    if file is None:
        return np.zeros(0, np.float32)
    from visavis.schemas.errors import Rejected
    from visavis.stages.media.audio import read_audio

    try:
        sound_N = read_audio(file)[: _LONGEST_SPEECH * SAMPLE_RATE]
    except Rejected as error:
        raise UsageError(f"--speak {file}: {error}") from error
    return np.pad(sound_N, (0, -len(sound_N) % SAMPLES_PER_FRAME)).astype(np.float32)


def _warm_up(avatar: Avatar) -> None:
    """Two blocks of nothing: what a first call costs is paid before anybody waits."""
    reaction = avatar.reaction("warm-up")
    for _ in range(2):
        silence_N = np.zeros(reaction.needs * SAMPLES_PER_FRAME, np.float32)
        reaction.step(silence_N, silence_N, np.tile(avatar.reference_D, (reaction.needs, 1)))

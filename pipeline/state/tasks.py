"""A task: one stage applied to one item, and the artifact that it leaves.

A task says where its inputs lie, not what they are: the worker loads them, so arrays never pass the driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from visavis.schemas.rows import Address
from visavis.schemas.secrets import hashable, texts_in

ARTIFACT_SUFFIX = ".safetensors"
PAIRS, CODEC, REFERENCE, CENSUS, SAMPLING = "pairs", "codec", "reference", "census-of-all", "sampling"
"""Folders of artifacts that no step of a build makes: pairs (`PairsStage.name`, whose module would bring torch), the
codec, what pairs are measured against, the whole census, how motion of pairs is sampled."""

WHOLE = "*"
"""Name of the single input of a stage whose In is itself an artifact's row."""


class Artifact(NamedTuple):
    """A committed artifact: its path in the run's folder, the digest of its content, and what its stage tells the plan
    of it (`Stage.facts`); a task's inputs are without that."""

    path: str
    digest: str
    facts: str = ""

    @property
    def bare(self) -> Artifact:
        """Without facts."""
        return Artifact(self.path, self.digest) if self.facts else self


class Task(NamedTuple):
    """Apply a stage to one item.

    seconds: of media; time limits grow with it. guessed: nobody has looked at the media yet.
    inputs: field of the stage's In → the artifacts it is loaded from. inline: fields given as plain data.
    A field that is a `Sequence` of rows has them loaded one at a time, as the stage looks at them; a tuple, at once.
    The single input `WHOLE`: In is itself an artifact's row, instead of being put together from fields.
    files: paths of the run's folder that the stage writes beside its artifact.
    places: inline fields that say where something lies and not what it is: a corpus can be moved.
    addresses: where the conversation's files lie, as the user's list says.
    """

    stage: str
    key: str
    item: str
    path: str
    fingerprint: str
    seconds: float = 0.0
    inputs: Mapping[str, tuple[Artifact, ...]] = {}
    inline: Mapping[str, Any] = {}
    files: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    guessed: bool = False
    addresses: tuple[Address, ...] = ()

    def digest(self) -> str:
        """What the output depends on, beside the stage's settings: content of all inputs."""
        inputs = [(name, [a.digest for a in self.inputs[name]]) for name in sorted(self.inputs)]
        inline = [(name, self.inline[name]) for name in sorted(self.inline) if name not in self.places]
        return hashlib.sha256(hashable((inputs, inline))).hexdigest()[:16]

    def keys(self) -> Iterator[str]:
        """Addresses that it works with, whose keys may be in what libraries say."""
        yield from (uri for address in self.addresses for uri in address if uri)
        yield from texts_in(self.inline)


def content_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def own_print(fingerprint: str) -> str:
    """Of the stage's settings alone: behind the codec, a task's fingerprint ends with `-` and the codec's digest."""
    return fingerprint.partition("-")[0]


def artifact_path(stage: str, version: int, fingerprint: str, key: str) -> str:
    """Path = f(stage, version, settings that matter, item)."""
    return f"artifacts/{stage}/v{version}-{fingerprint}/{key}{ARTIFACT_SUFFIX}"

"""Labels by a function of the user's own, which may be a model: a batch of windows at a time.

def far(samples):  # `visavis.schemas.sample.Sample`, up to BATCH of them
    return [["far_away"] if sample.meta.avatar_figures.face_size < 60 else [] for sample in samples]

visavis build … --set shard.labeller=mine.py:far
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from visavis.schemas.errors import UsageError
from visavis.schemas.labels import LABELS, OWN_LABEL, has_any
from visavis.schemas.sample import Sample
from visavis.schemas.storage.user_function import UserFunction

BATCH = 64
MOST = 100
"""Labels that one window may be given."""


class Labeller:
    """Adds the labels of a function to samples; those that were found stay. digest: sha256 of its file."""

    def __init__(self, code: str, digest: str = "") -> None:
        """Raises UsageError: there is no such function, or its file is another one than `digest` says."""
        self._function = UserFunction(code, "labeller", digest)
        self.digest = self._function.digest

    def label(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The same samples in their order, BATCH at a time.

        Raises:
            UsageError: the function raised something, or gave anything but a list of names for each sample.
        """
        samples = iter(samples)
        while batch := list(islice(samples, BATCH)):
            given = self._function(batch)
            if not isinstance(given, list | tuple) or len(given) != len(batch):
                found = f"{len(given)} answers" if isinstance(given, list | tuple) else type(given).__name__
                raise UsageError(f"{self._function.named} gave {found} for {len(batch)} windows")
            yield from (self._with(sample, names) for sample, names in zip(batch, given, strict=True))

    def _with(self, sample: Sample, names: Any) -> Sample:
        what = f"{self._function.named}, window {sample.key}:"
        if not isinstance(names, list | tuple | set | frozenset) or len(names) > MOST:
            raise UsageError(f"{what} expected a list of at most {MOST} labels")
        for name in names:
            if not isinstance(name, str) or not OWN_LABEL.fullmatch(name):
                raise UsageError(f"{what} {str(name)[:40]!r} is no label: small letters, digits and _")
            if has_any(LABELS, (name,)):
                raise UsageError(f"{what} {name} is a label of ours; choose another name")
        labels = tuple(sorted({*(sample.meta.labels or ()), *names}))
        return replace(sample, meta=sample.meta.model_copy(update={"labels": labels}))

"""A dataset without its run, read for its doctor: its windows, shard by shard."""

from __future__ import annotations

import hashlib

import numpy as np

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.doctor import LEARN_FROM, diagnosed
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.plain import load_record
from visavis.schemas.sample import Sample, SampleMeta
from visavis.schemas.untrusted import parsing
from visavis.stages.doctor.copies import Copies
from visavis.stages.doctor.examine import Learner, measure
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.findings import Diagnosis, Findings
from visavis.stages.doctor.lips import Lips
from visavis.stages.doctor.scratch import About, Scratch
from visavis.training.dataset import Dataset


def examine_dataset(folder: str, reporter: Reporter) -> Diagnosis:
    """All windows of a dataset.

    Raises:
        UsageError: not a dataset, or one of pairs.
        DatasetError: a shard is not the one that the manifest lists.
    """
    data = Dataset(folder)
    if data.manifest.kind != "windows":
        raise UsageError(f"{folder} holds pairs; name the dataset or run that they were made from")
    scratch, learner, copies, findings = Scratch(), Learner(), Copies(), Findings()
    shards = data.manifest.shards
    every = max(1, len(shards) // LEARN_FROM)
    with reporter.items("learned from", len(shards)) as advance:
        for number, entry in enumerate(shards):
            for key, members in data.groups(entry, data.fetch(entry)):
                with parsing(lambda why, key=key: DatasetError(f"sample {key}: {why}")):  # type: ignore[misc]
                    meta = load_record(members["meta.json"], SampleMeta)
                scratch.reaches(meta.conversation, meta.start + data.manifest.window)
                if number % every == 0:
                    learner.add(_of_sample(data.decode(key, members), 0))
            advance()
    usual = learner.usual()
    with reporter.items("measured", len(shards)) as advance:
        for entry in shards:
            for key, members in data.groups(entry, data.fetch(entry)):
                _put(scratch, copies, data.decode(key, members), entry.split, usual)
            advance()
    copies.judge(scratch, findings)
    asked = (
        "what needs a whole conversation (whether both speak with each other, whose answers come late): name the run"
    )
    return diagnosed(folder, scratch, findings, [asked])


def _of_sample(sample: Sample, frames: int) -> Excerpt:
    """A window, the two people in the order of their names: each is the avatar of some windows."""
    order = sorted((0, 1), key=lambda person: (sample.meta.avatar, sample.meta.user)[person])
    bits = [(sample.state >> person & 1) | (sample.state >> (2 + person) & 1) << 2 for person in order]
    heard = (sample.meta.avatar_voice, sample.meta.user_voice)
    return Excerpt(
        np.stack([(sample.avatar_audio, sample.user_audio)[person] for person in order]),
        (bits[0] | bits[1] << 1).astype(np.uint8),
        np.stack([(sample.avatar_motion, sample.user_motion)[person] for person in order]),
        sample.valid.T[order],
        sample.meta.start,
        frames,
        all(figures is None or figures.method == "own_track" for figures in heard),
    )


def _put(scratch: Scratch, copies: Copies, sample: Sample, split: str, usual: tuple[Lips | None, np.ndarray]) -> None:
    """Measure a window, unless the other one's window of the same frames was."""
    meta = sample.meta
    place = hashlib.blake2b(f"{meta.conversation}/{meta.start}".encode(), digest_size=12).digest()
    if not scratch.is_new(place):
        return
    figures = {meta.avatar: meta.avatar_figures, meta.user: meta.user_figures}
    one, other = sorted((meta.avatar, meta.user))
    about = About(name="", people=(one, other), split=split, figures=(figures[one], figures[other]))
    excerpt = _of_sample(sample, scratch.length(meta.conversation))
    scratch.add(meta.conversation, about, measure(excerpt, *usual))
    copies.hear(meta.conversation, excerpt)

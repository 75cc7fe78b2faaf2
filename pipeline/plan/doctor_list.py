"""A corpus before its build: each conversation is probed, heard for some minutes, and looked at in a few places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.sources import find_sources, source_key, source_name
from visavis.schemas import FPS
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Media, Source
from visavis.stages.doctor import media as files
from visavis.stages.doctor import people
from visavis.stages.doctor.copies import Copies
from visavis.stages.doctor.examine import Judge, hear
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.findings import Diagnosis, Findings, Sign
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import About, Scratch
from visavis.stages.ingest import addresses_of, names_of, probe
from visavis.stages.media.audio import sound_of

LISTEN = 300 * FPS
"""Frames of each conversation that are heard."""
_ABOVE = 12.0  # dB over the tenth quietest of its track by which somebody speaks


def examine_list(inputs: Sequence[str], reporter: Reporter) -> Diagnosis:
    """All that a list, a folder or a name stands for.

    Raises:
        UsageError: as `find_sources`.
    """
    sources = find_sources(inputs)
    findings, scratch, copies = Findings(), Scratch(), Copies()
    for line in sources.notes.lines():
        reporter.line(line)
    with reporter.items("looked at", len(sources)) as advance:
        for source in sources:
            key, name = source_key(source), source_name(source)
            findings.add(key, name, _examined(source, scratch, copies))
            advance()
    judge, total = Judge(scratch, sound_only=True), len(sources)
    for id_, about, sums in scratch.talks():
        signs = judge.signs(about, sums)
        if not sums["sound.own"]:  # one mix stands for both
            signs = [sign._replace(person=None) for sign in signs if sign.person != 1]
        findings.add(id_, about.name, signs, about.people)
    count = people.judge(scratch, findings)
    copies.judge(scratch, findings)
    scratch.close()
    asked = "faces, lips and turns, which only a build measures: ask again of its run"
    return Diagnosis(
        corpus=" ".join(inputs),
        looked_at={"conversations": total} | ({"people": count} if count else {}),
        findings=tuple(findings.all(total)),
        unknown=(asked,),
    )


def _examined(source: Source, scratch: Scratch, copies: Copies) -> Iterator[Sign]:
    """Signs of one conversation; its sound goes into the scratch, and what others would share with it to the copies."""
    try:
        names = names_of(source)
        media = _probed(source)
        again = [each for each in media if not scratch.is_new(bytes.fromhex(each.sha256))]
        if again:
            yield Sign(Kind.DUPLICATE, 0.99, "the same bytes are listed before, or for both")
            return
        yield from _of_media(media)
        if excerpt := _heard(media):
            about = About(name=source_name(source), people=(names[0] or "", names[1] or ""))
            scratch.add(source_key(source), about, hear(excerpt))
            copies.hear(source_key(source), excerpt)
    except Rejected as error:
        kind = Kind.MISSING_PARTNER if error.reason is Reason.INCOMPLETE_DYAD else Kind.UNREADABLE
        yield Sign(kind, 0.95, str(error))


def _probed(source: Source) -> list[Media]:
    sidecars = source.sidecars or ((),) * len(source.uris)
    probed = (probe(uri, beside) for uri, beside in zip(source.uris, sidecars, strict=True))
    return [m.model_copy(update=place._asdict()) for m, place in zip(probed, addresses_of(source), strict=True)]


def _of_media(media: list[Media]) -> Iterator[Sign]:
    for person, each in enumerate(media):
        frames = int(each.video_duration * FPS)
        signs = [*files.judge_one(each), *files.judge_channels(each), *files.judge_pictures(each, frames)]
        yield from (sign._replace(person=person if len(media) > 1 else None) for sign in signs)
    yield from files.judge_pair(media)


def _heard(media: list[Media]) -> Excerpt | None:
    """The first minutes of sound; None where there is less than a second."""
    frames = int(min(LISTEN, *(FPS * (each.audio_start + each.audio_duration) for each in media)))
    if frames < FPS:
        return None
    tracks = [sound_of(each, frames) for each in media]
    own = len(tracks) == 2
    nobody = np.zeros((2, frames, 0), np.float32), np.zeros((2, frames), bool)
    heard = Excerpt(np.stack(tracks if own else tracks * 2), np.zeros(frames, np.uint8), *nobody, 0, frames, own)
    return replace(heard, state_T=_loud(heard.level_PT))


def _loud(level_PT: np.ndarray) -> np.ndarray:
    """Who is heard in a frame, as `Excerpt.state_T`: whose track is clearly above its floor."""
    speaks_PT = level_PT > np.percentile(level_PT, 10, axis=1, keepdims=True) + _ABOVE
    return (speaks_PT[0] | speaks_PT[1] << 1).astype(np.uint8)

"""A corpus before its build: each conversation is probed, heard for some minutes, and looked at in a few places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.sources import find_sources, source_key, source_name
from visavis.schemas import FPS
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Media, Source
from visavis.stages.doctor import media as files
from visavis.stages.doctor import people
from visavis.stages.doctor.examine import Judge, hear
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.findings import Diagnosis, Findings, Sign
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import About, Scratch
from visavis.stages.ingest import addresses_of, probe
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
    findings, scratch, seen = Findings(), Scratch(), _Contents()
    for line in sources.notes.lines():
        reporter.line(line)
    with reporter.items("looked at", len(sources)) as advance:
        for source in sources:
            key, name = source_key(source), source_name(source)
            findings.add(key, name, _examined(source, scratch, seen))
            advance()
    judge, total = Judge(scratch, sound_only=True), len(sources)
    for id_, about, sums in scratch.talks():
        findings.add(id_, about.name, judge.signs(about, sums), about.people)
    count = people.judge(scratch, findings)
    scratch.close()
    asked = "faces, lips and turns, which only a build measures: ask again of its run"
    return Diagnosis(
        corpus=" ".join(inputs),
        looked_at={"conversations": total, "people": count},
        findings=tuple(findings.all(total)),
        unknown=(asked,),
    )


class _Contents:
    """Which conversation had a file's bytes first, by digests of eight bytes."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}

    def again(self, sha256: str, key: str) -> bool:
        number, mine = int(sha256[:16], 16), int(key, 16)
        return self._first.setdefault(number, mine) != mine


def _examined(source: Source, scratch: Scratch, seen: _Contents) -> Iterator[Sign]:
    """Signs of one conversation; its sound goes into the scratch."""
    if len(source.uris) > 2 or (len(source.uris) == 1 and any(source.participants)):
        yield Sign(Kind.MISSING_PARTNER, 0.99, f"{len(source.uris)} of two files")
        return
    try:
        media = _probed(source)
        if any(seen.again(each.sha256, source_key(source)) for each in media):
            yield Sign(Kind.DUPLICATE, 0.99, "the same bytes are listed before")
            return
        yield from _of_media(source, media, scratch)
    except Rejected as error:
        kind = Kind.MISSING_PARTNER if error.reason is Reason.INCOMPLETE_DYAD else Kind.UNREADABLE
        yield Sign(kind, 0.95, str(error))


def _probed(source: Source) -> list[Media]:
    sidecars = source.sidecars or ((),) * len(source.uris)
    probed = (probe(uri, beside) for uri, beside in zip(source.uris, sidecars, strict=True))
    return [m.model_copy(update=place._asdict()) for m, place in zip(probed, addresses_of(source), strict=True)]


def _of_media(source: Source, media: list[Media], scratch: Scratch) -> Iterator[Sign]:
    for person, each in enumerate(media):
        frames = int(each.video_duration * FPS)
        signs = [*files.judge_one(each), *files.judge_channels(each), *files.judge_pictures(each, frames)]
        yield from (sign._replace(person=person if len(media) > 1 else None) for sign in signs)
    yield from files.judge_pair(media)
    frames = int(min(LISTEN, *(FPS * (each.audio_start + each.audio_duration) for each in media)))
    if frames < FPS:
        return
    tracks = [sound_of(each, frames) for each in media]
    own = len(tracks) == 2
    audio_PN = np.stack(tracks if own else tracks * 2)
    nothing = np.zeros((2, frames, 0), np.float32), np.zeros((2, frames), bool)
    heard = Excerpt(audio_PN, np.zeros(frames, np.uint8), *nothing, 0, frames, own)
    heard = Excerpt(audio_PN, _loud(heard.level_PT), *nothing, 0, frames, own)
    names = source.participants if own else ()
    key = source_key(source)
    named = (names[0] or f"{key}-0", names[1] or f"{key}-1") if len(names) == 2 else (f"{key}-0", f"{key}-1")
    scratch.add(key, About(name=source_name(source), people=named), hear(heard))


def _loud(level_PT: np.ndarray) -> np.ndarray:
    """Who is heard in a frame, as `Excerpt.state_T`: whose track is clearly above its floor."""
    speaks_PT = level_PT > np.percentile(level_PT, 10, axis=1, keepdims=True) + _ABOVE
    return (speaks_PT[0] | speaks_PT[1] << 1).astype(np.uint8)

"""Soundprint: what a conversation sounds like, in so few numbers that each can be held against all others.

Whether another one holds the same sound is seen when all are known (`pipeline.plan.copies`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from visavis.schemas.print_rows import Soundprint
from visavis.schemas.rows import Conversation
from visavis.schemas.section import Section
from visavis.stages.base import Stage
from visavis.stages.duplicates.landmarks import landmarks
from visavis.stages.media.audio import sound_of


class SoundprintStage(Stage[Conversation, Soundprint]):
    """What is heard of both people together → its landmarks. Rejects: NO_AUDIO, UNREADABLE."""

    name: ClassVar[str] = "soundprint"
    version: ClassVar[int] = 1

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())

    def process(self, item: Conversation) -> Iterator[Soundprint]:
        audio_N = sound_of(item.media[0], item.frames)
        for media in item.media[1:]:
            audio_N += sound_of(media, item.frames)
        found = landmarks(audio_N)
        yield Soundprint(conversation=item.id, hashes=found.hash_M, frames=found.frame_M)

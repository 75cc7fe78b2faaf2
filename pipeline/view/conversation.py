"""A whole conversation as a scene: both people's own video beside the motion that was made of it, with both voices.

Of two people in one picture it is shown once. What a stage has not made yet is left out, but for motion: without
sound where the voices are not separated, without the borders of windows where there are none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from visavis.pipeline.engine.progress import command
from visavis.pipeline.plan.outputs import codecs_of, read_outputs
from visavis.pipeline.view.faces import face_pictures
from visavis.pipeline.view.film import Panel, Scene
from visavis.pipeline.view.looks import Looks
from visavis.pipeline.view.puppet import Puppet
from visavis.pipeline.view.reactions import reactions, speech, speech_of_turns, within
from visavis.pipeline.view.timeline import AVATAR, USER, Colour, Lane, Timeline
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.dyads import Codec, Motion
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Conversation, Layout, Media
from visavis.schemas.sample import decode_audio
from visavis.schemas.storage.store import Store
from visavis.schemas.uris import file_name
from visavis.schemas.voice_rows import Voices
from visavis.stages.bind import BindStage
from visavis.stages.media.video import frames_on_grid
from visavis.stages.motion import MotionStage
from visavis.stages.separate import SeparateStage
from visavis.stages.windows import WindowsStage

_COLOURS = USER, AVATAR
_SOUND = 10 * SAMPLE_RATE  # samples decoded at a time
Row = TypeVar("Row")


@dataclass(frozen=True)
class Moving:
    """A participant's motion, and what draws it."""

    motion: Motion
    codec: Codec
    puppet: Puppet


def moving(root: str, conversation: Conversation, looks: Looks) -> tuple[Moving, Moving]:
    """Both participants of a conversation; in portraits the first is the user, the second the avatar.

    Raises:
        UsageError: there is no motion of them, or not its codec.
    """
    motions = {row.participant: row for _, row in read_outputs(root, MotionStage, conversation.id)}
    codecs = codecs_of(Store(root))
    if set(motions) != {0, 1} or not all(row.codec in codecs for row in motions.values()):
        name = " + ".join(file_name(media.uri) for media in conversation.media)
        raise UsageError(
            f"{name}: its motion is not made yet, or it was left out before; `{command('status', root)}` says more,"
            " and `visavis draw` shows the faces that are tracked"
        )
    first, second = (_moving(motions[i], codecs[motions[i].codec], conversation, looks) for i in range(2))
    return first, second


def _moving(motion: Motion, codec: Codec, conversation: Conversation, looks: Looks) -> Moving:
    person = motion.participant
    uri = conversation.media[min(person, len(conversation.media) - 1)].uri
    puppet = looks.puppet(codec, motion.neutral, conversation.id, person, avatar=person == 1, uri=uri)
    return Moving(motion, codec, puppet)


def conversation_scene(
    root: str, conversation: Conversation, people: tuple[Moving, Moving], *, first: int, last: int, side: int = 320
) -> Scene:
    """Frames [first, last) of a conversation of a run; the first participant is heard on the left.

    Args:
        conversation: with its files where they are (`Conversation.at`).
        side: pixels of a panel, as `write_film` gets it.
    """
    names = _names(conversation)
    drawn = [_drawn(person, names[i], first, last, side, _COLOURS[i]) for i, person in enumerate(people)]
    videos = [Panel(file_name(media.uri), _video(media, first, last, side)) for media in conversation.media]
    panels = (videos[0], *drawn, *videos[1:])
    dyad = _only(read for _, read in read_outputs(root, WindowsStage, conversation.id))
    voices = _only(read for _, read in read_outputs(root, SeparateStage, conversation.id))
    bound = _only(read for _, read in read_outputs(root, BindStage, conversation.id))
    lanes, borders = [], set[int]()
    for i, person in enumerate(people):
        if dyad is not None:
            heard = speech(dyad.state[first:last], i)
        else:
            heard = speech_of_turns(bound.turns if bound else (), i, first, last)
        motion = person.motion
        marks = reactions(person.codec, motion.motion, motion.neutral, motion.valid)
        lanes.append(Lane(names[i], _COLOURS[i], (*heard, *within(marks, first, last))))
    for window in dyad.windows if dyad else ():
        borders |= {window.first - first, window.first + window.length - first}
    inside = tuple(sorted(border for border in borders if 0 < border < last - first))
    return Scene(
        panels=panels,
        frames=last - first,
        sound=_sound(voices, first, last) if voices else (),
        timeline=Timeline(tuple(lanes), inside, first),
    )


def _names(conversation: Conversation) -> tuple[str, str]:
    """Of the participants, as people call them; of two in one picture whom nobody named, where they are."""
    if conversation.layout is Layout.ONE_FRAME and conversation.participants[0].startswith(conversation.id):
        return "left", "right"
    return conversation.participants


def _only(rows: Iterator[Row]) -> Row | None:
    return next(rows, None)


def _drawn(person: Moving, name: str, first: int, last: int, side: int, colour: Colour) -> Panel:
    motion = person.motion
    pictures = face_pictures(person.puppet, motion.motion[first:last], motion.valid[first:last], side, colour)
    return Panel(f"{name}, motion", pictures, colour)


def _video(media: Media, first: int, last: int, side: int) -> Iterator[np.ndarray]:
    """A person's own pictures, no larger than they are shown."""
    longest = round(side * max(1.0, media.width / max(1, media.height)))
    for _, rgb in frames_on_grid(media.uri, first, last, max_side=longest, witness=media.witness):
        yield rgb


def _sound(voices: Voices, first: int, last: int) -> Iterator[np.ndarray]:
    """Both voices, [2, N] at a time."""
    begin, end = first * SAMPLES_PER_FRAME, last * SAMPLES_PER_FRAME
    data = [audio.tobytes() for audio in voices.audio]
    for at in range(begin, end, _SOUND):
        yield np.stack([decode_audio(each, at, min(_SOUND, end - at)) for each in data])


def span_of(conversation: Conversation, start: float | None, end: float | None) -> tuple[int, int]:
    """Frames [first, last) of seconds that were asked for; all of it where none were.

    Raises:
        UsageError: nothing lies between them.
    """
    if not all(map(math.isfinite, (start or 0.0, end or 0.0))):
        raise UsageError("--from and --to are seconds")
    first = round((start or 0.0) * FPS)
    last = conversation.frames if end is None else min(round(end * FPS), conversation.frames)
    if not 0 <= first < last:
        whole = f"it is {conversation.frames / FPS:g} s long"
        raise UsageError(f"nothing lies between --from {start or 0:g} and --to {last / FPS:g}; {whole}")
    return first, last

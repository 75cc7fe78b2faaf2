"""Cast: who takes part in a conversation, and how well they can be seen.

The tracks of one person are joined again across pieces, losses and cuts (`stages.face.people`), and two of all people
are chosen (`stages.face.participants`): from the picture alone, before anybody knows who speaks.

How well they can be seen is measured here and judged elsewhere (`pipeline.plan.quality`): the figures are in the
ledger, so a threshold can be moved without measuring again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from pydantic import SkipValidation

from visavis.schemas import FPS
from visavis.schemas.face_rows import Cast, CastFacts, FaceTracks, Figures, Member, Segment
from visavis.schemas.rows import Conversation, Layout, Row
from visavis.schemas.section import Section
from visavis.stages.base import Stage
from visavis.stages.face.boxes import by_boxes
from visavis.stages.face.participants import choose, is_still
from visavis.stages.face.people import Person, may_be_one, scenes_of

_SECOND_DIFFERENCE = np.sqrt(6.0)  # of white noise, over its own deviation
_STRETCH, _MOSTLY = 2 * FPS, 0.9  # frames, as long as a window of the paper; share of them in which somebody is seen
_NEAR = FPS // 5  # frames before and after a cut
_COUNTS = 0.5  # of a participant's size: who is smaller is in the background


class CastInput(Row):
    """A conversation and all that was seen of it. The faces are read piece by piece, and none is kept."""

    conversation: Conversation
    faces: SkipValidation[Sequence[FaceTracks]]


class CastStage(Stage[CastInput, Cast]):
    """Face tracks → the two participants. Rejects: NO_FACE, ONE_FACE, NOT_ALIVE, COPIED_FACE."""

    name: ClassVar[str] = "cast"
    version: ClassVar[int] = 6

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())

    def process(self, item: CastInput) -> Iterator[Cast]:
        conversation = item.conversation
        scenes = scenes_of(item.faces, len(conversation.media), conversation.frames)
        one_frame = conversation.layout is Layout.ONE_FRAME
        members, crowd_T = list[Person](), np.zeros(conversation.frames, np.bool_)
        for scene, media in zip(scenes, conversation.media, strict=True):
            wanted = 2 if one_frame else 1
            people = by_boxes(scene.people, media.boxes, wanted)
            chosen = choose(people, wanted, media.uri)
            outside = [p for p in scene.people if not any(p is person for person in people) and not is_still(p)]
            members += sorted(chosen.participants, key=lambda person: float(person.place[0][0]))
            crowd_T |= _crowd(chosen.participants, [*chosen.others, *outside], conversation.frames)
        first, second = (_member(person) for person in members)
        seen_PT = np.stack([person.seen_T for person in members])
        cuts = sorted({cut for scene in scenes for cut in scene.cuts if 0 < cut < conversation.frames})
        yield Cast(
            conversation=conversation.id,
            members=(first, second),
            crowd=round(float(crowd_T.mean()), 4),
            cuts=round(_cuts_per_minute(seen_PT, cuts), 2),
            together=round(seconds_together(seen_PT, ()), 2),
            uncut=round(seconds_together(seen_PT, cuts), 2),
        )

    def facts(self, rows: Sequence[Cast]) -> str:
        """`CastFacts`."""
        (cast,) = rows
        one, other = (tuple(dict(member.figures).values()) for member in cast.members)
        return CastFacts(
            crowd=cast.crowd,
            cuts=cast.cuts,
            together=cast.together,
            uncut=cast.uncut,
            fresh=(cast.members[0].fresh, cast.members[1].fresh),
            members=(one, other),
        ).model_dump_json()


def _member(person: Person) -> Member:
    return Member(
        media=person.media,
        segments=tuple(Segment(piece=t.piece, track=t.track) for t in person.tracks),
        mouth=person.mouth_T2,
        box=person.mean_box,
        figures=figures_of(person),
        fresh=round(float(np.concatenate([t.data.fresh_W for t in person.tracks]).mean()), 3),
    )


def figures_of(person: Person) -> Figures:
    """See `Figures`. Rounded, because they are kept in the ledger."""

    def median(name: str) -> float:
        return float(np.median(np.concatenate([getattr(t.data, name) for t in person.tracks])))

    turn_W2 = np.abs(np.concatenate([t.data.turn_W2 for t in person.tracks]))
    yaw, pitch = np.percentile(turn_W2, 90, axis=0)
    return Figures(
        visible=round(person.visible, 4),
        face_size=round(person.place[1], 1),
        sharpness=round(median("sharpness_V"), 1),
        luminance=round(median("luminance_V"), 1),
        confidence=round(median("confidence_V"), 3),
        yaw=round(float(yaw), 1),
        pitch=round(float(pitch), 1),
        jitter=round(_jitter(person), 3),
    )


def _jitter(person: Person) -> float:
    """Second differences of the gestures over seen frames, in percent, scaled to be the deviation of white noise.

    Within each track: a cut is no jitter.
    """
    bends_TG = np.concatenate([np.diff(track.data.gesture_TG, n=2, axis=0) for track in person.tracks])
    seen_TG = bends_TG[np.isfinite(bends_TG).all(axis=1)]
    return float(100 * np.sqrt((seen_TG**2).mean()) / _SECOND_DIFFERENCE) if len(seen_TG) else 0.0


def _crowd(participants: Sequence[Person], others: Sequence[Person], frames: int) -> np.ndarray:
    """Frames in which somebody else is seen who is no background figure: bool [T].

    Who may be a participant in another shot is nobody else.
    """
    smallest = min(person.place[1] for person in participants)
    crowd_T = np.zeros(frames, np.bool_)
    for person in others:
        if person.place[1] >= _COUNTS * smallest and not any(may_be_one(person, p) for p in participants):
            crowd_T |= person.seen_T
    return crowd_T


def seconds_together(seen_PT: np.ndarray, cuts: Sequence[int]) -> float:
    """Seconds that lie in some 2 s in which each of the two is seen in nine of ten frames, and no shot begins.

    Args:
        seen_PT: bool [2, T].
        cuts: frames at which a shot begins, none of them 0.
    """
    frames = seen_PT.shape[1]
    if frames < _STRETCH:
        return 0.0
    total_PT = np.concatenate([np.zeros((2, 1), np.int64), np.cumsum(seen_PT, axis=1)], axis=1)
    seen_PF: np.ndarray = total_PT[:, _STRETCH:] - total_PT[:, :-_STRETCH]  # by the first frame of 2 s
    good_F: np.ndarray = seen_PF.min(axis=0) >= _MOSTLY * _STRETCH
    for cut in cuts:
        good_F[max(0, cut - _STRETCH + 1) : cut] = False
    inside_T = np.zeros(frames, np.bool_)
    for first in np.flatnonzero(good_F):
        inside_T[first : first + _STRETCH] = True
    return float(inside_T.sum()) / FPS


def _cuts_per_minute(seen_PT: np.ndarray, cuts: Sequence[int]) -> float:
    """Of those from both people to both people; where an edited film shows one of them it does not count."""
    both_T: np.ndarray = seen_PT.min(axis=0)
    around = [(both_T[max(0, cut - _NEAR) : cut], both_T[cut : cut + _NEAR]) for cut in cuts]
    return sum(before.any() and after.any() for before, after in around) / max(both_T.sum() / FPS / 60, 1 / 60)

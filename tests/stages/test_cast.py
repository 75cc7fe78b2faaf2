"""Who takes part: living people, each once, whoever else is in the picture; and how well they can be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.scale import some
from tests.stages.test_bind import FRAMES, row, skull, track
from tests.stages.test_faces import loaded_stage, real_conversation, real_faces
from tests.stages.tracks import track_of
from visavis.pipeline.plan.quality import LIMITS, faults, values_of
from visavis.schemas.config import FacesConfig, QualityConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import Cast, CastFacts, FaceTracks, Piece, Track
from visavis.schemas.rows import Conversation, Layout, Media
from visavis.stages.cast import CastInput, CastStage, seconds_together
from visavis.stages.face.crops import THUMB, crop_face, likeness
from visavis.stages.face.heads import canonical_face

MEDIA = Media(
    uri="clip.mp4", sha256="0", bytes=1, width=1280, height=720, fps=25, video_start=0, video_duration=20,
    audio_start=0, audio_duration=20, audio_rate=48000, audio_channels=2,
)  # fmt: skip


def cast_of(*faces: FaceTracks, frames: int = FRAMES, layout: Layout = Layout.ONE_FRAME) -> Cast:
    media = (MEDIA,) if layout is Layout.ONE_FRAME else (MEDIA, MEDIA)
    conversation = Conversation(id="c", layout=layout, media=media, participants=("a", "b"), frames=frames)
    [cast] = CastStage().process(CastInput(conversation=conversation, faces=faces))
    return cast


def tracks_in(cast: Cast) -> list[int]:
    return [member.segments[0].track for member in cast.members]


def rejected(*faces: FaceTracks, **more: object) -> Reason:
    with pytest.raises(Rejected) as error:
        cast_of(*faces, **more)  # type: ignore[arg-type]
    return error.value.reason


def photograph(x: float, size: float = 220.0) -> Track:
    """A still face that is panned and zoomed, with the tracker's noise."""
    frames = np.arange(FRAMES)
    noise = np.random.default_rng(4).normal(0, 0.0005, (FRAMES, 478, 3))
    grown = size * (1 + 0.3 * frames / FRAMES)
    place = np.stack([x + 0.1 * frames, 300 + 0 * frames, 0 * frames], axis=1)
    return track_of(((skull(5) + noise) * grown[:, None, None] + place[:, None]).astype(np.float32), looks=5)


def moved(face: Track, by: float, *, mirrored: bool = False) -> Track:
    """The same face again, elsewhere in the picture."""
    landmarks = face.landmarks.copy()
    if mirrored:
        landmarks[..., 0] = 2 * landmarks[..., 0].mean() - landmarks[..., 0]
        landmarks[:, [33, 263, 159, 386, 145, 374]] = landmarks[:, [263, 33, 386, 159, 374, 145]]
    landmarks[..., 0] += by
    return track_of(landmarks, looks=9)


def delayed(face: Track, frames: int) -> Track:
    landmarks = np.concatenate([np.repeat(face.landmarks[:1], frames, axis=0), face.landmarks])[: len(face.landmarks)]
    return track_of(landmarks, looks=9)


def grey(face: Track) -> Track:
    portrait = np.repeat(face.portrait.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    return face.model_copy(update={"portrait": portrait})


def coloured(face: Track) -> Track:
    return face.model_copy(update={"portrait": (face.portrait // 3 + np.array([150, 90, 60])).astype(np.uint8)})


def test_a_photograph_takes_no_part_however_large_it_is() -> None:
    assert tracks_in(cast_of(row(photograph(640), track(0, 200), track(1, 1000)))) == [1, 2]
    assert rejected(row(photograph(640), track(0, 200))) is Reason.NOT_ALIVE
    assert (
        rejected(row(photograph(640)), row(track(0, 200), media=1), layout=Layout.PER_PARTICIPANT) is Reason.NOT_ALIVE
    )


@pytest.mark.parametrize("late", [0, 12, 50])  # frames
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_face_that_is_shown_twice_is_one(mirrored: bool, late: int) -> None:
    one, other = track(0, 200), track(1, 600)
    copy = delayed(moved(one, 800, mirrored=mirrored), late)
    assert tracks_in(cast_of(row(one, other, copy))) in ([0, 1], [1, 2])  # one of the two, and the other person
    assert rejected(row(one, copy)) is Reason.COPIED_FACE


def test_a_grey_head_beside_people_in_colour_takes_no_part() -> None:
    one, other, head = coloured(track(0, 200)), coloured(track(1, 600)), grey(track(2, 1000, size=300))
    assert tracks_in(cast_of(row(one, other, head))) == [0, 1]
    assert rejected(row(one, head)) is Reason.ONE_FACE
    assert tracks_in(cast_of(row(grey(one), grey(other)))) == [0, 1]  # an old film


def test_who_walks_by_takes_no_part_and_is_no_crowd() -> None:
    passer_by = track(2, 640, first=100, last=400, size=60)
    cast = cast_of(row(track(0, 300), passer_by, track(1, 900)))
    assert tracks_in(cast) == [0, 2]
    assert cast.crowd == 0.0
    third = track(2, 640, first=100, last=350)
    assert cast_of(row(track(0, 300), third, track(1, 900))).crowd == 0.5


def test_looks_join_a_person_that_the_camera_shows_larger_and_elsewhere() -> None:
    wide = (track(0, 300, last=200), track(1, 900, last=200))
    close = track(0, 640, first=200, last=350, size=320)
    again = (track(0, 300, first=350), track(1, 900, first=350))
    cast = cast_of(row(*wide, close, *again, cuts=(200, 350)))
    assert [[s.track for s in member.segments] for member in cast.members] == [[0, 2, 3], [1, 4]]
    assert [member.figures.visible for member in cast.members] == [1.0, 0.7]
    assert (cast.together, cast.uncut) == (14.4, 14.0)  # the close-up's 6 s are not both people's
    assert cast.cuts == 0  # from both to both there is none


def test_two_who_are_seen_at_once_take_part_before_a_close_up_of_one_of_them() -> None:
    """One is not known again in the close-up, which fills most of the picture most of the time."""
    wide = (track(0, 300, last=200), track(1, 900, last=200))
    close = track(0, 640, first=200, size=320).model_copy(update={"texture": None})
    cast = cast_of(row(*wide, close, cuts=(200,)))
    assert tracks_in(cast) == [0, 1]
    assert cast.crowd == 0  # and who may be one of the two is no third


SEEN = np.ones((2, FRAMES), bool)  # 20 s


def test_seconds_together_are_those_that_windows_can_come_from() -> None:
    assert seconds_together(SEEN, ()) == 20
    assert seconds_together(SEEN, (250,)) == 20
    assert seconds_together(SEEN, range(40, FRAMES, 40)) == 0  # a cut every 1.6 s
    assert seconds_together(SEEN, (30, 130)) == 18.8  # the first 1.2 s are too short
    out_of_sight = SEEN.copy()
    out_of_sight[0, 100:350] = False
    assert seconds_together(out_of_sight, ()) == pytest.approx(10, abs=0.5)
    assert seconds_together(SEEN[:, :49], ()) == 0


def test_looks_keep_two_people_apart_who_take_turns_in_one_place() -> None:
    spans = [(first, first + 125) for first in range(0, FRAMES, 125)]
    turns = [track(n % 2, 640, first=first, last=last) for n, (first, last) in enumerate(spans)]
    cast = cast_of(row(*turns, cuts=(125, 250, 375)))
    assert sorted(member.figures.visible for member in cast.members) == [0.5, 0.5]


def test_figures_say_how_well_a_face_can_be_seen() -> None:
    cast = cast_of(row(track(0, 300, size=150), track(1, 900, last=400, size=300)))
    near, far = (member.figures for member in cast.members[::-1])
    assert near.face_size == pytest.approx(2 * far.face_size, rel=0.1)
    assert (far.visible, near.visible) == (1.0, 0.8)
    assert (far.sharpness, far.luminance, far.confidence) == (500, 120, 1)
    facts = CastFacts.model_validate_json(CastStage().facts([cast]))
    sizes = next(values_of(facts, limit) for limit in LIMITS if limit.figure == "face_size")
    assert sizes == (far.face_size, near.face_size)
    assert len(CastStage().facts([cast])) < 250  # the driver keeps it of every conversation


# On real pictures


def picture(seed: int = 0) -> np.ndarray:
    return cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 255, (400, 400, 3)).astype(np.uint8), (0, 0), 2)


def test_an_upright_look_ignores_where_a_face_is() -> None:
    face = canonical_face()[:, :2] * (12, -12) + 200
    turn = cv2.getRotationMatrix2D((200, 200), 25, 0.8)
    turned = cv2.warpAffine(picture(), turn, (400, 400))
    one = crop_face(picture(), face)
    same = crop_face(turned, face @ turn[:, :2].T + turn[:, 2])
    other = crop_face(picture(1), face)
    assert one.thumb_SS3.shape == (THUMB, THUMB, 3)
    assert likeness(same.thumb_SS3[None], one.thumb_SS3)[0] > 0.95
    assert likeness(other.thumb_SS3[None], one.thumb_SS3)[0] < 0.5
    assert crop_face(cv2.GaussianBlur(picture(), (0, 0), 4), face).sharpness < one.sharpness / 10
    assert crop_face(picture(), face + [200, 0]).inside < 0.9


Frames = list[np.ndarray]


@pytest.fixture(scope="module")
def clips(shared_media: Path) -> dict[str, Frames]:
    """Four real or rendered people, each in pictures of 360 × 400."""
    from visavis.stages.media.video import frames_on_grid

    def cropped(name: str, left: int, right: int) -> Frames:
        path = str(shared_media / "conversation" / name)
        return [cv2.resize(rgb[:, left:right], (360, 400)) for _, rgb in frames_on_grid(path, 0, 100)]

    return {
        "host": cropped("interview.mp4", 20, 660),
        "guest": cropped("interview.mp4", 640, 1280),
        "user": cropped("pair_user.mp4", 25, 485),
        "avatar": cropped("pair_avatar.mp4", 25, 485),
    }


def still(frames: Frames) -> Frames:
    """A photograph, with the noise of a camera."""
    rng = np.random.default_rng(0)
    return [np.clip(frames[40] + rng.normal(0, 4, frames[40].shape), 0, 255).astype(np.uint8) for _ in frames]


def colourless(frames: Frames) -> Frames:
    return [cv2.cvtColor(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB) for f in frames]


def mirror(frames: Frames) -> Frames:
    return [np.ascontiguousarray(f[:, ::-1]) for f in frames]


@pytest.mark.nightly("photographs and copies in real films; made faces are above")
@pytest.mark.parametrize(
    ("panels", "expected"),
    [
        (lambda c: [still(c["guest"]), c["user"], c["host"]], [1, 2]),
        (lambda c: [still(c["guest"]), c["user"]], Reason.NOT_ALIVE),
        (lambda c: [c["avatar"], c["user"], mirror(c["avatar"])], [0, 1]),
        (lambda c: [c["avatar"], mirror(c["avatar"])], Reason.COPIED_FACE),
        (lambda c: [colourless(c["guest"]), c["user"], c["host"]], [1, 2]),
        (lambda c: [colourless(c["guest"]), colourless(c["host"])], [0, 1]),
    ],
    ids=["photo", "photo-and-one", "copies", "copies-only", "grey", "old-film"],
)
def test_on_real_faces(
    panels: Callable[[dict[str, Frames]], list[Frames]],
    expected: list[int] | Reason,
    clips: dict[str, Frames],
    tmp_path: Path,
) -> None:
    from visavis.pipeline.demo.dialogue import write_video

    shown = [np.concatenate(frames, axis=1) for frames in zip(*panels(clips), strict=True)]
    write_video(tmp_path / "clip.mp4", iter(shown), np.zeros(64_000, np.float32))
    piece = Piece(conversation="c", media=0, uri=str(tmp_path / "clip.mp4"), first=0, last=100)
    [faces] = loaded_stage().process(piece)
    if isinstance(expected, Reason):
        assert rejected(faces, frames=100) is expected
    else:
        cast = cast_of(faces, frames=100)
        places = [float(np.nanmedian(faces.tracks[i].box[:, 0])) // 360 for i in tracks_in(cast)]
        assert places == expected


@pytest.mark.nightly("real films, which are not part of a clone")
@pytest.mark.parametrize(
    "names", some([["pair_user", "pair_avatar"], ["interview"], ["two_in_frame"], ["both_talk"]], of=2)
)
def test_both_people_of_real_clips_are_seen_all_the_time(names: list[str], shared_media: Path) -> None:
    clips = [shared_media / "conversation" / f"{name}.mp4" for name in names]
    [cast] = CastStage().process(CastInput(conversation=real_conversation(*clips), faces=real_faces(*clips)))
    for member in cast.members:
        assert member.figures.visible >= 0.98
        assert len(member.segments) == 1  # never lost, so never taken for the other
    assert cast.crowd == 0
    facts = CastFacts.model_validate_json(CastStage().facts([cast]))
    assert list(faults(facts, ("one", "other"), QualityConfig())) == []


@pytest.mark.nightly("a real film, which is not part of a clone")
def test_small_faces_in_a_picture_held_upright_are_found(shared_media: Path, tmp_path: Path) -> None:
    from visavis.pipeline.demo.dialogue import write_video
    from visavis.stages.media.video import frames_on_grid

    path = str(shared_media / "conversation" / "interview.mp4")
    small = (cv2.resize(rgb, (480, 270)) for _, rgb in frames_on_grid(path, 0, 50))
    upright = (np.pad(rgb, ((500, 510), (120, 120), (0, 0))) for rgb in small)  # faces of 70 pixels in 720 × 1280
    write_video(tmp_path / "phone.mp4", upright, np.zeros(32_000, np.float32))
    piece = Piece(conversation="c", media=0, uri=str(tmp_path / "phone.mp4"), first=0, last=50)
    [faces] = loaded_stage().process(piece)
    assert [track.valid.sum() for track in faces.tracks] == [50, 50]
    assert FacesConfig().max_faces >= 4

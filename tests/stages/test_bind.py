"""Whose voice is whose: tracks become people, and moving lips decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.stages.test_faces import real_conversation, real_faces
from tests.stages.tracks import track_of
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.config import BindConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import FaceTracks, Piece, Track
from visavis.schemas.rows import Binding, Conversation, Diarization, Layout, Media, Turn
from visavis.stages.bind import BindInput, BindStage, chance_margin, seen_by_piece
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.face.lips import lip_motion, voice_contrast
from visavis.stages.face.people import scenes_of
from visavis.stages.media.audio import speech_state

MEDIA = Media(
    uri="clip.mp4", sha256="", bytes=0, width=1280, height=720, fps=25, video_start=0, video_duration=60,
    audio_start=0, audio_duration=60, audio_rate=16000, audio_channels=1,
)  # fmt: skip
FRAMES = 500
SOUND: dict[str, str] = {}
ALTERNATING = tuple(Turn(speaker=i % 2, start=2.0 * i, end=2.0 * i + 1.8) for i in range(10))


@pytest.fixture(scope="module", autouse=True)
def sound(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is heard with the made-up faces: noise in the turns."""
    path = tmp_path_factory.mktemp("bind") / "sound.wav"
    heard_N = np.repeat(speech_state(ALTERNATING, FRAMES) > 0, SAMPLE_RATE // FPS)
    noise_N = np.random.default_rng(0).normal(0, 0.1, len(heard_N))
    soundfile.write(path, np.where(heard_N, noise_N, 0.0), SAMPLE_RATE)
    SOUND["uri"] = str(path)


def skull(person: int) -> np.ndarray:
    """A face of height 1: [478, 3]. People differ in depth and width."""
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (478, 3))
    points += np.random.default_rng(person + 1).normal(0, 0.05, points.shape)
    points[[10, 152]] = (0, -0.5, 0), (0, 0.5, 0)
    points[[13, 14]] = (0, 0.2, 0.1), (0, 0.2, 0.1)
    return points


def track(
    person: int, x: float, *, first: int = 0, last: int = FRAMES, voice: int | None = None, size: float = 150.0
) -> Track:
    """A face that nods, and speaks in the turns of `voice` (ALTERNATING)."""
    rng = np.random.default_rng([person, first])
    frames = np.arange(first, last)
    points = np.repeat(skull(person)[None], len(frames), axis=0) + rng.normal(0, 0.002, (len(frames), 478, 3))
    if voice is not None:
        contrast = voice_contrast(ALTERNATING, FRAMES)[first:last]
        speaks = contrast == (1 if voice == 0 else -1)
        points[:, 14, 1] += speaks * (0.05 + 0.05 * np.sin(frames * 1.6))
    blinks = (frames + 23 * person) % 60 < 4
    points[blinks, 159] = points[blinks, 145]
    place = np.stack([x + 10 * np.sin(frames / 30), 300 + 8 * np.sin(frames / 17), 0 * frames], axis=1)
    landmarks = (points * size + place[:, None]).astype(np.float32)
    return track_of(landmarks, first=first, looks=person)


def row(*tracks: Track, first: int = 0, last: int = FRAMES, media: int = 0, cuts: tuple[int, ...] = ()) -> FaceTracks:
    piece = Piece(conversation="c", media=media, uri="clip.mp4", first=first, last=last)
    return FaceTracks(piece=piece, width=1280, height=720, cuts=cuts, tracks=tracks)


def bind(
    faces: tuple[FaceTracks, ...],
    turns: tuple[Turn, ...] = ALTERNATING,
    *,
    speakers: int = 2,
    layout: Layout = Layout.ONE_FRAME,
    conversation: Conversation | None = None,
) -> Binding:
    media = (MEDIA.model_copy(update=SOUND),) if layout is Layout.ONE_FRAME else (MEDIA, MEDIA)
    conversation = conversation or Conversation(
        id="c", layout=layout, media=media, participants=("first", "second"), frames=FRAMES
    )
    diarization = Diarization(conversation=conversation.id, method="embedded", speakers=speakers, turns=turns)
    [cast] = CastStage().process(CastInput(conversation=conversation, faces=faces))
    [binding] = BindStage(BindConfig(max_offset=0)).process(
        BindInput(conversation=conversation, diarization=diarization, cast=cast)
    )
    return binding


def reason_of(
    *faces: FaceTracks,
    turns: tuple[Turn, ...] = ALTERNATING,
    layout: Layout = Layout.ONE_FRAME,
    speakers: int = 2,
) -> Reason:
    with pytest.raises(Rejected) as error:
        bind(faces, turns, layout=layout, speakers=speakers)
    return error.value.reason


@pytest.mark.parametrize("left_voice", [0, 1])
def test_the_voice_goes_to_the_lips_that_move(left_voice: int) -> None:
    binding = bind((row(track(1, 900, voice=1 - left_voice), track(0, 300, voice=left_voice)),))
    left, right = binding.participants
    assert (left.name, right.name) == ("first", "second")
    assert (left.speaker, right.speaker) == (left_voice, 1 - left_voice)
    assert [s.track for p in binding.participants for s in p.segments] == [1, 0]  # from left to right
    assert min(left.score, right.score) > 0.5
    assert left.margin == pytest.approx(2 * left.score)
    assert left.visible == right.visible == 1.0


def test_a_smile_is_not_speech() -> None:
    smiling = track(0, 300)
    points = smiling.landmarks.copy()
    points[100:400, 14, 1] += 20  # the mouth opens, and stays open while others speak
    left = smiling.model_copy(update={"landmarks": points})
    assert reason_of(row(left, track(1, 900, voice=0))) is Reason.SILENT_FACE


def test_lips_that_tell_nothing_bind_nothing() -> None:
    still = row(track(0, 300), track(1, 900))
    assert reason_of(still) in {Reason.UNSEEN_VOICE, Reason.UNBOUND_VOICE, Reason.SILENT_FACE}
    moving = row(track(0, 300, voice=0), track(1, 900, voice=1))
    assert reason_of(moving, turns=()) is Reason.UNBOUND_VOICE
    both_always = (Turn(speaker=0, start=0, end=20), Turn(speaker=1, start=0, end=20))
    assert reason_of(moving, turns=both_always) is Reason.UNBOUND_VOICE


def test_files_with_each_others_voices_are_found() -> None:
    exchanged = (row(track(0, 600, voice=1)), row(track(1, 600, voice=0), media=1))
    assert reason_of(*exchanged, layout=Layout.PER_PARTICIPANT) is Reason.SWAPPED_VOICES


def test_a_voice_without_a_face_is_found() -> None:
    """Somebody out of the picture has a third of the turns, in the voice taken for the right one's."""
    elsewhere = (*ALTERNATING[:6], *(turn.model_copy(update={"speaker": 1}) for turn in ALTERNATING[6:]))
    left, right = track(0, 300, voice=0), track(1, 900, voice=1)
    silent = np.arange(FRAMES) >= 300
    for face in (left, right):
        face.landmarks[silent, 14, 1] = face.landmarks[silent, 13, 1]
    assert reason_of(row(left, right), turns=elsewhere) is Reason.UNSEEN_VOICE


def test_a_face_that_never_speaks_is_found() -> None:
    """A monologue that the diarizer cut into two voices."""
    left = track(0, 300, voice=0)
    left.landmarks[:, 14, 1] = np.maximum(left.landmarks[:, 14, 1], track(0, 300, voice=1).landmarks[:, 14, 1])
    assert reason_of(row(left, track(1, 900))) is Reason.SILENT_FACE


def test_two_people_whom_the_ear_took_for_one_are_bound_by_their_lips() -> None:
    """All in one voice, or cut in two at random: what the lips say stands."""
    faces = (row(track(0, 300, voice=0), track(1, 900, voice=1)),)
    for label in (lambda i: 0, lambda i: i // 3 % 2):
        turns = tuple(turn.model_copy(update={"speaker": label(i)}) for i, turn in enumerate(ALTERNATING))
        state_T = speech_state(bind(faces, turns, speakers=1).turns, FRAMES)
        assert (state_T == speech_state(ALTERNATING, FRAMES)).mean() > 0.95


def test_a_third_voice_counts_where_nobodys_lips_move() -> None:
    three = tuple(turn.model_copy(update={"speaker": i % 3}) for i, turn in enumerate(ALTERNATING))
    left, right = track(0, 300, voice=0), track(1, 900, voice=1)
    assert len(bind((row(left, right),), three, speakers=3).turns) == 10
    for turn in three:
        if turn.speaker == 2:
            for face in (left, right):
                spoken = slice(round(turn.start * FPS), round(turn.end * FPS))
                face.landmarks[spoken, 14, 1] = face.landmarks[spoken, 13, 1]
    assert reason_of(row(left, right), turns=three, speakers=3) is Reason.TOO_MANY_SPEAKERS


@pytest.mark.parametrize("seed", range(5))
def test_half_of_the_turns_in_the_wrong_voice_are_restored(seed: int) -> None:
    faces = (row(track(0, 300, voice=0), track(1, 900, voice=1)),)
    wrong = np.random.default_rng(seed).permutation(10)[:5]
    confused = tuple(
        turn.model_copy(update={"speaker": 1 - turn.speaker}) if i in wrong else turn
        for i, turn in enumerate(ALTERNATING)
    )
    binding = bind(faces, confused)
    true_T, found_T = (speech_state(turns, FRAMES) for turns in (ALTERNATING, binding.turns))
    assert (true_T == found_T).mean() > 0.95 or (true_T[true_T > 0] == 3 - found_T[true_T > 0]).mean() > 0.95


def test_few_turns_need_a_clearer_answer() -> None:
    once = voice_contrast((Turn(speaker=0, start=0, end=5), Turn(speaker=1, start=5, end=10)), 250)
    often = voice_contrast(ALTERNATING, FRAMES)
    assert chance_margin(once) > 2 * chance_margin(often) > 0


def test_people_are_missing() -> None:
    one = row(track(0, 300, voice=0))
    assert reason_of(row()) is Reason.NO_FACE
    assert reason_of(one) is Reason.ONE_FACE
    empty = row(media=1)
    assert reason_of(one, empty, layout=Layout.PER_PARTICIPANT) is Reason.NO_FACE


def test_each_file_has_its_own_person() -> None:
    passer_by = track(7, 200, last=60, size=60)
    faces = (row(passer_by, track(0, 600, voice=0)), row(track(1, 600, voice=1), media=1))
    binding = bind(faces, layout=Layout.PER_PARTICIPANT)
    assert [(p.media, p.speaker, p.margin) for p in binding.participants] == [(0, 0, 0.0), (1, 1, 0.0)]
    assert [[(s.piece, s.track) for s in p.segments] for p in binding.participants] == [[(0, 1)], [(1, 0)]]
    assert min(p.score for p in binding.participants) > 0.5


def test_a_third_face_in_the_background_is_left_out() -> None:
    faces = row(track(0, 300, voice=0), track(2, 600, size=50), track(1, 900, voice=1))
    assert [p.segments[0].track for p in bind((faces,)).participants] == [0, 2]


def test_a_person_is_joined_over_pieces_gaps_and_cuts() -> None:
    pieces = (
        row(track(0, 300, last=200, voice=0), track(1, 900, last=200, voice=1), last=200),
        # the other order, a short loss on the left, and a cut to the same picture at 300
        row(
            track(1, 900, first=200, last=300, voice=1),
            track(0, 300, first=200, last=230, voice=0),
            track(0, 300, first=245, last=300, voice=0),
            track(1, 920, first=300, voice=1),
            track(0, 330, first=300, voice=0),
            first=200,
            cuts=(300,),
        ),
    )
    binding = bind(pieces[::-1])  # rows come in any order
    left, right = binding.participants
    assert [(s.piece, s.track) for s in left.segments] == [(0, 0), (1, 1), (1, 2), (1, 4)]
    assert [(s.piece, s.track) for s in right.segments] == [(0, 1), (1, 0), (1, 3)]
    assert left.visible == pytest.approx(485 / 500)
    assert right.visible == 1.0

    seen = list(seen_by_piece(binding, pieces, 0))
    where = np.concatenate([part.where_V for part in seen])
    np.testing.assert_array_equal(where, np.delete(np.arange(FRAMES), np.arange(230, 245)))
    landmarks = np.concatenate([part.landmarks() for part in seen])
    assert landmarks.shape == (len(where), 478, 3)
    assert landmarks.dtype == np.float32
    assert np.isfinite(landmarks).all()
    np.testing.assert_array_equal(landmarks[where >= 300], pieces[1].tracks[4].landmarks)


def test_faces_seen_together_are_never_one_person() -> None:
    twins = row(track(0, 300), track(0, 340))
    assert len(scenes_of((twins,), 1, FRAMES)[0].people) == 2


def test_a_far_place_after_a_cut_is_somebody_else() -> None:
    faces = row(track(0, 300, last=250), track(1, 1000, first=250), cuts=(250,))
    assert [p.visible for p in scenes_of((faces,), 1, FRAMES)[0].people] == [0.5, 0.5]


def test_lip_motion_is_unknown_where_the_face_is() -> None:
    opening = np.where(np.arange(100) // 2 % 2, 0.1, 0.0)
    opening[:50] = 0.05
    opening[70:90] = np.nan
    motion = lip_motion(opening)
    assert motion[:40].max() < motion[55:65].min() - 2
    assert np.isnan(motion[75:85]).all()
    assert np.isfinite(motion[:66]).all()


@pytest.mark.slow
@pytest.mark.parametrize("right_voice", [0, 1])
def test_two_in_frame_binds_by_its_exact_labels(shared_media: Path, right_voice: int) -> None:
    clip = shared_media / "conversation" / "two_in_frame.mp4"
    turns = (Turn(speaker=right_voice, start=0, end=4.533), Turn(speaker=1 - right_voice, start=4.533, end=8.6))
    binding = bind(real_faces(clip), turns, conversation=real_conversation(clip))
    left, right = binding.participants
    assert (left.speaker, right.speaker) == (1 - right_voice, right_voice)
    assert min(left.margin, right.margin) > 1.0


@pytest.mark.nightly("a second real film; one is above")
def test_interview_binds_host_and_guest(shared_media: Path) -> None:
    clip = shared_media / "conversation" / "interview.mp4"
    # By diarizer of a diarizer: the guest (0) talks on, the host falls in at the start and the end.
    turns = (
        Turn(speaker=0, start=0.1, end=16.6),
        Turn(speaker=1, start=0.1, end=8.0),
        Turn(speaker=1, start=15.6, end=17.2),
    )
    binding = bind(real_faces(clip), turns, conversation=real_conversation(clip))
    assert [p.speaker for p in binding.participants] == [1, 0]  # the host sits on the left
    assert min(p.visible for p in binding.participants) >= 0.98
    assert min(p.score for p in binding.participants) > 0.1
    [seen] = seen_by_piece(binding, real_faces(clip), 1)
    assert len(seen.where_V) >= 0.98 * 438
    assert seen.landmarks()[..., 0].min() > 700


@pytest.mark.nightly("real films of a camera each; one film of both is above")
def test_a_real_pair_is_bound_by_file(shared_media: Path) -> None:
    clips = [shared_media / "conversation" / name for name in ("pair_user.mp4", "pair_avatar.mp4")]
    binding = bind(real_faces(*clips), (), conversation=real_conversation(*clips))
    assert [(p.media, p.speaker) for p in binding.participants] == [(0, 0), (1, 1)]
    assert min(p.visible for p in binding.participants) >= 0.98

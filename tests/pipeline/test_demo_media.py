"""The demo's dialogues: the truth is true, and what is rendered can be seen and heard."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.pipeline.demo.dialogue import (
    Clip,
    DialogueTruth,
    demo_corpus,
    make_clip,
    make_dialogue,
    read_truth,
    write_video,
)
from visavis.pipeline.demo.head import canonical_face, rotation
from visavis.pipeline.demo.people import make_person, person_name
from visavis.pipeline.demo.render import Pose, Renderer
from visavis.pipeline.demo.script import PAUSE, TURN, Rule, Script, gesture, listener_response, write_script
from visavis.pipeline.demo.voices import VOICES, speech_span, synthesise
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Layout

pytest.importorskip("espeakng_loader", reason="synthetic voices need the demo extra")

SEED, SECONDS = 0, 9.0
RIGID = (
    *(4, 6, 10, 33, 54, 67, 117, 119, 121, 127, 129, 132, 133, 136, 143, 147, 198, 205, 263, 284, 297, 346, 348, 350),
    *(356, 358, 361, 362, 365, 372, 376, 420, 425),
)  # landmarks that expressions hardly move


@pytest.fixture(scope="module")
def script() -> Script:
    return write_script(5, 45.0)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[Layout, tuple[Path, DialogueTruth]]:
    folder = tmp_path_factory.mktemp("dialogue")
    return {layout: (folder, make_dialogue(folder, layout.value, SEED, SECONDS, layout)) for layout in Layout}


def decode_pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def decode_audio(path: Path, samples: int) -> np.ndarray:
    """16 kHz mono, each block placed where its time stamp says."""
    out = np.zeros(samples + SAMPLE_RATE, np.float32)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            for block in resampler.resample(frame):
                assert block.pts is not None
                at = round(float(block.pts * block.time_base) * SAMPLE_RATE)
                out[at : at + block.samples] = block.to_ndarray()[0]
    return out[:samples]


def recovered_pitch(landmarks_L3: np.ndarray) -> float:
    """Head pitch from landmarks in pixels: the rotation that best turns the canonical face onto them (Kabsch)."""
    canonical = canonical_face()["vertices"][list(RIGID)].astype(np.float64)
    seen = landmarks_L3[list(RIGID)] * [1, -1, -1]
    u, _, vt = np.linalg.svd((canonical - canonical.mean(0)).T @ (seen - seen.mean(0)))
    turn = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
    return float(np.arcsin(-turn[1, 2]))


def test_turns_alternate_with_pauses_and_never_overlap(script: Script) -> None:
    turns = script.turns
    assert [t.speaker for t in turns] == [(turns[0].speaker + i) % 2 for i in range(len(turns))]
    assert all(TURN[0] - 0.05 <= t.end - t.start <= TURN[1] + 0.05 for t in turns)
    pauses = np.array([b.start - a.end for a, b in pairwise(turns)])
    assert np.all((pauses > PAUSE[0] - 0.01) & (pauses < PAUSE[1] + 0.01))
    assert turns[-1].end < script.frames / FPS


def test_turns_are_where_the_sound_is(script: Script) -> None:
    for turn in script.turns:
        first, last = round((turn.start - 0.15) * SAMPLE_RATE), round((turn.end + 0.15) * SAMPLE_RATE)
        start, end = speech_span(script.audio[turn.speaker][first:last])
        assert start / SAMPLE_RATE == pytest.approx(0.15, abs=0.025)
        assert end / SAMPLE_RATE == pytest.approx(turn.end - turn.start + 0.15, abs=0.025)
        other = script.audio[1 - turn.speaker][first + 2400 : last - 2400]
        assert np.abs(other).max() < 0.01


def test_listener_nods_and_smiles_by_the_rule(script: Script) -> None:
    rule = script.rule
    for listener in (0, 1):
        speaker = 1 - listener
        own, user = script.motion[listener], script.motion[speaker]
        for cue in script.cues[speaker]:
            nod = slice(cue + rule.delay, cue + rule.delay + rule.gesture)
            dip = own.pitch[nod] - np.linspace(own.pitch[nod][0], own.pitch[nod][-1], rule.gesture)
            assert 0.6 * rule.nod < dip.max() < 1.4 * rule.nod, "a nod of the rule's depth follows each cue"
        for turn in (t for t in script.turns if t.speaker == speaker):
            listening = np.arange(round(turn.start * FPS) + rule.delay, round(turn.end * FPS))
            expected = rule.gain * user.smile[listening - rule.delay]
            np.testing.assert_allclose(own.smile[listening], expected, atol=1e-9)
    assert max(m.smile.max() for m in script.motion) > 0.5


def test_listening_pitch_lags_the_speaker_by_the_delay(script: Script) -> None:
    """What a metric sees: over listening frames the correlation with the user's pitch peaks at the delay."""
    lags = np.arange(0, 30)
    for turn in (t for t in script.turns if t.end - t.start > 3.5):
        frames = np.arange(round(turn.start * FPS), round(turn.end * FPS))
        own, user = script.motion[1 - turn.speaker].pitch, script.motion[turn.speaker].pitch
        scores = [np.corrcoef(own[frames + lag], user[frames])[0, 1] for lag in lags if frames[-1] + lag < len(own)]
        assert abs(int(np.argmax(scores)) - script.rule.delay) <= 2


@given(cues=st.lists(st.integers(0, 180), max_size=6, unique=True), delay=st.integers(0, 30))
@settings(max_examples=50, deadline=None)
def test_the_rule_only_looks_back(cues: list[int], delay: int) -> None:
    rule, smile = Rule(delay=delay), np.random.default_rng(1).random(200)
    pitch, mirrored = listener_response(cues, smile, rule)
    later = smile.copy()
    later[100:] = 0
    pitch_later, mirrored_later = listener_response([c for c in cues if c < 100], later, rule)
    np.testing.assert_array_equal(pitch[: 100 + delay], pitch_later[: 100 + delay])
    np.testing.assert_array_equal(mirrored[: 100 + delay], mirrored_later[: 100 + delay])
    assert np.abs(gesture(1.0, cues, 200, 12)).sum() > 0 or not cues


def test_mouth_moves_with_the_own_voice_only(script: Script) -> None:
    speaks = np.zeros((2, script.frames), bool)
    for turn in script.turns:
        speaks[turn.speaker, round(turn.start * FPS) - 2 : round(turn.end * FPS) + 2] = True
    for i in (0, 1):
        assert script.motion[i].mouth[~speaks[i]].max() < 0.05
        assert script.motion[i].mouth[speaks[i]].mean() > 0.3


@pytest.mark.slow
def test_both_layouts_hold_the_same_dialogue(rendered: dict[Layout, tuple[Path, DialogueTruth]]) -> None:
    (folder, one), (_, two) = rendered[Layout.ONE_FRAME], rendered[Layout.PER_PARTICIPANT]
    assert one.turns == two.turns
    assert len(one.files) == 1
    assert len(two.files) == 2
    assert [p.side for p in one.participants] == ["left", "right"]
    for a, b in zip(one.participants, two.participants, strict=True):
        varies = {"file", "side", "base_yaw"}
        assert a.model_dump(exclude=varies) == b.model_dump(exclude=varies)
        assert len(a.pitch) == len(a.smile) == one.frames
    assert read_truth(folder / "one_frame.truth.json") == one


@pytest.mark.slow
def test_sound_and_picture_start_together(rendered: dict[Layout, tuple[Path, DialogueTruth]]) -> None:
    voices = write_script(SEED, SECONDS).audio
    folder, truth = rendered[Layout.PER_PARTICIPANT]
    for file, voice in zip(truth.files, voices, strict=True):
        heard = decode_audio(folder / file, len(voice))
        span = slice(SAMPLE_RATE, len(voice) - SAMPLE_RATE)
        lags = range(-400, 401)
        scores = [float(np.dot(voice[span], heard[span.start + lag : span.stop + lag])) for lag in lags]
        assert abs(lags[int(np.argmax(scores))]) <= 16, "within 1 ms"
        with av.open(str(folder / file)) as container:
            video = container.streams.video[0]
            assert video.start_time == 0
            assert video.frames == truth.frames
    folder, truth = rendered[Layout.ONE_FRAME]
    mixed = decode_audio(folder / truth.files[0], len(voices[0]))
    assert np.corrcoef(mixed, voices[0] + voices[1])[0, 1] > 0.95


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes(tmp_path: Path, rendered: dict[Layout, tuple[Path, DialogueTruth]]) -> None:
    folder, truth = rendered[Layout.ONE_FRAME]
    make_dialogue(tmp_path, truth.name, SEED, SECONDS, truth.layout)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == sorted([*truth.files, f"{truth.name}.truth.json"])
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_tracker_finds_the_faces_and_their_motion(rendered: dict[Layout, tuple[Path, DialogueTruth]]) -> None:
    face_mesh = pytest.importorskip("mediapipe").solutions.face_mesh
    folder, truth = rendered[Layout.ONE_FRAME]
    pictures = decode_pictures(folder / truth.files[0])
    pitch, gap = np.full((2, len(pictures)), np.nan), np.full((2, len(pictures)), np.nan)
    with face_mesh.FaceMesh(max_num_faces=4, refine_landmarks=True) as mesh:
        for n, picture in enumerate(pictures):
            height, width = picture.shape[:2]
            for face in mesh.process(picture).multi_face_landmarks or ():
                points = np.array([(p.x * width, p.y * height, p.z * width) for p in face.landmark])
                side = int(points[:, 0].mean() > width / 2)
                pitch[side, n], gap[side, n] = recovered_pitch(points), np.linalg.norm(points[13] - points[14])
    for side, participant in enumerate(truth.participants):
        found = np.isfinite(pitch[side])
        assert found.mean() >= 0.99
        assert np.corrcoef(pitch[side, found], np.array(participant.pitch)[found])[0, 1] > 0.9
    speaker = truth.turns[0].speaker
    mouth = np.array(truth.participants[speaker].mouth)
    found = np.isfinite(gap[speaker])
    assert np.corrcoef(gap[speaker, found], mouth[found])[0, 1] > 0.9


@pytest.mark.slow
def test_people_of_a_dialogue_look_different(rendered: dict[Layout, tuple[Path, DialogueTruth]]) -> None:
    folder, truth = rendered[Layout.PER_PARTICIPANT]
    a, b = (decode_pictures(folder / file)[0].astype(float) for file in truth.files)
    assert np.abs(a - b)[100:220, 90:230].mean() > 10
    assert len({person_name(i) for i in range(60)}) == 60


def test_renderer_moves_what_it_is_told_to() -> None:
    renderer = Renderer(make_person(0, long_hair=True), 320, 320, 9.2)
    rest = Pose(0, 0, 0, 0, 0, 0, 0, 0, 0)
    neutral = renderer.frame(rest).astype(int)
    np.testing.assert_array_equal(neutral, renderer.frame(rest))
    for name, value, rows in (("mouth", 1.0, slice(170, 260)), ("blink", 1.0, slice(105, 145))):
        change = np.abs(renderer.frame(Pose(**{**rest.__dict__, name: value})).astype(int) - neutral).sum(axis=(1, 2))
        assert change[rows].sum() > 0.8 * change.sum() > 0


def test_positive_pitch_looks_down() -> None:
    nose = canonical_face()["vertices"][4].astype(float)
    assert (rotation(0.2, 0, 0) @ nose)[1] < nose[1]
    assert (rotation(0, 0.2, 0) @ nose)[0] > 0


def test_default_corpus_is_large_enough_and_varied() -> None:
    talks = [clip for clip in demo_corpus() if clip.kind == "dialogue"]
    windows = sum(int(clip.seconds // 2) * 2 for clip in talks)
    assert windows >= 150
    assert {clip.layout for clip in talks} == set(Layout)
    assert len({clip.seed for clip in demo_corpus()}) == len(demo_corpus())
    assert {VOICES[clip.seed % len(VOICES)] for clip in talks} == set(VOICES)


def test_a_clip_says_how_to_list_it(tmp_path: Path) -> None:
    source = make_clip(tmp_path, Clip(name="mute", seed=6, seconds=1.0, layout=Layout.ONE_FRAME, kind="silent"))
    assert source.uris == (str(tmp_path / "mute.mp4"),)
    assert len(decode_pictures(tmp_path / "mute.mp4")) == 25
    assert np.abs(decode_audio(tmp_path / "mute.mp4", SAMPLE_RATE)).max() < 0.01


def test_wrong_use_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="too short"):
        write_script(0, 4.0)
    with pytest.raises(ValueError, match="at least one picture"):
        write_video(tmp_path / "none.mp4", iter(()), np.zeros(0, np.float32))
    with pytest.raises(UsageError, match="cannot read truth"):
        read_truth(tmp_path / "absent.truth.json")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"visavis\[demo\]"):
        synthesise(VOICES[0], ["Hello."])

"""Who speaks when: rules on made-up turns, the networks on real voices.

Bounds are what was measured (`python -m benchmarks.diarization`) with about a third of slack.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.diarization import errors, labelled_audio, rates
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import DiarizeConfig
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.rows import Conversation, Diarization, Layout, Media, Turn
from visavis.stages.diarize import DiarizeStage, PyannoteDiarizer, check_both_speak, is_leak, renumbered, tidy
from visavis.stages.media.audio import read_audio
from visavis.stages.models.networks import quiet_pyannote
from visavis.stages.models.wheels import wheel_file
from visavis.stages.voice.activity import VAD_STEP, heard_spans
from visavis.stages.voice.diarizer import STEP, Cues, EmbeddedDiarizer, divide, window_frames
from visavis.stages.voice.local_voices import CHUNK_FRAMES, HOP, chunked, spread
from visavis.stages.voice.viterbi import viterbi


@pytest.fixture(scope="module")
def stage() -> DiarizeStage:
    """The default stage, loaded once: most of its setup is importing."""
    made = DiarizeStage(DiarizeConfig())
    made.setup()
    return made


@pytest.fixture(scope="module")
def diarizer(stage: DiarizeStage) -> EmbeddedDiarizer:
    assert isinstance(stage._diarizer, EmbeddedDiarizer)
    return stage._diarizer


def conversation(*paths: Path, frames: int) -> Conversation:
    media = tuple(
        Media(
            uri=str(path),
            sha256="",
            bytes=0,
            width=0,
            height=0,
            fps=25,
            video_start=0,
            video_duration=frames / FPS,
            audio_start=0,
            audio_duration=frames / FPS,
            audio_rate=SAMPLE_RATE,
            audio_channels=1,
        )
        for path in paths
    )
    layout = Layout.ONE_FRAME if len(paths) == 1 else Layout.PER_PARTICIPANT
    return Conversation(id="c", layout=layout, media=media, participants=("a", "b"), frames=frames)


def diarized(stage: DiarizeStage, *paths: Path, frames: int | None = None) -> Diarization:
    frames = frames or int(min(len(read_audio(str(path))) for path in paths) / SAMPLE_RATE * FPS)
    (row,) = stage.process(conversation(*paths, frames=frames))
    return row


def wav(path: Path, audio_N: np.ndarray) -> Path:
    import soundfile

    soundfile.write(path, audio_N, SAMPLE_RATE, subtype="PCM_16")
    return path


def score(row: Diarization, media: Path, name: str) -> dict[str, float]:
    (path, labels), *_ = ((p, labels) for p, labels in labelled_audio(media).items() if p.stem == name)
    return rates([errors(labels, row.turns, len(read_audio(str(path))) / SAMPLE_RATE)])


def turn(speaker: int, start: float, end: float) -> Turn:
    return Turn(speaker=speaker, start=start, end=end)


# --- the networks on real voices


@pytest.mark.slow
def test_two_voices_in_one_room(stage: DiarizeStage, shared_media: Path) -> None:
    row = diarized(stage, shared_media / "diarization" / "pyannote_sample.wav")
    found = score(row, shared_media, "pyannote_sample")
    assert row.method == "embedded"
    assert found["der"] < 0.09
    assert found["confusion"] < 0.035  # of which a single turn of 0.8 s is nearly all


@pytest.mark.nightly("real films, which are not part of a clone")
@pytest.mark.parametrize(("name", "der"), [("anytalker_interact_15_mix", 0.02), ("anytalker_interact_9_mix", 0.04)])
def test_a_short_exchange(stage: DiarizeStage, shared_media: Path, name: str, der: float) -> None:
    row = diarized(stage, shared_media / "diarization" / f"{name}.wav")
    found = score(row, shared_media, name)
    assert {t.speaker for t in row.turns} == {0, 1}
    assert row.turns[0].speaker == 0  # numbered by appearance
    assert found["der"] < der
    assert found["confusion"] < 0.02


def test_a_change_of_speaker_is_found_where_it_was(stage: DiarizeStage, shared_media: Path) -> None:
    row = diarized(stage, shared_media / "conversation" / "two_in_frame.mp4")
    (first, second) = row.turns
    assert first.end == pytest.approx(4.53, abs=0.2)
    assert second.start == pytest.approx(4.53, abs=0.2)


def test_the_same_sound_gives_the_same_turns(stage: DiarizeStage, shared_media: Path) -> None:
    path = shared_media / "diarization" / "anytalker_interact_1_mix.wav"
    assert dump_rows([diarized(stage, path)]) == dump_rows([diarized(stage, path)])


def test_a_track_each(stage: DiarizeStage, shared_media: Path) -> None:
    clips = [shared_media / "conversation" / f"pair_{who}.mp4" for who in ("user", "avatar")]
    row = diarized(stage, *clips)
    assert row.method == "channels"
    user, avatar = (sum(t.end - t.start for t in row.turns if t.speaker == s) for s in (0, 1))
    assert user > 10
    assert 0 < avatar < 3  # who mostly listens is still half of the dyad


def test_both_layouts_agree(stage: DiarizeStage, shared_media: Path, tmp_path: Path) -> None:
    mix = read_audio(str(shared_media / "diarization" / "anytalker_interact_9_mix.wav"))
    change = round(4.8 * SAMPLE_RATE)
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    silence = np.zeros_like
    one, other = mix[:change], mix[change:]
    tracks = [np.concatenate(parts) for parts in ([one, pause, silence(other)], [silence(one), pause, other])]
    apart = diarized(stage, *(wav(tmp_path / f"{i}.wav", track) for i, track in enumerate(tracks)))
    together = diarized(stage, wav(tmp_path / "mix.wav", tracks[0] + tracks[1]))
    assert [t.speaker for t in apart.turns] == [t.speaker for t in together.turns]
    for a, b in zip(apart.turns, together.turns, strict=True):
        assert (a.start, a.end) == pytest.approx((b.start, b.end), abs=0.1)


def test_leaked_speech_is_not_a_turn(stage: DiarizeStage, shared_media: Path, tmp_path: Path) -> None:
    mix = read_audio(str(shared_media / "diarization" / "anytalker_interact_9_mix.wav"))
    change = round(4.8 * SAMPLE_RATE)
    own = [np.where(np.arange(len(mix)) < change, mix, 0), np.where(np.arange(len(mix)) < change, 0, mix)]
    late = 80  # 5 ms through the air
    leaky = [own[i] + 0.1 * np.roll(own[1 - i], late) for i in (0, 1)]
    clean = diarized(stage, *(wav(tmp_path / f"clean{i}.wav", x) for i, x in enumerate(own)))
    leaked = diarized(stage, *(wav(tmp_path / f"leaky{i}.wav", x) for i, x in enumerate(leaky)))
    assert [t.speaker for t in leaked.turns] == [t.speaker for t in clean.turns]


def test_silence_has_no_speech(stage: DiarizeStage, tmp_path: Path) -> None:
    with pytest.raises(Rejected) as rejection:
        diarized(stage, wav(tmp_path / "silence.wav", np.zeros(5 * SAMPLE_RATE, np.float32)))
    assert rejection.value.reason is Reason.NO_SPEECH


def test_a_monologue_is_believed_to_be_one_voice(diarizer: EmbeddedDiarizer, shared_media: Path) -> None:
    mix = read_audio(str(shared_media / "diarization" / "anytalker_interact_9_mix.wav"))
    heard = diarizer.listen(mix[: round(4.7 * SAMPLE_RATE)])
    assert heard.believed == 1
    assert {t.speaker for t in heard.turns} == {0, 1}  # split all the same: the lips decide


def test_what_voices_sound_like_is_kept_for_the_lips(diarizer: EmbeddedDiarizer, shared_media: Path) -> None:
    mix = read_audio(str(shared_media / "diarization" / "anytalker_interact_9_mix.wav"))
    voices_WE = diarizer.listen(mix).voices
    assert voices_WE.dtype == np.float16
    assert len(voices_WE) == len(mix) // 1600 + 1  # one each 0.1 s
    first, second = voices_WE[5:40], voices_WE[52:75]
    between = np.linalg.norm(np.nanmean(first, axis=0) - np.nanmean(second, axis=0))
    assert between > 0.8 * np.linalg.norm(np.nanstd(second, axis=0))
    silence = diarizer.listen(np.zeros(3 * SAMPLE_RATE, np.float32))
    assert np.isnan(silence.voices).all()
    assert (silence.believed, silence.turns) == (0, [])


@pytest.mark.nightly("real films, which are not part of a clone")
def test_a_third_voice_is_unlike_both_others(diarizer: EmbeddedDiarizer, shared_media: Path) -> None:
    """The segmentation sets parts of a voice apart, too; that alone makes nobody."""
    assert diarizer.listen(read_audio(str(shared_media / "diarization" / "dev01.wav"))).believed == 2


@pytest.mark.nightly("real films, which are not part of a clone")
@pytest.mark.parametrize("number", [12, 18, 22])
def test_voices_that_are_alike_are_held_apart(diarizer: EmbeddedDiarizer, shared_media: Path, number: int) -> None:
    [(path, labels)] = [
        (path, labels)
        for path, labels in labelled_audio(shared_media).items()
        if path.stem.endswith(f"interact_{number}_mix")
    ]
    audio = read_audio(str(path))
    seconds = len(audio) / SAMPLE_RATE
    found = rates([errors(labels, tidy(diarizer(audio), seconds, DiarizeConfig()), seconds)])
    assert found["confusion"] < 0.03


@pytest.mark.slow
def test_more_than_two_voices_are_told_and_not_judged(stage: DiarizeStage, shared_media: Path, tmp_path: Path) -> None:
    clips = [read_audio(str(shared_media / "diarization" / f"anytalker_interact_{n}_mix.wav")) for n in (1, 5, 3)]
    row = diarized(stage, wav(tmp_path / "four.wav", np.concatenate(clips)))
    assert row.speakers > 2
    assert stage.facts([row]) == f'{{"speakers":{row.speakers}}}'


def test_a_monologue_has_two_labels_and_one_voice(stage: DiarizeStage, shared_media: Path, tmp_path: Path) -> None:
    mix = read_audio(str(shared_media / "diarization" / "anytalker_interact_9_mix.wav"))
    row = diarized(stage, wav(tmp_path / "one.wav", mix[: round(4.7 * SAMPLE_RATE)]))
    assert row.speakers == 1
    assert row.voices is not None
    assert len(row.voices) == 47  # one each 0.1 s of the 117 whole frames


# --- a pyannote pipeline instead


@pytest.mark.slow
def test_any_pyannote_pipeline_folder_loads(shared_media: Path, tmp_path: Path) -> None:
    """A real pipeline over the embedded segmentation: voice activity, so everybody is one 'speaker'."""
    weights = wheel_file("whisperx", "assets/pytorch_model.bin", "")
    (tmp_path / "config.yaml").write_text(
        "pipeline:\n"
        "  name: pyannote.audio.pipelines.VoiceActivityDetection\n"
        f"  params: {{segmentation: '{weights}'}}\n"
        "params: {onset: 0.5, offset: 0.5, min_duration_on: 0.1, min_duration_off: 0.1}\n"
    )
    audio = read_audio(str(shared_media / "diarization" / "anytalker_interact_9_mix.wav"))
    turns = PyannoteDiarizer(str(tmp_path))(audio)
    assert {t.speaker for t in turns} == {0}
    assert sum(t.end - t.start for t in turns) == pytest.approx(7.7, abs=0.6)


def test_what_a_pipelines_checkpoint_holds_cannot_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"pyannote.audio": Trap()}, tmp_path / "weights.bin")
    (tmp_path / "config.yaml").write_text(
        "pipeline:\n"
        "  name: pyannote.audio.pipelines.VoiceActivityDetection\n"
        f"  params: {{segmentation: '{tmp_path / 'weights.bin'}'}}\n"
    )
    with pytest.raises(UsageError, match="cannot load diarization pipeline"):
        PyannoteDiarizer(str(tmp_path))
    assert not (tmp_path / "sprung").exists()


def test_a_pipeline_that_names_its_speakers(monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet_pyannote():
        from pyannote.audio import Pipeline
        from pyannote.core import Annotation, Segment

    class Output:
        speaker_diarization = Annotation()

    Output.speaker_diarization[Segment(1.0, 2.0), "a"] = "SPEAKER_01"
    Output.speaker_diarization[Segment(0.5, 1.5), "b"] = "SPEAKER_00"

    class Fake:
        def to(self, device: object) -> Fake:
            return self

        def __call__(self, file: dict[str, object]) -> Output:
            assert file["sample_rate"] == SAMPLE_RATE
            return Output()

    seen: dict[str, object] = {}

    def from_pretrained(name: str, token: str | None) -> Fake:
        seen.update(name=name, token=token)
        return Fake()

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(Pipeline, "from_pretrained", from_pretrained)
    assert PyannoteDiarizer("some/pipeline")(np.zeros(16, np.float32)) == [turn(0, 0.5, 1.5), turn(1, 1.0, 2.0)]
    assert seen == {"name": "some/pipeline", "token": "secret"}


def test_a_pipeline_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot load diarization pipeline"):
        PyannoteDiarizer(str(tmp_path))


def test_a_missing_wheel_is_wrong_use() -> None:
    with pytest.raises(UsageError, match=r"no_such_wheel/x\.bin is not installed; install it"):
        wheel_file("no_such_wheel", "x.bin", "install it")


# --- rules


@st.composite
def raw_turns(draw: st.DrawFn) -> list[Turn]:
    times = st.floats(-1, 11)
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), times, times), max_size=20))
    return [turn(s, min(a, b), max(a, b)) for s, a, b in pairs]


@given(turns=raw_turns())
def test_tidy_turns_are_cut_joined_and_long_enough(turns: list[Turn]) -> None:
    config = DiarizeConfig(min_turn=0.2, max_pause=0.3)
    tidied = tidy(turns, 10.0, config)
    assert list(tidied) == sorted(tidied, key=lambda t: (t.start, t.speaker))
    assert all(t.start >= 0 and t.end <= 10 and t.end - t.start >= 0.2 for t in tidied)
    for speaker in range(4):
        own = [t for t in tidied if t.speaker == speaker]
        assert all(after.start - before.end > 0.3 for before, after in pairwise(own))
    assert tidy(tidied, 10.0, config) == tidied


def test_voices_are_numbered_by_appearance() -> None:
    turns = [turn(7, 0, 5), turn(2, 5, 9), turn(7, 9, 9.2)]
    assert renumbered(turns) == (turn(0, 0, 5), turn(1, 5, 9), turn(0, 9, 9.2))


@pytest.mark.parametrize(("turns", "reason"), [([], Reason.NO_SPEECH), ([turn(1, 0, 5)], Reason.ONE_SPEAKER)])
def test_of_two_files_both_must_speak(turns: list[Turn], reason: Reason) -> None:
    with pytest.raises(Rejected) as rejection:
        check_both_speak(turns)
    assert rejection.value.reason is reason
    check_both_speak([turn(1, 0, 5), turn(0, 5, 5.1)])


def test_a_leak_is_fainter_and_alike() -> None:
    rng = np.random.default_rng(0)
    voice, other = rng.normal(size=8000), rng.normal(size=8000)
    assert is_leak(0.1 * np.roll(voice, 100) + 0.01 * other, voice)
    assert not is_leak(0.1 * other, voice)  # faint, but someone else
    assert not is_leak(voice, voice)  # alike, but as loud: cannot tell whose it is
    assert not is_leak(np.zeros(8000), voice)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=9), st.floats(0, 4))
def test_viterbi_finds_the_best_path(evidence: list[float], switch: float) -> None:
    values = np.array(evidence)

    def worth(path: np.ndarray) -> float:
        return float(np.where(path, values, -values).sum() - switch * np.abs(np.diff(path.astype(int))).sum())

    paths = (np.array([bits >> i & 1 for i in range(len(values))], bool) for bits in range(2 ** len(values)))
    assert worth(viterbi(values, switch)) == pytest.approx(max(map(worth, paths)), abs=1e-9)


@given(st.integers(1, 3000))
def test_spreading_chunks_restores_the_frames(frames: int) -> None:
    values = np.random.default_rng(frames).normal(size=frames)
    np.testing.assert_allclose(spread(chunked(values, chunks_over(frames)), frames), values, atol=1e-12)


def chunks_over(frames: int) -> int:
    return max(1, -(-(frames - CHUNK_FRAMES) // HOP) + 1)


WORD = (29.5, 30.5)


def heard(apart: bool, word: float) -> tuple[Cues, np.ndarray]:
    """Turns of 12 s, and in the third a word of the other's: what networks hear of them, and bool [F] who it was.

    apart: the segmentation hears two voices, else one throughout. word: how the word's windows lean to its speaker,
    where those of turns lean by 1.
    """
    frames = 48 * SAMPLE_RATE // STEP
    time_F = np.arange(frames) * STEP / SAMPLE_RATE
    word_F = (time_F >= WORD[0]) & (time_F < WORD[1])
    other_F = (time_F % 24 >= 12) ^ word_F
    at_W = window_frames(480, frames)
    lean_W = np.where(other_F, -1.0, 1.0)[at_W] * np.where(word_F[at_W], word, 1.0)
    window_WE = 0.6 * np.stack([lean_W, np.sqrt(1 / 0.36 - lean_W**2)], axis=1)
    voice_F3 = np.eye(3)[other_F.astype(int) * apart]
    local = np.stack([chunked(voice_F, chunks_over(frames)) for voice_F in voice_F3.T], axis=2)
    none = np.zeros(0)
    return Cues(48 * SAMPLE_RATE, np.ones(frames, bool), local, window_WE, np.ones(480), none, none), other_F


@pytest.mark.parametrize(("apart", "word"), [(False, 0.5), (True, -0.2)])
def test_the_segmentation_counts_for_what_it_tells_apart(apart: bool, word: float) -> None:
    """One that hears a single voice cannot take a word from who sounds like its speaker; one that hears two can."""
    cues, other_F = heard(apart, word)
    first_F = divide(cues, cues.speech).first
    assert max(np.mean(first_F == other_F), np.mean(first_F != other_F)) > 0.99


@pytest.mark.parametrize(("late", "start"), [(0.0, 1.0), (0.1, 1.0), (0.4, 1.25)])  # never moved by more than 0.15 s
def test_speech_begins_where_the_sound_does(late: float, start: float) -> None:
    audio = 1e-5 * np.random.default_rng(0).standard_normal(3 * SAMPLE_RATE).astype(np.float32)
    audio[SAMPLE_RATE : 2 * SAMPLE_RATE] += 0.1 * np.sin(np.arange(SAMPLE_RATE, dtype=np.float32))
    times = np.arange(len(audio) // VAD_STEP) * VAD_STEP / SAMPLE_RATE
    vad = ((times >= 1.0 + late) & (times < 1.98)).astype(np.float32)
    [span] = heard_spans(vad, audio)
    assert span == pytest.approx((start, 2.0), abs=0.035)

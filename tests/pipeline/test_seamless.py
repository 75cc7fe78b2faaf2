"""Files in the layout of the Seamless Interaction corpus."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from scipy.signal import resample_poly

from tests.stages.test_ingest import write_clip
from tests.stages.test_sidecars import arrays
from visavis.pipeline.plan.sources import find_sources, source_key, source_name, source_seconds
from visavis.schemas.config import BindConfig, DiarizeConfig, FacesConfig, IngestConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.rows import Binding, Conversation, Diarization, Source, Turn
from visavis.stages.bind import BindInput, BindStage
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.diarize import DiarizeStage
from visavis.stages.faces import FacesStage, pieces_of
from visavis.stages.ingest import IngestStage, outline_of

FOLDER = "improvised/dev/0000"
ONE, TWO = "V00_S0809_I00000582_P0947", "V00_S0809_I00000582_P1275A"


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def sources(*inputs: Path | str) -> list[Source]:
    return list(find_sources([str(i) for i in inputs]))


# What the names say


def test_two_participants_of_an_interaction_are_a_dyad_wherever_their_archives_are(tmp_path: Path) -> None:
    touch(tmp_path, f"0032/{TWO}.mp4", f"0038/{ONE}.mp4", f"0038/{ONE}.wav", f"0038/{ONE}.npz", f"0038/{ONE}.json")
    (source,) = sources(tmp_path)
    assert source_name(source) == f"{ONE}.mp4 + {TWO}.mp4"
    assert source.conversation == "V00_S0809_I00000582"
    assert source.participants == ("V00_P0947", "V00_P1275A")
    first = f"{tmp_path}/{FOLDER}/0038/{ONE}"
    assert source.sidecars == ((f"{first}.wav", f"{first}.json", f"{first}.npz"), ())
    assert Source.model_validate(source.model_dump(mode="json")) == source
    assert source_seconds(source) < 1  # of a known size


def test_a_person_has_one_name_in_all_sessions_of_a_vendor(tmp_path: Path) -> None:
    interactions = ("V00_S0001_I00000001", "V00_S0002_I00000001", "V01_S0001_I00000001")
    touch(tmp_path, *(f"0000/{i}_{p}.mp4" for i in interactions for p in ("P0001", "P0002")))
    names = [s.participants for s in sources(tmp_path)]
    assert names == [("V00_P0001", "V00_P0002"), ("V00_P0001", "V00_P0002"), ("V01_P0001", "V01_P0002")]


def test_folders_globs_lists_and_pairs_find_the_same(tmp_path: Path) -> None:
    touch(tmp_path, *(f"0032/{name}.{suffix}" for name in (ONE, TWO) for suffix in ("mp4", "wav", "json", "npz")))
    folder = tmp_path / FOLDER / "0032"
    listed = tmp_path / "list.jsonl"
    listed.write_text("".join(json.dumps({"uri": str(folder / f"{name}.mp4")}) + "\n" for name in (TWO, ONE)))
    by_folder = sources(tmp_path)
    assert len(by_folder) == 1
    assert sources(folder / "*.mp4") == sources(folder / "*") == by_folder
    assert sources(listed)[0].model_copy(update={"stamps": by_folder[0].stamps}) == by_folder[0]
    assert list(find_sources([], [(str(folder / f"{ONE}.mp4"), str(folder / f"{TWO}.mp4"))])) == by_folder
    assert sources(f"file://{folder}")[0].sidecars == by_folder[0].sidecars


def test_who_is_missing_and_who_is_too_many(tmp_path: Path) -> None:
    three = [f"0000/V03_S0002_I00000007_P{n}.mp4" for n in (3, 1, 2)]
    touch(tmp_path, f"0000/{ONE}.mp4", *three, "0000/holiday.mp4")
    found = find_sources([str(tmp_path)])
    single, alone, crowd = found
    assert len(found) == 3
    assert (source_name(single), single.participants) == ("holiday.mp4", (None,))  # any other file is what it was
    assert alone.participants == ("V00_P0947",)
    assert crowd.participants == ("V03_P1", "V03_P2", "V03_P3")
    for source, detail in ((alone, "V00_P0947"), (crowd, "V03_P3")):
        with pytest.raises(Rejected, match=detail) as error:
            list(IngestStage(IngestConfig()).process(source))
        assert error.value.reason is Reason.INCOMPLETE_DYAD


def test_listing_twice_is_no_crowd(tmp_path: Path) -> None:
    touch(tmp_path, f"0000/{ONE}.mp4", f"0000/{TWO}.mp4")
    first, again = sources(tmp_path, tmp_path)
    assert first == again


def test_what_a_list_says_goes_before_names(tmp_path: Path) -> None:
    touch(tmp_path, f"0000/{ONE}.mp4", f"0000/{TWO}.mp4")
    rows = [
        {"uri": f"{FOLDER}/0000/{name}.mp4", "conversation": "c", "participant": who}
        for name, who in ((ONE, "Zoe"), (TWO, "Al"))
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (source,) = sources(tmp_path / "list.jsonl")
    assert (source.conversation, source.participants) == ("c", ("Al", "Zoe"))


def test_a_changed_sidecar_makes_a_new_item(tmp_path: Path) -> None:
    touch(tmp_path, f"0000/{ONE}.mp4", f"0000/{TWO}.mp4", f"0000/{TWO}.json")
    (before,) = sources(tmp_path)
    (tmp_path / FOLDER / f"0000/{TWO}.json").write_text("changed")
    (after,) = sources(tmp_path)
    assert source_key(after) != source_key(before)


# Whole dyads


def write_wav(path: Path, audio_N: np.ndarray) -> None:
    """16 kHz in, 48 kHz 16 bit out."""
    fine_N = resample_poly(audio_N, 3, 1) if len(audio_N) else audio_N
    samples = np.round(np.clip(fine_N, -1, 1) * 32767).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(samples.tobytes())


def lay_out(root: Path, name: str, video: Path, voice_N: np.ndarray, spans: Sequence[Any], boxes: np.ndarray) -> None:
    """The four files of a participant."""
    stem = root / FOLDER / "0000" / name
    stem.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(video, stem.with_suffix(".mp4"))
    write_wav(stem.with_suffix(".wav"), voice_N)
    vad = [{"start": start, "end": end} for start, end in spans]
    annotations = {"id": name, "metadata:vad": vad, "metadata:transcript": []}
    stem.with_suffix(".json").write_text(json.dumps(annotations, indent=4))
    np.savez_compressed(stem.with_suffix(".npz"), **arrays(boxes, np.ones(len(boxes), bool)))


def ingested(root: Path) -> Conversation:
    (source,) = sources(root / "improvised")
    [conversation] = IngestStage(IngestConfig()).process(source)
    return conversation


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two grey videos without sound, and all that belongs to them."""
    rng = np.random.default_rng(0)
    for name, seconds in ((ONE, 4.0), (TWO, 4.4)):
        video = write_clip(tmp_path / "clip.mp4", seconds=seconds, sound=False)
        noise_N = rng.normal(0, 0.1, round(seconds * 16_000))
        lay_out(tmp_path, name, video, noise_N, [(1.0, 2.0)], np.tile(np.float32([1, 2, 30, 40]), (110, 1)))
        video.unlink()
    return tmp_path


def test_a_participant_is_video_sound_speech_and_boxes(corpus: Path) -> None:
    conversation = ingested(corpus)
    one, two = conversation.media
    assert conversation.participants == ("V00_P0947", "V00_P1275A")
    assert conversation.frames == 100
    assert (one.audio_rate, one.audio_channels) == (48_000, 1)
    assert one.sound.endswith(f"{ONE}.wav")
    assert two.audio_duration == pytest.approx(4.4, abs=0.001)
    assert one.vad == ((1.0, 2.0),)
    assert one.boxes is not None
    np.testing.assert_array_equal(one.boxes[:4], [[1, 2, 30, 40]] * 4)


@pytest.mark.slow
def test_a_moved_corpus_is_the_same_and_other_sidecars_are_not(corpus: Path, tmp_path: Path) -> None:
    outline = outline_of(ingested(corpus))
    shutil.copytree(corpus / "improvised", tmp_path / "elsewhere" / "improvised")
    assert outline_of(ingested(tmp_path / "elsewhere")) == outline
    stem = corpus / FOLDER / "0000" / ONE
    for suffix, change in (
        (".wav", lambda path: write_wav(path, np.ones(64_000) / 9)),
        (".json", lambda path: path.write_text('{"metadata:vad": [{"start": 1.0, "end": 2.1}]}')),
        (".npz", lambda path: np.savez(path, **arrays(np.ones((90, 4)), np.ones(90)))),
    ):
        path = stem.with_suffix(suffix)
        kept = path.read_bytes()
        change(path)
        changed = outline_of(ingested(corpus))
        assert changed.id == outline.id  # the videos are the same: no face is tracked anew
        assert changed.identity != outline.identity
        path.write_bytes(kept)
    assert outline_of(ingested(corpus)) == outline


@pytest.mark.parametrize(
    ("suffix", "content", "reason"),
    [
        ("json", b"{", Reason.UNREADABLE),
        ("npz", b"PK", Reason.UNREADABLE),
        ("wav", b"RIFF", Reason.UNREADABLE),
        ("mp4", b"\x00\x00\x00\x1cftypisom", Reason.UNREADABLE),
    ],
)
def test_a_broken_file_rejects_the_dyad(corpus: Path, suffix: str, content: bytes, reason: Reason) -> None:
    (corpus / FOLDER / "0000" / f"{TWO}.{suffix}").write_bytes(content)
    with pytest.raises(Rejected, match=rf"{TWO}\.{suffix}") as error:
        ingested(corpus)
    assert error.value.reason is reason


def test_empty_sound_and_sound_of_another_length(corpus: Path) -> None:
    path = corpus / FOLDER / "0000" / f"{TWO}.wav"
    for seconds, reason in ((0.0, Reason.NO_AUDIO), (2.0, Reason.AV_LENGTH_MISMATCH)):
        write_wav(path, np.zeros(round(seconds * 16_000)))
        with pytest.raises(Rejected) as error:
            ingested(corpus)
        assert error.value.reason is reason


# The whole way to bound participants, on people who talk


class Talk(NamedTuple):
    root: Path
    turns: tuple[Turn, ...]
    voices: tuple[np.ndarray, np.ndarray]
    faces: tuple[FaceTracks, ...]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    """A room with one camera: both participants' files show both people, and boxes tell who it is about."""
    pytest.importorskip("espeakng_loader", reason="synthetic voices need the demo extra")
    from visavis.pipeline.demo.dialogue import make_dialogue
    from visavis.pipeline.demo.script import write_script

    seed, seconds = 3, 25.0
    root = tmp_path_factory.mktemp("seamless")
    truth = make_dialogue(root / "room", "room", seed, seconds, "one_frame")
    voices = write_script(seed, seconds).audio
    videos = root / "room" / "room.mp4", root / "room" / "silent.mp4"
    with av.open(str(videos[0])) as given, av.open(str(videos[1]), "w") as taken:  # the second has no sound of its own
        stream = taken.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                taken.mux(packet)
    for i, name in enumerate((ONE, TWO)):
        spans = [(t.start, t.end) for t in truth.turns if t.speaker == i]
        box = np.float32([320 * i, 10, 320 * i + 320, 350])
        lay_out(root, name, videos[i], voices[i], spans, np.tile(box, (truth.frames, 1)))
    conversation = ingested(root)
    stage = FacesStage(FacesConfig())
    stage.setup()
    pieces = pieces_of(outline_of(conversation), [m.uri for m in conversation.media], stage.config)
    (first,) = [row for piece in pieces if piece.media == 0 for row in stage.process(piece)]
    second = first.model_copy(update={"piece": first.piece.model_copy(update={"media": 1})})  # the same pictures
    return Talk(root, truth.turns, (voices[0], voices[1]), (first, second))


@pytest.fixture(scope="module")
def diarizer() -> DiarizeStage:
    stage = DiarizeStage(DiarizeConfig())
    stage.setup()
    return stage


def bound(talk: Talk, conversation: Conversation, diarization: Diarization) -> Binding:
    [cast] = CastStage().process(CastInput(conversation=conversation, faces=talk.faces))
    given = BindInput(conversation=conversation, diarization=diarization, cast=cast)
    [binding] = BindStage(BindConfig()).process(given)
    return binding


@pytest.mark.nightly("Seamless Interaction from film to bound people; what is read of it is above")
def test_the_corpus_tells_who_speaks_when_and_who_it_is(talk: Talk, diarizer: DiarizeStage) -> None:
    conversation = ingested(talk.root)
    [diarization] = diarizer.process(conversation)
    assert diarization.method == "vad"
    borders = [(t.speaker, t.start, t.end) for t in diarization.turns]
    assert borders == [
        (t.speaker, pytest.approx(t.start, abs=1e-4), pytest.approx(t.end, abs=1e-4)) for t in talk.turns
    ]
    left, right = bound(talk, conversation, diarization).participants
    tracks = [talk.faces[i].tracks[p.segments[0].track] for i, p in enumerate((left, right))]
    assert np.nanmax(tracks[0].box[:, 2]) < 320 < np.nanmin(tracks[1].box[:, 0])
    assert [(p.name, p.media, p.speaker) for p in (left, right)] == [("V00_P0947", 0, 0), ("V00_P1275A", 1, 1)]
    for person in (left, right):
        assert person.offset_ms == pytest.approx(0, abs=20)
        assert person.offset_confidence > 50


@pytest.mark.nightly("Seamless Interaction from film to bound people; what is read of it is above")
def test_without_annotations_our_own_ears_and_eyes_serve(talk: Talk, diarizer: DiarizeStage) -> None:
    conversation = ingested(talk.root)
    bare = [m.model_copy(update={"vad": None, "boxes": None}) for m in conversation.media]
    conversation = conversation.model_copy(update={"media": tuple(bare)})
    [diarization] = diarizer.process(conversation)
    assert diarization.method == "channels"
    assert [t.speaker for t in diarization.turns] == [t.speaker for t in talk.turns]
    binding = bound(talk, conversation, diarization)
    assert binding.participants[0].segments[0].track == binding.participants[1].segments[0].track  # the larger one


@pytest.mark.nightly("Seamless Interaction from film to bound people; what is read of it is above")
@pytest.mark.parametrize(("late", "what"), [(0.3, "300 ms late"), (-0.2, "200 ms early"), (0.06, None)])
def test_wrong_time_stamps(talk: Talk, diarizer: DiarizeStage, tmp_path: Path, late: float, what: str | None) -> None:
    """The second participant's sound was cut at another moment than the pictures; its annotations go with the sound."""
    shutil.copytree(talk.root / "improvised", tmp_path / "improvised")
    voice_N, by = talk.voices[1], round(late * 16_000)
    moved_N = np.concatenate([np.zeros(max(0, by)), voice_N[max(0, -by) :]])[: len(voice_N)]
    stem = tmp_path / FOLDER / "0000" / TWO
    write_wav(stem.with_suffix(".wav"), moved_N)
    spans = [{"start": t.start + late, "end": t.end + late} for t in talk.turns if t.speaker == 1]
    stem.with_suffix(".json").write_text(json.dumps({"metadata:vad": spans}))
    conversation = ingested(tmp_path)
    [diarization] = diarizer.process(conversation)
    if what is None:
        assert bound(talk, conversation, diarization).participants[1].offset_ms == pytest.approx(1000 * late, abs=20)
        return
    with pytest.raises(Rejected, match=rf"{TWO}\.wav: ") as error:
        bound(talk, conversation, diarization)
    assert error.value.reason is Reason.AV_OFFSET
    number, *rest = error.value.detail.partition(": ")[2].split(" for ")[0].split(" ")
    assert float(number) == pytest.approx(abs(1000 * late), abs=20)
    assert " ".join(rest) == what.split(" ", 1)[1]


def test_a_store_that_lists_no_folder_leaves_out_what_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A list's file may lie where nobody may look around: it is built without sound and annotations from there."""

    class Closed:
        asked = 0

        def ls(self, *_: object, **__: object) -> list[object]:
            self.asked += 1
            raise PermissionError(13, "Forbidden")

    store = Closed()
    monkeypatch.setattr("visavis.pipeline.plan.found.locate", lambda url: (store, url))
    (tmp_path / "list.jsonl").write_text(
        "".join(json.dumps({"uri": f"s3://b/0032/{n}.mp4"}) + "\n" for n in (ONE, TWO))
    )
    (source,) = find_sources([str(tmp_path / "list.jsonl")])
    assert (source.uris, source.sidecars) == ((f"s3://b/0032/{ONE}.mp4", f"s3://b/0032/{TWO}.mp4"), ())
    assert store.asked == 1
    assert "are left out" in caplog.text

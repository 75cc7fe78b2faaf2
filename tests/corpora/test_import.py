"""What an import promises: given motion and voices come out as they went in, and what does not fit is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.corpora import write_dualtalk
from benchmarks.reactive import Corpus, make_talk
from visavis.pipeline.cli.export_layouts import LAYOUTS, export_layout, packed
from visavis.pipeline.cli.status import read_left_out
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.report_find import find
from visavis.pipeline.plan.corpora import list_corpus
from visavis.pipeline.plan.importing import Import, ImportSummary
from visavis.schemas.coefficients import column_groups
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import Rejected, RunFailed, UsageError
from visavis.schemas.imports import ImportConfig
from visavis.schemas.recordings import CorpusLayout, RecordedPerson
from visavis.schemas.sample import AVATAR_SPEAKS
from visavis.stages.balance import name_number
from visavis.stages.corpora.grid import on_grid, rate_of
from visavis.stages.corpora.layouts import voice_of
from visavis.stages.corpora.seamless import RATES, WITHIN
from visavis.stages.face.decode import why_not_drawn
from visavis.training.dataset import Dataset
from visavis.training.sequences import read_sequences, runs_of


def imported(folder: Path, out: Path, layout: CorpusLayout = "dualtalk", **settings: object) -> ImportSummary:
    config = ImportConfig.model_validate({"layout": layout, "run": {"max_failure_share": 0.5}, **settings})
    made = Import(config, str(out), local_engine, Reporter())
    return made.run(list_corpus(layout, str(folder)))


def sequences(dataset: str, split: str) -> dict[tuple[str, str], np.ndarray]:
    """Motion by avatar's name and start."""
    data = Dataset(dataset)
    runs, where = runs_of(data, split)  # type: ignore[arg-type]
    return {(each.side.avatar, each.key[-7:]): each.truth for each in read_sequences(data, split, runs, where)}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_dualtalk(folder, conversations=4, seconds=6)
    return folder


@pytest.fixture(scope="module")
def run(made: Path, tmp_path_factory: pytest.TempPathFactory) -> ImportSummary:
    return imported(made, tmp_path_factory.mktemp("run"))


def test_motion_comes_out_of_the_shards_as_it_lay_in_the_folder(made: Path, run: ImportSummary) -> None:
    found = sequences(run.dataset, "train")
    assert len(found) == 6, "three conversations, from both sides"
    for (name, _), motion in found.items():
        with np.load(made / f"{name}.npz") as given:
            pose = given["pose"]
            np.testing.assert_array_equal(motion, np.concatenate([given["exp"], pose[:, 3:], pose[:, :3]], axis=1))


def test_the_manifest_names_columns_and_groups_and_holds_out_what_the_corpus_does(run: ImportSummary) -> None:
    manifest = Dataset(run.dataset).manifest
    assert manifest.motion.codec == "flame-exp50-jaw3-pose3"
    assert column_groups(manifest.motion) == {"exp": slice(0, 50), "jaw": slice(50, 53), "pose": slice(53, 56)}
    assert [column.name for column in manifest.columns or ()][49:54] == ["exp_49", "jaw_0", "jaw_1", "jaw_2", "pose_0"]
    assert (manifest.columns or ())[50].unit == "rad"
    assert {name for name, _ in sequences(run.dataset, "val")} == {"test/made00003_speaker1", "test/made00003_speaker2"}
    assert len(set(manifest.motion.std[:50])) == 1, "a group shares its deviation"


def test_who_speaks_is_heard_in_the_voices(run: ImportSummary) -> None:
    """In a corpus of silence nobody would listen, and there would be no pairs."""
    samples = [*Dataset(run.dataset).samples("train"), *Dataset(run.dataset).samples("val")]
    assert {WindowClass.LISTENING, WindowClass.SPEAKING} <= {sample.meta.label for sample in samples}
    corpus, agree = Corpus(train=4, val=0, seconds=6), []
    for sample in samples:
        stem, _, speaker = sample.meta.avatar.rpartition("_speaker")
        true_T = make_talk(corpus, int(stem[-5:])).state(150)[sample.meta.start :][:50]
        agree.append((sample.state & AVATAR_SPEAKS > 0) == (true_T >> int(speaker) - 1 & 1 > 0))
    assert np.mean(agree) > 0.9


@pytest.mark.slow
def test_an_import_goes_on_where_it_was_and_reads_again_what_has_changed(made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "corpus"
    copy.mkdir()
    for file in (made / "train").glob("made00000*"):
        (copy / file.name).write_bytes(file.read_bytes())
    first = imported(copy, tmp_path / "run")
    assert first.processed > 0
    assert imported(copy, tmp_path / "run").processed == 0
    with np.load(copy / "made00000_speaker1.npz") as given:
        arrays = dict(given)
    np.savez(copy / "made00000_speaker1.npz", **(arrays | {"exp": arrays["exp"] + np.float32(1)}))
    assert imported(copy, tmp_path / "run").processed > 0


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"exp": np.full((150, 50), np.nan, np.float32)}, "unreadable"),
        ({"exp": np.zeros((150, 100), np.float32)}, "unreadable"),
        ({"exp": np.zeros((150, 50), np.int64)}, "unreadable"),
        ({"pose": np.zeros((150, 3), np.float32)}, "unreadable"),
        ({"exp": np.zeros((100, 50), np.float32)}, "unreadable"),
        ({"exp": np.full((150, 50), 1e6, np.float32)}, "unreadable"),
        ({"exp": np.array([{}], object)}, "unreadable"),
        ({"exp": np.zeros((90, 50), np.float32), "pose": np.zeros((90, 6), np.float32)}, "av_length_mismatch"),
        ({"exp": np.zeros((9, 50), np.float32), "pose": np.zeros((9, 6), np.float32)}, "too_short"),
        (b"no archive", "unreadable"),
        (None, "incomplete_dyad"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_rejected_with_its_reason(
    made: Path, tmp_path: Path, what: dict[str, np.ndarray] | bytes | None, reason: str
) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for file in (made / "train").glob("made0000[01]*"):
        (folder / file.name).write_bytes(file.read_bytes())
    target = folder / "made00001_speaker2.npz"
    if what is None:
        target.unlink()
        (folder / "made00001_speaker2.wav").unlink()
    elif isinstance(what, bytes):
        target.write_bytes(what)
    else:
        with np.load(target) as given:
            arrays = dict(given)
        np.savez(target, **(arrays | what))
    summary = imported(folder, tmp_path / "run")
    assert summary.rejected == {reason: 1}
    assert summary.kept == 1
    (told,) = read_left_out(str(tmp_path / "run"))
    assert (told["item"], told["reason"]) == ("made00001", reason)
    assert told["detail"]


def test_sound_of_another_scale_is_rejected_and_packed_sound_is_decoded(made: Path, tmp_path: Path) -> None:
    sound, rate = soundfile.read(made / "train" / "made00000_speaker1.wav")
    loud, packed_ = tmp_path / "loud.wav", tmp_path / "packed.wav"
    soundfile.write(loud, sound * 32768, rate, "FLOAT")
    soundfile.write(packed_, sound, rate, "IMA_ADPCM")
    with pytest.raises(Rejected, match=r"loud\.wav: sound reaches"):
        voice_of("dualtalk", RecordedPerson(name="a", sound=str(loud)), 100)
    heard = voice_of("dualtalk", RecordedPerson(name="a", sound=str(packed_)), 100)
    assert np.corrcoef(heard, sound[: heard.size])[0, 1] > 0.99


def links(folder: Path, made: Path, names: list[str]) -> None:
    """One conversation under many names."""
    folder.mkdir(parents=True)
    for name in names:
        for file in (made / "train").glob("made00000*"):
            (folder / file.name.replace("made00000", name)).symlink_to(file)


def test_the_folder_of_one_split_is_that_split_and_people_are_held_out_where_no_split_is(
    made: Path, tmp_path: Path
) -> None:
    (test,) = list_corpus("dualtalk", str(made / "test"))
    assert test.split == "test"
    names = [f"film{film}_sub_video_{clip}" for film in range(4) for clip in range(3)]
    links(tmp_path / "train", made, names)
    held = Import(ImportConfig(layout="dualtalk"), str(tmp_path / "run"), local_engine, Reporter())._held
    listed = list_corpus("dualtalk", str(tmp_path / "train"))
    assert {each.split for each in listed} == {"train"}
    numbers = [(int(each.id, 16), [name_number(person.name) for person in each.people]) for each in listed]
    rows = np.array(numbers, [("id", "u8"), ("names", "u8", 2)])
    films = {each.name.partition("_")[0]: set[bool]() for each in listed}
    for each, is_held in zip(listed, held(listed, rows).tolist(), strict=True):
        films[each.name.partition("_")[0]].add(is_held)
    assert all(len(found) == 1 for found in films.values()), "clips of a film are on one side"
    assert {True, False} == set.union(*films.values()), "there is something to validate with"


def test_a_split_that_is_not_there_is_said_also_by_a_dry_run(made: Path, tmp_path: Path) -> None:
    config = ImportConfig(layout="dualtalk", splits=("test", "ood"))
    with pytest.raises(UsageError, match="no conversation of split ood; there are: test, train"):
        Import(config, str(tmp_path / "run"), local_engine, Reporter()).chosen(list_corpus("dualtalk", str(made)))


@pytest.mark.slow
def test_conversations_of_one_name_in_two_splits_keep_apart_in_a_database(made: Path, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb", reason="the extra `corpora` is not installed")
    for split in ("train", "test"):
        links(tmp_path / "corpus" / split, made, ["same"])
    summary = imported(tmp_path / "corpus", tmp_path / "run")
    assert export_layout(Dataset(summary.dataset), "unils", str(tmp_path / "out"), Reporter()) == {
        "train": 1,
        "test": 1,
    }
    with lmdb.open(str(tmp_path / "out" / "data_lmdb"), readonly=True, lock=False) as base:
        assert base.stat()["entries"] == 4


def test_a_folder_without_conversations_and_a_corpus_that_is_all_bad_end_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(UsageError, match="nothing in the layout of dualtalk"):
        imported(tmp_path, tmp_path / "run")
    (tmp_path / "a_speaker1.npz").write_bytes(b"PK")
    with pytest.raises(RunFailed, match="1 × incomplete_dyad"):
        imported(tmp_path, tmp_path / "run")


def test_who_has_no_motion_is_no_avatar_and_lengths_that_differ_are_told(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for file in (made / "train").glob("made00000*"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "made00000_speaker1.npz").unlink()
    sound, rate = soundfile.read(folder / "made00000_speaker1.wav")
    soundfile.write(folder / "made00000_speaker1.wav", sound[: -rate // 4], rate)
    summary = imported(folder, tmp_path / "run")
    assert (summary.one_sided, summary.differ) == (1, (1, 0.25))
    samples = list(Dataset(summary.dataset).samples("train"))
    assert {sample.meta.avatar for sample in samples} == {"made00000_speaker2"}
    assert not any(sample.valid[:, 1].any() for sample in samples)
    counts = export_layout(Dataset(summary.dataset), "dualtalk", str(tmp_path / "out"), Reporter())
    assert counts == {"train": 1}
    there = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert there == [f"made00000_speaker{end}" for end in ("1.wav", "2.npz", "2.wav")]


@pytest.mark.parametrize("layout", ["dualtalk", "unils"])
def test_an_export_is_read_back_as_it_was(run: ImportSummary, tmp_path: Path, layout: str) -> None:
    if layout == "unils":
        pytest.importorskip("lmdb", reason="the extra `corpora` is not installed")
    counts = export_layout(Dataset(run.dataset), LAYOUTS[layout], str(tmp_path / "out"), Reporter())
    assert counts == {"train": 3, "test": 1}
    again = imported(tmp_path / "out", tmp_path / "again", LAYOUTS[layout], recording={"exp": 50})
    for split in ("train", "val"):
        before, after = sequences(run.dataset, split), sequences(again.dataset, split)
        for (name, start), motion in before.items():
            other = name if layout == "dualtalk" else name.replace("_speaker1", "_0").replace("_speaker2", "_1")
            other = other if layout == "dualtalk" else other.rpartition("/")[2]
            np.testing.assert_array_equal(after[other, start][:, :56], motion)
    voices = {s.key[-9:]: s.avatar_audio for s in Dataset(run.dataset).samples("val")}
    for sample in Dataset(again.dataset).samples("val"):
        np.testing.assert_array_equal(sample.avatar_audio, voices[sample.key[-9:]])


def test_what_is_exported_is_what_their_loaders_ask_for(run: ImportSummary, tmp_path: Path) -> None:
    export_layout(Dataset(run.dataset), "dualtalk", str(tmp_path / "out"), Reporter())
    for stem in sorted((tmp_path / "out" / "train").glob("*.npz")):
        other = (
            stem.name.replace("speaker1", "speakerX").replace("speaker2", "speaker1").replace("speakerX", "speaker2")
        )
        with np.load(stem) as mine, np.load(stem.parent / other) as theirs:
            assert mine["exp"].dtype == np.float32
            assert mine["pose"][:, 3:].shape == mine["pose"][:, :3].shape == (150, 3)
            assert mine["shape"].shape == (150, 100)
            assert len(mine["exp"]) == len(theirs["exp"])
        sound, rate = soundfile.read(stem.with_suffix(".wav"))
        assert (rate, len(sound)) == (16_000, 150 * 640)


def test_a_unils_database_is_read_without_pickle(made: Path, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb", reason="the extra `corpora` is not installed")
    code = np.random.default_rng(0).standard_normal((150, 111)).astype(np.float32)
    records = {
        "p0": packed(audio=np.zeros(96_000, np.float32), motioncode=code, speech_mask=np.arange(150) < 75),
        "p1": packed(audio=np.zeros(96_000, np.float32), motioncode=-code, speech_mask=np.arange(150) >= 75),
        "bad": packed(audio=np.zeros(96_000, np.float32), motioncode=np.array([{"a": 1}], object)),
    }
    (tmp_path / "corpus").mkdir()
    with lmdb.open(str(tmp_path / "corpus" / "data_lmdb"), map_size=1 << 28) as base, base.begin(write=True) as change:
        for key, value in records.items():
            change.put(key.encode(), value)
    table = {"train": {"one": ["x/p0", "x/p1", 150], "two": ["x/p0", "x/bad", 150], "three": ["x/p0", "x/gone", 150]}}
    (tmp_path / "corpus" / "metadata.json").write_text(json.dumps(table))
    summary = imported(tmp_path / "corpus", tmp_path / "run", "unils")
    assert summary.rejected == {"unreadable": 2}
    motion = sequences(summary.dataset, "train")["p0", "0000000"]
    np.testing.assert_array_equal(motion[:, :100], code[:, :100])
    np.testing.assert_array_equal(motion[:, 100:111], code[:, [103, 104, 105, 100, 101, 102, 106, 107, 108, 109, 110]])
    states = {s.meta.start: s.state for s in Dataset(summary.dataset).samples("train") if s.meta.avatar == "p0"}
    assert (states[0] == 1).all()
    assert (states[100] == 2).all()


def test_clips_of_one_person_are_samples_without_a_user(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "solo"
    folder.mkdir()
    for kind in ("npz", "wav"):
        (folder / f"clip.{kind}").write_bytes((made / "train" / f"made00000_speaker2.{kind}").read_bytes())
    summary = imported(folder, tmp_path / "run", "solo")
    samples = list(Dataset(summary.dataset).samples("train"))
    assert samples
    assert not any(sample.valid[:, 1].any() or sample.user_audio.any() for sample in samples)
    assert all(sample.avatar_audio.any() for sample in samples)


def test_movement_at_another_rate_comes_to_the_grid_by_time_and_keeps_what_is_valid() -> None:
    time_S = (np.arange(300) + 0.5) / 30
    valid = np.ones(300, bool)
    valid[100:103] = False
    ramp = np.where(valid, time_S, np.nan)[:, None]
    parts, valid_T = on_grid({"exp": ramp}, valid, 30.0)
    assert valid_T.shape == (250,)
    time_T = (np.arange(250) + 0.5) / 25
    inside = valid_T & (time_T > time_S[0]) & (time_T < time_S[-1])
    np.testing.assert_allclose(parts["exp"][inside, 0], time_T[inside], atol=1e-9)
    assert np.isfinite(parts["exp"]).all()
    lost = time_T[~valid_T]
    assert 3 <= len(lost) <= 5
    assert ((lost > time_S[99]) & (lost < time_S[103])).all()
    with pytest.raises(Rejected, match="fit no rate"):
        rate_of(300, 7.0, "x", RATES, WITHIN)
    assert rate_of(2400, 10.01, "x", RATES, WITHIN) == 240


def test_movement_of_seamless_interaction_becomes_windows(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus" / "improvised" / "train" / "0000"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, person in enumerate(("P0001", "P0002"), 1):
        stem = folder / f"V00_S0001_I00000001_{person}"
        arrays = {
            "movement:expression": random.standard_normal((180, 128)),
            "movement:alignment_head_rotation": random.standard_normal((180, 3)),
            "movement:alignment_translation": random.standard_normal((180, 3)),
            "movement:gaze_encodings": random.standard_normal((180, 2)),
            "movement:is_valid": np.ones((180, 1)),
        }
        np.savez(stem.with_suffix(".npz"), **{name: array.astype(np.float32) for name, array in arrays.items()})  # type: ignore[arg-type]
        sound = (made / "train" / f"made00000_speaker{number}.wav").read_bytes()
        stem.with_suffix(".wav").write_bytes(sound)
    (folder / "V00_S0001_I00000002_P0003.wav").write_bytes(sound)
    summary = imported(tmp_path / "corpus", tmp_path / "run", "seamless")
    assert summary.rejected == {"no_motion": 1}
    manifest = Dataset(summary.dataset).manifest
    assert manifest.motion.codec == "seamless-exp128-pose3-place3-gaze2"
    assert (manifest.motion.rotation, manifest.motion.translation) == ((128, 131), (131, 134))
    assert {s.meta.avatar for s in Dataset(summary.dataset).samples("train")} == {"V00_P0001", "V00_P0002"}


def test_what_nobody_can_draw_is_said_in_a_line(run: ImportSummary) -> None:
    assert "coefficients of FLAME" in why_not_drawn(Dataset(run.dataset).manifest)


def test_a_page_of_an_import_says_why_it_opens_no_conversations(run: ImportSummary) -> None:
    found = find(str(Path(run.dataset).parent), [], [], [])
    assert any("is an import" in note for note in found.notes)

"""ViCo: tables, voices and reconstructions become windows of both people, and what is odd is told."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Once
from tests.corpora.made_vico import MOTION, RATE, SECONDS, coefficients, voices, write_mat, write_vico
from tests.corpora.test_import import imported, sequences
from visavis.pipeline.cli.status import read_left_out
from visavis.pipeline.plan.corpora import list_corpus
from visavis.pipeline.plan.corpus_folder import TABLE_BYTES
from visavis.pipeline.plan.importing import ImportSummary
from visavis.schemas.coefficients import column_groups
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.recordings import Recorded
from visavis.training.dataset import Dataset


@pytest.fixture(scope="module")
def corpus(once: Once) -> Path:
    """In which nobody says a word."""
    return once("vico", lambda folder: write_vico(folder / "vico", [np.zeros(SECONDS * 16_000)] * 3)) / "vico"


@pytest.fixture
def own(corpus: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(corpus, tmp_path / "vico"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ImportSummary:
    folder = tmp_path_factory.mktemp("run")
    write_vico(folder / "vico", voices(folder / "voices", 3))
    return imported(folder / "vico", folder / "run", "vico")


def listed(folder: Path) -> dict[str, Recorded]:
    return {each.name: each for each in list_corpus("vico", str(folder))}


def amiss(folder: Path) -> dict[str, str]:
    return {name: each.amiss for name, each in listed(folder).items() if each.amiss}


def edit(table: Path, old: str, new: str) -> None:
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))


@pytest.mark.slow
def test_both_people_are_avatars_and_splits_are_kept(run: ImportSummary) -> None:
    assert (run.kept, run.one_sided, run.rejected) == (3, 0, {})
    assert {name for name, _ in sequences(run.dataset, "train")} == {"0", "1", "100", "101"}
    assert {name for name, _ in sequences(run.dataset, "val")} == {"2", "102"}
    manifest = Dataset(run.dataset).manifest
    assert manifest.motion.codec == "3dmm-exp64-pose3-place3"
    assert column_groups(manifest.motion) == {"exp": slice(0, 64), "pose": slice(64, 67), "place": slice(67, 70)}


@pytest.mark.slow
def test_motion_is_that_of_the_files_at_the_moments_of_the_grid(run: ImportSummary) -> None:
    given = coefficients(SECONDS * RATE, 1)[:, MOTION].astype(np.float64)  # listener of the first clip
    motion = sequences(run.dataset, "train")["100", "0000000"]
    at_T = (np.arange(len(motion)) + 0.5) / 25 * RATE - 0.5
    straight = np.stack([np.interp(at_T, np.arange(len(given)), column) for column in given.T], axis=1)
    np.testing.assert_allclose(motion[:, :64], straight[:, :64], atol=1e-6)
    np.testing.assert_allclose(motion[:, 67:], straight[:, 67:], atol=1e-6)
    np.testing.assert_allclose(motion[:, 64:67], straight[:, 64:67], atol=2e-3)  # angles go along a rotation


@pytest.mark.slow
def test_the_speaker_speaks_and_the_listener_is_silent(run: ImportSummary) -> None:
    data = Dataset(run.dataset)
    samples = [*data.samples("train"), *data.samples("val")]
    listeners = [sample for sample in samples if sample.meta.avatar in ("100", "101", "102")]
    assert {sample.meta.label for sample in listeners} == {WindowClass.LISTENING, WindowClass.SILENCE}
    assert WindowClass.SPEAKING in {sample.meta.label for sample in samples if sample.meta.avatar in ("0", "1", "2")}
    assert not any(sample.avatar_audio.any() for sample in listeners)
    assert all(sample.user_audio.any() and sample.valid[:, 1].all() for sample in listeners)


@pytest.mark.slow
def test_the_challenges_tables_are_read_with_their_splits(corpus: Path, tmp_path: Path) -> None:
    """Also a second copy of one of them, which the baseline's own steps leave: the same clips, not more."""
    folder = tmp_path / "challenge"
    (folder / "audios").mkdir(parents=True)
    (folder / "example" / "metadata").mkdir(parents=True)
    head = "video_id,uuid,speaker_id,listener_id"
    for number, split in enumerate(("train", "valid")):
        (folder / f"{split}.csv").write_text(f"{head}\nfilm{number},uuid{number},{number}.0,{number + 9}\n")
        shutil.copy(corpus / "audios" / f"film{number}_1_7.wav", folder / "audios" / f"uuid{number}.wav")
        for side, name in enumerate(("speaker", "listener")):
            write_mat(folder / "recons" / "test" / f"uuid{number}.{name}.mat", coefficients(180, side))
    shutil.copy(folder / "train.csv", folder / "example" / "metadata" / "data.csv")
    found = listed(folder)
    assert {name: each.split for name, each in found.items()} == {"uuid0": "train", "uuid1": "valid"}
    assert [person.name for person in found["uuid0"].people] == ["0", "9"]
    summary = imported(folder, tmp_path / "run", "vico")
    assert summary.kept == 2
    assert {name for name, _ in sequences(summary.dataset, "val")} == {"1", "10"}


@pytest.mark.slow
def test_without_splits_people_are_held_out(own: Path, tmp_path: Path) -> None:
    """Whose clips are with another person, too: all of them are on one side."""
    table = own / "RLD_data.csv"
    edit(table, ",test", ",")
    edit(table, ",train", ",")
    edit(table, ",101,1,", ",100,1,")
    found = imported(own, tmp_path / "run", "vico", balance={"val_share": 0.3})
    train, val = ({name for name, _ in sequences(found.dataset, split)} for split in ("train", "val"))
    assert not train & val
    assert {"0", "1", "100"} in (train, val)


ROW = "neutral,film0_1_7,film0_l,film0_s,100,0,train"


@pytest.mark.parametrize(
    ("old", "new", "name", "said"),
    [
        (",film0_s,", ",../film0_s,", "film0_1_7", "../film0_s is no name"),
        (",film0_s,", ",/etc/passwd,", "film0_1_7", "/etc/passwd is no name"),
        (",film0_s,", ",,", "film0_1_7", "an empty cell is no name"),
        (",100,0,", ",,0,", "film0_1_7", "an empty cell is no name"),
        (",100,0,", ",nan,0,", "film0_1_7", "an empty cell is no name"),
        (",100,0,", ",0,0,", "film0_1_7", "0 is speaker and listener"),
        (",film0_l,film0_s,", ",film0_s,film0_s,", "film0_1_7", "film0_s is of the speaker and of the listener"),
        (ROW, f"{ROW}\n{ROW.replace('train', 'test')}", "film0_1_7", "contradicts"),
        (ROW, f"{ROW}\n{ROW.replace('100', '7')}", "film0_1_7", "contradicts"),
        (ROW, f"{ROW}\n,,,,,,train\n,,,,,,train", "RLD_data.csv row 3", "an empty cell is no name"),
        (",film0_1_7,", ",..\\film0,", "RLD_data.csv row 1", "..\\film0 is no name"),
    ],
)
def test_a_row_that_cannot_be_is_left_out_with_its_reason(own: Path, old: str, new: str, name: str, said: str) -> None:
    edit(own / "RLD_data.csv", old, new)
    assert said in amiss(own)[name]
    assert len([each for each in listed(own).values() if not each.amiss]) == 2 + (ROW + "\n,," in new)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace("\n", "\r\n") + "\r\n",
        lambda text: text.replace(ROW, f"{ROW}\n{ROW}"),
        lambda text: text.replace("100,0", "100.0,0.0"),
        lambda text: text.replace("film0_l", "recons/film0_l").replace(",train", ", Train "),
    ],
    ids=["mark", "semicolons", "windows", "twice", "fractions", "folder"],
)
def test_how_a_table_is_spelled_changes_nothing(corpus: Path, own: Path, change: Callable[[str], str]) -> None:
    table = own / "RLD_data.csv"
    table.write_bytes(change(table.read_text()).encode())
    plain, found = listed(corpus), listed(own)
    assert {name: (each.split, each.amiss) for name, each in found.items()} == {
        name: (each.split, "") for name, each in plain.items()
    }
    assert [p.name for p in found["film0_1_7"].people] == ["0", "100"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no table with the columns"),
        ("a,b\n1,2\n", "no table with the columns"),
        ("audio,listener,speaker,speaker_id\na,b,c,1\n", "no column listener_id"),
        ("speaker_id,listener_id,video_id\n1,2,a\n", "no column audio, speaker, listener"),
        ("speaker_id,listener_id,uuid\n", "no rows"),
        ("speaker_id,listener_id,uuid\n1,2\n", "row 1"),
        ('speaker_id,listener_id,uuid\n1,2,"a\n', "never closed"),
    ],
)
def test_a_table_that_is_none_ends_in_a_line(own: Path, text: str, said: str) -> None:
    (own / "RLD_data.csv").write_text(text)
    with pytest.raises(UsageError, match=said) as told:
        listed(own)
    assert "\n" not in str(told.value)


def test_other_tables_in_the_folder_are_in_nobodys_way(own: Path) -> None:
    there = listed(own)
    (own / "notes.csv").write_text("uuid,comment\na,speaker_id is a number\n")
    with (own / "landmarks.csv").open("wb") as file:
        file.truncate(TABLE_BYTES + 1)
    assert listed(own) == there


def test_pickles_are_not_read_and_the_line_says_what_is(own: Path) -> None:
    for path in (own / "recons").iterdir():
        path.rename(path.with_suffix(".bin"))
    with pytest.raises(UsageError, match=r"NAME\.mat of Deep3DFaceRecon.*pickles, which are never read"):
        listed(own)


def test_clips_that_share_their_sound_are_conversations_of_their_own(corpus: Path, own: Path) -> None:
    edit(own / "RLD_data.csv", ROW, f"{ROW}\n{ROW.replace('film0_l', 'film1_l').replace('100', '101')}")
    found = listed(own)
    assert {"film0_1_7 film0_s film0_l", "film0_1_7 film0_s film1_l"} < set(found)
    assert found["film0_1_7 film0_s film0_l"].id == listed(corpus)["film0_1_7"].id, "the clip is the same one"


def test_files_that_no_table_names_and_names_of_two_files_are_told(own: Path) -> None:
    write_mat(own / "old" / "stray.mat", coefficients(90, 0))
    write_mat(own / "old" / "film0_s.mat", coefficients(90, 0))
    assert amiss(own) == {
        "old/stray.mat": "no table names it",
        "film0_1_7": "RLD_data.csv row 1: 2 files are called film0_s.mat: old/film0_s.mat, recons/film0_s.mat",
    }


@pytest.mark.slow
def test_what_is_missing_or_does_not_fit_is_told_and_the_rest_is_kept(own: Path, tmp_path: Path) -> None:
    (own / "audios" / "film0_1_7.wav").unlink()
    (own / "recons" / "film1_l.mat").unlink()
    summary = imported(own, tmp_path / "first", "vico")
    assert (summary.kept, summary.one_sided, summary.rejected) == (2, 1, {"no_audio": 1})
    (told,) = read_left_out(str(tmp_path / "first"))
    assert (told["item"], told["detail"]) == ("film0_1_7", "no voice of 0")

    coeff = coefficients(SECONDS * RATE, 0)
    coeff[7, 225] = np.nan
    write_mat(own / "recons" / "film1_s.mat", coeff)
    summary = imported(own, tmp_path / "first", "vico")
    assert summary.rejected == {"no_audio": 1, "unreadable": 1}
    assert {told["detail"] for told in read_left_out(str(tmp_path / "first"))} == {
        "no voice of 0",
        "film1_s.mat: pose has 1 of 540 numbers that are not finite",
    }
    assert imported(own, tmp_path / "first", "vico").processed == 0


@pytest.mark.slow
def test_frames_that_fit_no_rate_are_told(own: Path, tmp_path: Path) -> None:
    whole = coefficients(SECONDS * RATE, 0)
    for number, frames in enumerate((100, 0)):
        write_mat(own / "recons" / f"film{number}_l.mat", whole[:frames])
    assert imported(own, tmp_path / "run", "vico").rejected == {"unreadable": 2}
    assert sorted(told["detail"] for told in read_left_out(str(tmp_path / "run"))) == [
        "film0_l.mat: 100 frames beside 6.00 s of sound fit no rate",
        "film1_l.mat: 0 frames beside 6.00 s of sound fit no rate",
    ]


NAMES = ["film0_1_7", "film0_l", "film0_s", "../film0_s", "/etc/passwd", "0", "nan", "recons/film0_l", "x" * 600]
CELL = st.text(st.sampled_from('film0_ls/.\\,;"\n\r\t é\0-:~$'), max_size=12) | st.sampled_from(NAMES)


@pytest.mark.slow
@given(st.lists(st.lists(CELL, min_size=6, max_size=6), min_size=1, max_size=4), st.booleans())
def test_no_table_leads_out_of_its_folder_or_ends_in_more_than_a_line(
    corpus: Path, tmp_path: Path, rows: list[list[str]], quoted: bool
) -> None:
    """What a row names is a file of the folder, and every row is listed or is one with another."""
    folder = tmp_path / "vico"
    if not folder.exists():
        shutil.copytree(corpus, folder)
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerow(["audio", "listener", "speaker", "listener_id", "speaker_id", "data_split"])
    writer.writerows(rows)
    (folder / "RLD_data.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    found, said = list[Recorded](), ""
    try:
        found = list_corpus("vico", str(folder))
    except UsageError as error:
        said = str(error)
    assert "\n" not in said
    inside = {path.as_uri() for path in folder.rglob("*.*")} | {""}
    assert {uri for each in found for person in each.people for uri in (person.motion, person.sound)} <= inside
    assert len({each.id for each in found}) == len(found)
    assert all(each.amiss or len({person.name for person in each.people}) == 2 for each in found)

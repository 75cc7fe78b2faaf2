"""Crops and landmarks of a build, read back as the trainers of renderers read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.e2e.conftest import Built
from tests.e2e.test_last_lines import LAST
from tests.pipeline.test_cli import visavis
from visavis.pipeline.cli.export_crops import export_crops
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.outputs import Outputs, splits_in
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.artifact import dump_rows, load_rows
from visavis.schemas.config import FacesConfig
from visavis.schemas.face_rows import FaceTracks, Track
from visavis.schemas.rows import Conversation
from visavis.schemas.sample import decode_audio
from visavis.stages.faces import tracker_of
from visavis.stages.ingest import IngestStage
from visavis.stages.separate import SeparateStage
from visavis.training.dataset import Dataset

pytestmark = pytest.mark.slow
Say = Callable[..., tuple[int, str, str]]


class Clip(NamedTuple):
    """What a loader holds of a video: its pictures in the order of their numbers, and 68 points in pixels for each."""

    name: str
    pictures: list[Path]
    points_TP2: np.ndarray


def load(root: Path) -> list[Clip]:
    """A split as `renderer/dataset.py` of IMTalker finds it: every folder of pictures that has landmarks and more than
    25 pictures; pictures by number, landmarks by their lines as text.
    """
    clips = []
    for folder in sorted(path for path in (root / "video_frame").iterdir() if path.is_dir()):
        pictures = sorted(folder.iterdir(), key=lambda path: int(path.stem.rpartition("_")[2]))
        lines = root / "lmd" / f"{folder.name}.txt"
        if len(pictures) <= 25 or not lines.is_file():
            continue
        rows = [line.split() for line in sorted(lines.read_text().splitlines(keepends=True))]
        assert [row[0] for row in rows] == [picture.name for picture in pictures]
        points_TP2 = np.array([[[int(n) for n in pair.split("_")] for pair in row[1:]] for row in rows])
        assert points_TP2.shape == (len(pictures), 68, 2)
        clips.append(Clip(folder.name, pictures, points_TP2))
    return clips


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file but the account of the export."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent != folder)
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    return lambda *words: visavis(capsys, monkeypatch, *map(str, words))


@pytest.fixture(scope="module")
def exported(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the session's build, which is not changed."""
    out = tmp_path_factory.mktemp("crops") / "out"
    export_crops(str(built[0]), str(out), Reporter(), limit=None, smallest=0, addresses=[])
    return out


def test_a_loader_finds_both_people_of_every_conversation_in_the_splits_of_the_dataset(
    exported: Path, built: Built
) -> None:
    splits = dict(splits_in(Dataset(str(built[0] / "dataset"))))
    found = {split: load(exported / split) for split in ("train", "val")}
    for split, clips in found.items():
        assert {clip.name[:16] for clip in clips} == {id_ for id_, wanted in splits.items() if wanted == split}
    every = [clip for clips in found.values() for clip in clips]
    assert {clip.name[:18] for clip in every} == {f"{id_}_{person}" for id_ in splits for person in (0, 1)}
    for clip in every:
        picture = Image.open(clip.pictures[-1])
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (512, 512), "RGB")
        assert clip.points_TP2.min() >= 0
        assert clip.points_TP2.max() < 512
    lines = [json.loads(line) for line in (exported / "clips.jsonl").read_text().splitlines()]
    assert {(line["video"], line["split"], line["frames"]) for line in lines} == {
        (clip.name, split, len(clip.pictures)) for split, clips in found.items() for clip in clips
    }
    assert sum(line["frames"] for line in lines) > 0.9 * 2 * 2 * 250  # nearly all of two people in two films of 10 s


def test_a_tracker_finds_the_same_points_in_the_crops(exported: Path) -> None:
    tracker = tracker_of(FacesConfig())
    for clip in [*load(exported / "train")[:1], *load(exported / "val")[:1]]:
        off = []
        for t in range(0, 60, 6):
            rgb_HW3 = np.array(Image.open(clip.pictures[t]))
            (face_L3,) = tracker.landmarks(rgb_HW3, new_shot=True)
            points_L2 = face_L3[:, :2] * 512
            found = [points_L2[[33, 133]].mean(0), points_L2[[362, 263]].mean(0), points_L2[13], points_L2[152]]
            given = clip.points_TP2[t]
            told = [given[[36, 39]].mean(0), given[[42, 45]].mean(0), given[62], given[8]]
            off.append(np.linalg.norm(np.array(found) - np.array(told), axis=1))
        assert np.median(off, axis=0).max() < 4  # pixels of 512


def test_the_voice_beside_a_video_is_what_its_person_says_meanwhile(exported: Path, built: Built) -> None:
    made = Outputs(str(built[0]))
    for line in map(json.loads, (exported / "clips.jsonl").read_text().splitlines()):
        ((_, voices),) = made.read(SeparateStage, line["conversation"])
        audio_N, rate = soundfile.read(exported / line["split"] / "wav" / f"{line['video']}.wav", dtype="float32")
        assert (rate, len(audio_N)) == (SAMPLE_RATE, line["frames"] * SAMPLES_PER_FRAME)
        whole_N = decode_audio(voices.audio[int(line["video"].split("_")[1])].tobytes())
        begin = line["first"] * SAMPLES_PER_FRAME
        np.testing.assert_allclose(audio_N, whole_N[begin : begin + len(audio_N)], atol=1e-4)


def test_what_is_whole_is_not_made_again_and_the_rest_is_as_before(
    exported: Path, built: Built, tmp_path: Path, say: Say
) -> None:
    out = shutil.copytree(exported, tmp_path / "out")
    before = state_of(out)
    torn = {clip.name: clip for split in ("train", "val") for clip in load(out / split) if "_0_" in clip.name}
    for name, clip in torn.items():  # killed before they were whole …
        root = clip.pictures[0].parents[2]
        (root / "lmd" / f"{name}.txt").unlink()
        clip.pictures[3].write_bytes(b"torn")
        (out / ".unfinished" / name).mkdir(parents=True)
        assert name not in [each.name for each in load(root)]  # … so no loader takes them
    code, printed, _ = say("export", built[0], "--layout", "imtalker", "-o", out, "--json")
    found = json.loads(printed)
    assert (code, found["cached"], found["failed"]) == (0, sum(found["videos"].values()) - len(torn), {})
    after = state_of(out)
    assert {name: content for name, (content, _) in after.items()} == {name: each[0] for name, each in before.items()}
    made = {name for name in after if after[name] != before[name]}
    assert made == {name for name in after if Path(name).stem in torn or Path(name).parent.name in torn}
    assert (out / "clips.jsonl").read_bytes() == (exported / "clips.jsonl").read_bytes()
    code, _, _ = say("export", built[0], "--layout", "imtalker", "-o", out, "--limit", 1)
    assert code == 0
    assert (out / "clips.jsonl").read_bytes() == (exported / "clips.jsonl").read_bytes(), "the others are there, too"
    (out / "train" / "video_frame").rename(tmp_path / "elsewhere")
    (out / "train" / "video_frame").symlink_to(tmp_path / "elsewhere")
    code, _, told = say("export", built[0], "--layout", "imtalker", "-o", out)
    assert (code, "train/video_frame is a link" in told) == (2, True), told


def test_a_film_that_is_gone_is_told_in_a_line_and_the_others_are_exported(
    built: Built, tmp_path: Path, say: Say
) -> None:
    run, (key, *_) = _moved(built, tmp_path, lambda uri: f"{uri}.gone")
    code, printed, told = say("export", run, "--layout", "imtalker", "-o", tmp_path / "out", "--json")
    found = json.loads(printed)
    (why,) = found["failed"].values()
    assert code == 1
    assert ".mp4.gone" in why
    assert [line for line in told.splitlines() if key in line and why in line]
    assert sum(found["videos"].values()) >= 2
    again, _, _ = say(
        "export", built[0], "--layout", "imtalker", "-o", tmp_path / "out"
    )  # it is back: the rest follows
    assert again == 0
    assert len({clip.name[:16] for split in ("train", "val") for clip in load(tmp_path / "out" / split)}) == 2


def test_a_film_elsewhere_is_opened_only_where_its_address_is_given(built: Built, tmp_path: Path, say: Say) -> None:
    run, _ = _moved(built, tmp_path, lambda uri: "https://films.invalid/a.mp4?sig=…")
    code, _, told = say("export", run, "--layout", "imtalker", "-o", tmp_path / "out")
    assert (code, "name the whole address with --media" in told) == (2, True)
    assert not (tmp_path / "out").exists()


def test_small_faces_are_left_out_by_size_and_counted(built: Built, tmp_path: Path, say: Say) -> None:
    few = ("--limit", 1, "--min-side", 5000)
    code, printed, told = say("export", built[0], "--layout", "imtalker", "-o", tmp_path / "out", *few)
    assert code == 0
    assert "0 videos, 0 s" in printed
    assert "stretches left out: 2 small" in printed
    assert LAST.fullmatch(told.splitlines()[-1])
    assert "0 videos exported" in told
    assert not (tmp_path / "out" / "train").exists()


def test_what_cannot_be_exported_is_said_before_anything_is_written(
    exported: Path, built: Built, tmp_path: Path, say: Say
) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "run.json").write_text('{"config": {}, "fingerprints": {"recorded_dyad": "0123456789ab"}}')
    for words, message in (
        ((built[0] / "dataset", "--layout", "imtalker"), "not a run's folder"),
        ((tmp_path / "import", "--layout", "imtalker"), "is no run of `visavis build`"),
        ((built[0], "--layout", "imtalker", "-o", "s3://bucket/crops"), "a disk of this machine"),
        ((built[0], "--layout", "imtalker", "-o", built[0]), "name another --out"),
        ((built[0], "--layout", "imtalker", "-o", exported, "--min-side", 20), "name another --out"),
        ((built[0], "--layout", "dualtalk", "--limit", 1), "--limit does not go with --layout dualtalk"),
        ((built[0], "--layout", "mocap"), "parquet, dualtalk, unils or imtalker"),
    ):
        code, _, told = say("export", *words)
        assert (code, message in told) == (2, True), told


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda row: row.model_copy(update={"width": row.width + 2}), "faces of another size"),
        (lambda row: row.model_copy(update={"tracks": ()}), "does not fit together"),
        (lambda row: row.model_copy(update={"tracks": tuple(map(_without_numbers, row.tracks))}), "not finite"),
    ],
    ids=["another size", "no tracks", "no numbers"],
)
def test_faces_that_do_not_fit_the_film_are_told_and_not_cut(
    built: Built, tmp_path: Path, say: Say, damage: Callable[[FaceTracks], FaceTracks], why: str
) -> None:
    run = shutil.copytree(built[0], tmp_path / "run")
    id_ = next(talk.id for _, talk in Outputs(str(run)).read(IngestStage))  # that `--limit 1` takes
    path = sorted((run / "artifacts" / "faces").glob(f"*/{id_}-*.safetensors"))[0]
    path.write_bytes(dump_rows([damage(row) for row in load_rows(path.read_bytes(), FaceTracks)]))
    code, printed, told = say("export", run, "--layout", "imtalker", "-o", tmp_path / "out", "--limit", 1, "--json")
    assert code == 1
    assert why in json.loads(printed)["failed"][id_]
    assert id_ in told
    assert not list((tmp_path / "out").rglob("*.jpg"))


def _without_numbers(track: Track) -> Track:
    return track.model_copy(update={"landmarks": np.full_like(track.landmarks, np.nan)})


def _moved(built: Built, tmp_path: Path, move: Callable[[str], str]) -> tuple[Path, list[str]]:
    """The run as if the film of one conversation lay elsewhere, and that conversation."""
    run = shutil.copytree(built[0], tmp_path / "run")
    path = sorted((run / "artifacts" / "ingest").glob("*/*.safetensors"))[0]
    (talk,) = load_rows(path.read_bytes(), Conversation)
    media = tuple(each.model_copy(update={"uri": move(each.uri)}) for each in talk.media)
    path.write_bytes(dump_rows([talk.model_copy(update={"media": media})]))
    return run, [talk.id]

"""`visavis doctor` of a run, a dataset and a folder of videos, as people and scripts see it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.injections import INJECTIONS, Talk, write_run
from benchmarks.listeners import REAL
from benchmarks.reactive import Corpus, write_corpus
from tests.conftest import Once
from tests.pipeline.corpora import write_corpus as write_ledger
from tests.pipeline.test_cli import visavis
from tests.pipeline.test_report_page import page_data, write
from tests.stages.clapper import ffmpeg
from visavis.pipeline.page.report_find import Found
from visavis.pipeline.plan import doctor_run
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.artifact import dump_rows, load_row
from visavis.schemas.voice_rows import Voices
from visavis.stages.doctor.findings import Diagnosis, Findings, Item
from visavis.stages.doctor.kinds import Kind

CORPUS = Corpus(train=8, val=2, seconds=30, seed=6)
SOUND = "anoisesrc=duration=12:amplitude=0.1:seed="

Capture, Patch = pytest.CaptureFixture[str], pytest.MonkeyPatch


@pytest.fixture
def talks() -> list[Talk]:
    return [Talk.made(CORPUS, REAL, number) for number in range(6)]


def findings(out: str) -> dict[str, list[str]]:
    """The names of items by kind."""
    return {each["kind"]: [item["name"] for item in each["items"]] for each in json.loads(out)["findings"]}


@pytest.mark.slow
def test_a_run_is_examined_and_the_findings_are_kept_for_its_page(
    talks: list[Talk], tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    INJECTIONS[Kind.CLIPPED](talks[3], np.random.default_rng(0), talks[0])
    write_run(root := tmp_path / "run", talks)
    code, out, err = visavis(capsys, monkeypatch, "doctor", str(root))
    assert (code, "clipped sound" in out, "c000003.mp4" in out) == (1, True, True)
    assert "1 finding; looked at 6 conversations, 12 people" in err
    code, out, _ = visavis(capsys, monkeypatch, "doctor", str(root), "--json")
    assert (code, findings(out)) == (1, {"clipped": ["c000003.mp4"]})
    kept = json.loads((root / "doctor.json").read_text())
    assert kept["findings"] == json.loads(out)["findings"]


@pytest.mark.slow
def test_an_artifact_that_cannot_be_read_is_a_finding_and_costs_nothing_else(
    talks: list[Talk], tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    write_run(root := tmp_path / "run", talks)
    (voices,) = root.glob("artifacts/separate/*/c000002.safetensors")
    voices.write_bytes(voices.read_bytes()[:1000])
    (root / "doctor.json").mkdir()
    code, out, err = visavis(capsys, monkeypatch, "doctor", str(root), "--json")
    assert "doctor.json could not be written" in err
    assert (code, findings(out)) == (1, {"unreadable": ["c000002.mp4"]})
    assert json.loads(out)["looked_at"]["conversations"] == 5


@pytest.mark.slow
def test_a_conversation_that_breaks_off_is_told_once_and_not_judged_by_its_beginning(
    talks: list[Talk], tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(doctor_run, "_MINUTE", 5 * FPS)
    talks[2].audio[0][:] = 0  # for which it would be told, too
    write_run(root := tmp_path / "run", talks)
    (path,) = root.glob("artifacts/separate/*/c000002.safetensors")
    row = load_row(path.read_bytes(), Voices)
    broken = (row.audio[0], row.audio[1][: len(row.audio[1]) * 2 // 3])
    path.write_bytes(dump_rows([row.model_copy(update={"audio": broken})]))
    code, out, _ = visavis(capsys, monkeypatch, "doctor", str(root), "--json")
    assert (code, findings(out)) == (1, {"unreadable": ["c000002.mp4"]})
    assert json.loads(out)["looked_at"]["conversations"] == 5


@pytest.mark.slow
def test_a_dataset_alone_is_examined_by_its_windows(tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    write_corpus(tmp_path / "data", CORPUS, REAL)
    code, out, _ = visavis(capsys, monkeypatch, "doctor", str(tmp_path / "data"), "--json")
    found = json.loads(out)
    assert (code, found["findings"], found["ill"]) == (0, [], False)
    assert found["looked_at"] == {"conversations": 10, "people": 20}
    assert any("name the run" in line for line in found["unknown"])


@pytest.mark.slow
def test_a_conversation_that_is_there_twice_is_told_with_the_one_that_stays(
    talks: list[Talk], tmp_path: Path, capsys: Capture, monkeypatch: Patch
) -> None:
    """Its tracks are swapped, one is louder, and both begin two seconds later."""
    first = 2 * SAMPLE_RATE
    talks[4].audio = [np.roll(talks[2].audio[1], -first), 3 * np.roll(talks[2].audio[0], -first)]
    write_run(root := tmp_path / "run", talks)
    code, out, _ = visavis(capsys, monkeypatch, "doctor", str(root), "--json")
    (finding,) = [each for each in json.loads(out)["findings"] if each["kind"] == "near_duplicate"]
    (item,) = finding["items"]
    assert (code, item["id"], item["kept"]) == (1, "c000004", "c000002")
    assert "are the sound of c000002.mp4, from 2.0 s on, at 1.000 times its speed" in item["detail"]


def make_copies(folder: Path) -> None:
    """A film, and what somebody made of it: cropped, enlarged, cut at both ends, with fewer bits; and another film."""
    for name, seed in (("film", 5), ("other", 6)):
        loud = f"{SOUND}{seed}".replace("duration=12", "duration=16") + ",tremolo=f=2:d=0.9"
        moving = "testsrc2=size=320x240:rate=25:duration=16"
        ffmpeg("-f", "lavfi", "-i", f"{moving},hue=h={9 * seed}", "-f", "lavfi", "-i", loud, folder / f"{name}.mp4")
    cut = ("-ss", "2", "-t", "12", "-i", folder / "film.mp4", "-vf", "crop=240:180,scale=480:360")
    ffmpeg(*cut, "-c:a", "libmp3lame", "-b:a", "48k", folder / "copy.mkv")


@pytest.mark.slow
def test_a_film_that_was_edited_is_told_before_a_build(
    tmp_path: Path, once: Once, capsys: Capture, monkeypatch: Patch
) -> None:
    videos = once("copies", make_copies)
    _, out, _ = visavis(capsys, monkeypatch, "doctor", str(videos), "--json")
    assert findings(out)["near_duplicate"] == ["copy.mkv"]
    assert "film.mp4, from 2.0 s on" in out


def make_videos(folder: Path) -> None:
    """One sound pair; one video that stands still; one with mirrored halves, whose right channel is dead; text."""
    moving = "testsrc2=size=240x240:rate=25:duration=12"
    for name, seed in (("ann", 1), ("ben", 2)):
        noise = f"{SOUND}{seed}"
        ffmpeg("-f", "lavfi", "-i", f"{moving},hue=h={90 * seed}", "-f", "lavfi", "-i", noise, folder / f"{name}.mp4")
    still = ("-f", "lavfi", "-i", "color=gray:size=320x240:rate=25:duration=12", "-f", "lavfi", "-i", f"{SOUND}3")
    ffmpeg(*still, folder / "still.mp4")
    halves = "[0:v]split[a][b];[b]hflip[c];[a][c]hstack[v];[1:a]pan=stereo|c0=c0|c1=0*c0[s]"
    both = ("-f", "lavfi", "-i", moving, "-f", "lavfi", "-i", f"{SOUND}4", "-filter_complex", halves)
    ffmpeg(*both, "-map", "[v]", "-map", "[s]", folder / "halves.mp4")
    (folder / "text.mp4").write_text("no video\n")


@pytest.mark.slow
def test_videos_are_examined_before_a_build(tmp_path: Path, once: Once, capsys: Capture, monkeypatch: Patch) -> None:
    videos = once("doctor", make_videos)
    rows = ["uri,conversation,participant", f"{videos}/ann.mp4,one,ann", f"{videos}/ben.mp4,one,ben"]
    rows += [f"{videos}/{name}.mp4,," for name in ("still", "halves", "text")] + [f"{videos}/ann.mp4,two,ann"]
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    code, out, _ = visavis(capsys, monkeypatch, "doctor", str(tmp_path / "list.csv"), "--json")
    found = findings(out)
    assert code == 1
    assert found.pop("missing_partner") == ["ann.mp4"]
    assert found.pop("unreadable") == ["text.mp4"]
    assert found.pop("frozen") == ["still.mp4"]
    assert found.pop("mirrored") == ["halves.mp4"]
    assert "halves.mp4" in found.pop("dead_track")
    assert "participant 1" not in out, "one mix has no second track to be told of"
    assert json.loads(out)["looked_at"] == {"conversations": 5, "people": 2}


def test_what_is_no_corpus_is_told_in_one_line(tmp_path: Path, capsys: Capture, monkeypatch: Patch) -> None:
    code, _, err = visavis(capsys, monkeypatch, "doctor", str(tmp_path / "nothing.csv"))
    assert code == 2
    assert len(err.strip().splitlines()) == 1


def test_findings_are_shown_on_the_page_of_their_run(tmp_path: Path) -> None:
    """As text, whatever names say; and a file that is none costs the page nothing else."""
    write_ledger(root := tmp_path / "run", 3)
    item = Item(id="c1", name="</script><b>a.mp4", detail="ann: 2 % of the samples", certainty=0.9)
    found = Findings()
    found.put(Kind.CLIPPED, item)
    looked = {"conversations": 3, "people": 6}
    diagnosis = Diagnosis(corpus="run", looked_at=looked, findings=tuple(found.all(3)))
    (root / "doctor.json").write_text(diagnosis.model_dump_json())
    data = page_data(page_of(root, tmp_path / "page"))
    assert data["doctor"]["findings"][0]["items"][0]["name"] == item.name
    assert "<b>a.mp4" not in (tmp_path / "page" / "index.html").read_text()
    (root / "doctor.json").write_text('{"corpus": 3}')
    data = page_data(page_of(root, tmp_path / "other"))
    assert data["doctor"] is None
    assert any("doctor.json" in note for note in data["notes"])


def page_of(root: Path, out: Path) -> Path:
    write(Found("run", build=str(root)), out)
    return out

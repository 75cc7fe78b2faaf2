"""`visavis doctor` of a run that keeps faceprints and transcripts: who is who by face, and languages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.injections import Talk, write_run
from benchmarks.listeners import REAL
from benchmarks.reactive import Corpus
from tests.pipeline.test_cli import visavis
from visavis.pipeline.state.tasks import artifact_path
from visavis.schemas.artifact import dump_rows
from visavis.schemas.print_rows import Faceprints
from visavis.schemas.voice_rows import Transcript, Word
from visavis.stages.doctor import languages
from visavis.stages.doctor.findings import Findings
from visavis.stages.doctor.kinds import Kind
from visavis.stages.faceprints import FaceprintsStage
from visavis.stages.transcribe import TranscribeStage

TALKS = 12
CORPUS = Corpus(train=TALKS, val=0, seconds=20, seed=6)
WORDS = (Word(speaker=0, turn=0, start=0.0, end=0.5, text="well"),)


def keep_faces_and_words(root: Path, talks: list[Talk], strangers: np.ndarray) -> None:
    """Of each conversation two strangers, but the first of the sixth is the first of the second; the last is German."""
    settings = json.loads((root / "run.json").read_text())
    (print_,) = set(settings["fingerprints"].values())
    settings["fingerprints"] |= {stage.name: print_ for stage in (FaceprintsStage, TranscribeStage)}
    settings["config"]["split"] = {"people": "names"}
    (root / "run.json").write_text(json.dumps(settings))
    for number, talk in enumerate(talks):
        id_ = talk.dyad.conversation
        prints = strangers[2 * number : 2 * number + 2].copy()
        if number == 5:
            prints[0] = strangers[2]
        seen = Faceprints(conversation=id_, prints=prints.astype(np.float16), pictures=(12, 12), agreement=(0.9, 0.88))
        spoken = "de" if number == TALKS - 1 else "en"
        said = Transcript(conversation=id_, language=spoken, aligned=True, words=WORDS if number else ())
        for stage, row in ((FaceprintsStage, seen), (TranscribeStage, said)):
            place = root / artifact_path(stage.name, stage.version, print_, id_)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(dump_rows([row]))


@pytest.mark.slow
def test_faces_and_languages_of_a_run_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    talks = [Talk.made(CORPUS, REAL, number) for number in range(TALKS)]
    write_run(root := tmp_path / "run", talks)
    strangers = np.random.default_rng(1).standard_normal((2 * TALKS, 64))
    strangers /= np.linalg.norm(strangers, axis=1, keepdims=True)
    keep_faces_and_words(root, talks, strangers)
    _, out, _ = visavis(capsys, monkeypatch, "doctor", str(root), "--json")
    told = json.loads(out)
    found = {each["kind"]: each for each in told["findings"]}
    assert set(found) == {"several_names", "other_language"}
    assert [item["detail"] for item in found["several_names"]["items"]] == ["one face in c000001.mp4, c000005.mp4"]
    assert [item["name"] for item in found["other_language"]["items"]] == [f"c{TALKS - 1:06d}.mp4"]
    assert told["looked_at"]["people by face"] == 2 * TALKS - 1
    assert "languages: en 90.9% (10), de 9.1% (1)" in told["notes"]
    assert any(note.startswith("faces: partners are alike by") for note in told["notes"])
    code, out, _ = visavis(capsys, monkeypatch, "doctor", str(root))
    assert (code, "languages: en 90.9% (10), de 9.1% (1)" in out) == (0, True)


@pytest.mark.parametrize(("others", "named"), [(1, 1), (2, 2), (3, 0)])
def test_a_language_is_looked_at_where_nearly_all_are_in_another(others: int, named: int) -> None:
    findings = Findings()
    spoken = {"en": [(f"e{n}", "") for n in range(20 - others)], "fr": [(f"f{n}", f"f{n}.mp4") for n in range(others)]}
    assert languages.judge(spoken, findings).startswith(f"languages: en {(20 - others) / 20:.1%} ({20 - others}), fr")
    found = {each.kind: each for each in findings.all(20)}
    assert set(found) == ({Kind.OTHER_LANGUAGE} if named else set())
    if named:
        ((_, finding),) = found.items()
        assert (finding.severity, finding.count, finding.items[0].name) == ("look", named, "f0.mp4")


def test_transcripts_without_a_word_have_no_language() -> None:
    assert "no conversation has a word" in languages.judge({}, Findings())

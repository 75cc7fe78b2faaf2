"""From video to shards: the truth comes back, nothing is done twice, and bytes never change."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from tests.e2e.conftest import SECONDS, SMALL, Built, build, sources_of
from visavis.pipeline.cli.draw import draw, save_sheet
from visavis.pipeline.cli.status import read_status, status_tables
from visavis.pipeline.cli.verify import verify_dataset
from visavis.pipeline.demo.truth import check_build
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.outputs import read_outputs
from visavis.pipeline.plan.preview import preview
from visavis.pipeline.plan.replay import replay
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.config import BuildConfig, RunConfig
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.rows import Source
from visavis.schemas.storage.store import TEMPORARY
from visavis.stages.bind import BindStage
from visavis.stages.cast import CastStage
from visavis.training.dataset import Dataset

pytestmark = pytest.mark.slow


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_truth_comes_back(built: Built, dialogues: Path) -> None:
    apart, together = check_build(str(built[0]), dialogues)
    assert (apart.layout, together.layout) == ("per_participant", "one_frame")
    for check in (apart, together):
        assert check.der <= 0.05
        assert check.turn_error <= 0.1
        assert check.bound == 1.0
        assert check.pitch >= 0.9
    # The same dialogue, filmed in one frame or with a camera each, has the same turns.
    assert [t.speaker for t in apart.turns] == [t.speaker for t in together.turns]
    for one, other in zip(apart.turns, together.turns, strict=True):
        assert abs(one.start - other.start) <= 0.1
        assert abs(one.end - other.end) <= 0.1


def test_the_dataset_is_sound_and_uses_every_dyad_both_ways(built: Built) -> None:
    summary = built[1]
    assert verify_dataset(summary.dataset) == []
    data = Dataset(summary.dataset)
    samples = [s for split in ("train", "val") for s in data.samples(split)]  # type: ignore[arg-type]
    assert len(samples) == summary.samples
    roles = {(s.meta.conversation, s.meta.avatar) for s in samples}
    assert len(roles) == 4  # two conversations, both people as the avatar
    people = {split: {s.meta.avatar for s in data.samples(split)} for split in ("train", "val")}  # type: ignore[arg-type]
    assert people["train"]
    assert people["val"]
    assert not people["train"] & people["val"]
    listening = [s for s in samples if s.meta.label == "listening"]
    for sample in listening:  # a listener's own track is silent, the user's is not
        assert (sample.avatar_audio**2).mean() < (sample.user_audio**2).mean()
    methods = {s.meta.avatar_voice.method for s in samples if s.meta.avatar_voice and s.meta.user_voice}
    assert methods == {"own_track", "mask"}
    for sample in samples:  # the demo's own tracks hold no other voice, and in its mixes little overlaps
        voice = sample.meta.avatar_voice
        assert voice
        assert voice.residual_db is not None
        assert None not in (voice.level_db, voice.clipped, voice.bandwidth_hz, voice.snr_db)
        assert voice.residual_db <= (-60 if voice.method == "own_track" else -3)


def test_run_twice_the_second_processes_nothing(built: Built, dialogues: Path) -> None:
    before = files(built[0] / "dataset")
    again = build(dialogues, built[0])
    assert again.processed == 0
    assert files(built[0] / "dataset") == before


def test_a_deleted_artifact_is_redone_and_nothing_beside_it(built: Built, dialogues: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(built[0], root)
    expected = files(root / "dataset")
    (victim, *_) = sorted((root / "artifacts" / "faces").rglob("*.safetensors"))
    victim.unlink()
    again = build(dialogues, root)
    assert again.processed == 1  # it came out the same, so what depends on it stands
    assert victim.exists()
    assert files(root / "dataset") == expected

    min((root / "dataset" / "train").glob("listening-000000-*.tar")).unlink()
    again = build(dialogues, root)
    assert again.processed == 1
    assert files(root / "dataset") == expected


def test_the_same_content_under_another_name_is_one_conversation(built: Built, dialogues: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(built[0], root)
    twin = shutil.copy(dialogues / "together.mp4", tmp_path / "another name.mp4")

    def again(*sources: Source) -> BuildSummary:
        return Build(BuildConfig.model_validate(SMALL), str(root), local_engine, Reporter()).run(sources)

    listed = sources_of(dialogues)
    (copied,) = find_sources([str(twin)])
    summary = again(*listed, copied)
    assert summary.rejected == {"duplicate_content": 1}
    assert summary.kept == 2
    assert again(*listed, copied).processed == 0
    alone = again(copied, listed[1])  # the twin that is listed first counts
    assert alone.kept == 2
    assert alone.rejected == {}
    assert alone.processed == 1  # its row in the ledger; what was computed is of the content, not of the name
    assert files(root / "dataset") == files(built[0] / "dataset")


def test_a_fresh_run_on_ray_writes_the_same_bytes(
    built: Built, dialogues: Path, tmp_path: Path, ray_cluster: None
) -> None:
    summary = build(dialogues, tmp_path / "run", ray_engine(RunConfig()))
    assert summary.processed > 10
    assert files(tmp_path / "run" / "dataset") == files(built[0] / "dataset")
    assert not list(tmp_path.rglob(f"{TEMPORARY}*"))
    stages = read_status(str(tmp_path / "run"), "dataset")["stages"]
    before_codec = ["ingest", "diarize", "faces", "cast", "bind", "separate"]
    assert list(stages) == [*before_codec, "fit", "motion", "windows", "census", "shard"]
    assert all(row["ok"] and not row["failed"] and not row["rejected"] for row in stages.values())


@pytest.mark.nightly("a real film from end to end; its faces and voices have tests of their own")
def test_the_interview_has_two_people_with_a_voice_each(shared_media: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    sources = find_sources([str(shared_media / "conversation" / "interview.mp4")])
    summary = Build(BuildConfig(), root, local_engine, Reporter()).run(sources)
    ((_, binding),) = read_outputs(root, BindStage)
    host, guest = binding.participants
    assert min(host.visible, guest.visible) >= 0.98
    assert {host.speaker, guest.speaker} == {0, 1}
    avatars = {s.meta.avatar for s in Dataset(summary.dataset).samples("train")}
    assert avatars == {host.name, guest.name}


def test_one_stage_on_one_item_can_be_replayed_and_writes_nothing(
    built: Built, dialogues: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    shutil.copytree(built[0], root)
    before = sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))
    build = Build(BuildConfig.model_validate(SMALL), str(root), local_engine, Reporter())

    faces = replay(build, sources_of(dialogues), "faces", "together")
    assert (faces["ledger"], faces["rejected"]) == ("ok", None)
    assert faces["rows"][0]["tracks"][0]["landmarks"].endswith("478, 3]")
    motion = replay(build, sources_of(dialogues), "motion", "apart")
    assert motion["item"].endswith("participant 0")
    assert motion["rows"][0]["motion"] == f"float32 [{int(SECONDS * 25)}, 14]"
    with pytest.raises(UsageError, match=r"no item 'nobody' of bind; there are 2 items: .*together\.mp4"):
        replay(build, sources_of(dialogues), "bind", "nobody")
    with pytest.raises(UsageError, match="--only takes ingest"):
        replay(build, sources_of(dialogues), "shard", "together")
    assert sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*")) == before


def test_what_remains_is_known_without_doing_anything(built: Built, dialogues: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(built[0], root)

    def remaining(folder: Path = root, **config: object) -> dict[str, int]:
        recipe = BuildConfig.model_validate(SMALL | config)
        return dict(Build(recipe, str(folder), local_engine, Reporter()).remaining(sources_of(dialogues)))

    assert remaining() == {}
    assert remaining(bind={"min_margin": 0.06}) == {"bind": 2}
    assert remaining(separate={"fade": 0.05}) == {"separate": 2}
    assert remaining(quality={"min_face": 20.0}) == {}  # a threshold measures nothing
    next((root / "artifacts" / "diarize").rglob("*.safetensors")).unlink()
    assert remaining() == {"diarize": 1}
    assert remaining(tmp_path / "new") == {"ingest": 2}


def test_a_threshold_is_moved_without_measuring_again(built: Built, dialogues: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(built[0], root)
    casts = [cast for _, cast in read_outputs(str(root), CastStage)]
    between = sum(min(member.figures.sharpness for member in cast.members) for cast in casts) / 2

    def again(**quality: float) -> BuildSummary:
        config = BuildConfig.model_validate(SMALL | {"quality": quality})
        return Build(config, str(root), local_engine, Reporter()).run(sources_of(dialogues), reconfigure=True)

    def drops(**quality: float) -> dict[str, int]:
        config = BuildConfig.model_validate(SMALL | {"quality": quality})
        fingerprints = Build(config, str(root), local_engine, Reporter()).fingerprints
        found = preview(str(root), fingerprints, config.quality)
        assert found["measured"] == 2
        return {limit["setting"]: limit["drops"] for limit in found["limits"] if limit["drops"]}

    assert drops() == {}
    assert drops(min_sharpness=between, min_face=10_000) == {"min_sharpness": 1, "min_face": 2}
    assert drops(max_residual=-61) == {"max_residual": 2}  # the voices' figures, of a later stage
    stricter = again(min_sharpness=between)
    assert (stricter.kept, stricter.rejected) == (1, {"blurred": 1})
    with pytest.raises(RunFailed, match="blurred"):
        again(min_sharpness=10_000)
    with pytest.raises(RunFailed, match="other_voice"):
        again(max_residual=-61)
    before = read_status(str(root), "dataset")["stages"]["cast"]["seconds"]
    assert again().kept == 2
    assert read_status(str(root), "dataset")["stages"]["cast"]["seconds"] == before
    assert files(root / "dataset") == files(built[0] / "dataset")


def test_a_conversation_can_be_looked_at(built: Built, tmp_path: Path) -> None:
    root, out = str(built[0]), tmp_path / "sheet.png"
    sheet, name = draw(root, "apart", 3)
    assert name.startswith("apart_")
    assert sheet.shape[0] == 4 * 270  # two files, two people's motion
    orange = (sheet[:270] == (255, 140, 30)).all(axis=2)
    assert orange.any()  # the first participant's landmarks …
    assert not orange[:, : sheet.shape[1] // 12].any()  # … on the face
    save_sheet(sheet, out)
    assert out.read_bytes().startswith(b"\x89PNG")
    for item, path, message in (("nobody", out, "no such conversation"), ("apart", tmp_path / "x.gif", "png")):
        with pytest.raises(UsageError, match=message):
            save_sheet(draw(root, item, 1)[0], path)


def test_the_account_has_times_memory_and_pace(built: Built) -> None:
    status = read_status(str(built[0]), "dataset")
    assert status["running"] is None
    assert status["progress"] is None
    faces = status["stages"]["faces"]
    assert faces["ok"] == 3
    assert (
        0 < faces["seconds_per_item"]["median"] <= faces["seconds_per_item"]["p95"] <= faces["seconds_per_item"]["max"]
    )
    assert faces["peak_mb"]["max"] > 100
    assert faces["items_per_second"] > 0
    assert faces["media_hours_per_hour"] > 0
    console = Console(file=io.StringIO(), width=80)
    for part in status_tables(status):
        console.print(part)
    assert "…" not in console.file.getvalue()  # type: ignore[attr-defined]  # fits a terminal of 80 columns

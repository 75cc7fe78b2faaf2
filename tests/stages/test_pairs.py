"""Pairs: the recorded motion against the model's own when it cannot perceive the user."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.training.conftest import small_model
from tests.training.encoders import BASE_LIKE, write_torchaudio
from tests.training.synthetic import CODEC, SPEC, write_dataset
from visavis.pipeline.app import main
from visavis.pipeline.cli.verify import verify_dataset
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.pairs import PairsSummary, build_pairs
from visavis.pipeline.plan.pairs_order import PairsRequest, plan_pairs
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.pairs import GateConfig, PairsConfig
from visavis.schemas.recipes import parse_config
from visavis.schemas.train import FeatureConfig, SamplerConfig, TrainConfig
from visavis.stages.pairing import reference_statistics
from visavis.stages.pairing.shortfall import shortfall_line
from visavis.training.checkpoint import Checkpoint, checkpoint_id, load_checkpoint, save_checkpoint
from visavis.training.dataset import Dataset
from visavis.training.encoder import load_encoder
from visavis.training.loader import collate
from visavis.training.model import Listener, build_model
from visavis.training.sampler import rollout

OPEN = GateConfig(min_reactivity_margin=-10, min_distance=0, max_jerk_ratio=1e9, max_off_manifold=1e9)
CONFIG = PairsConfig(sampler=SamplerConfig(steps=1, guidance="none"), gate=OPEN, unit=5, batch=2, device="cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(small_model(), tmp_path_factory.mktemp("model") / "checkpoint.safetensors")


def save_model(model: Listener, path: Path, motion: MotionSpec | None = None) -> Path:
    config = TrainConfig(model=model.config, features=model.features.config)
    weights, motion = model.state_dict(), motion or model.motion
    save_checkpoint(
        Checkpoint(config=config, motion=motion, manifest="0" * 64, step=1, model=weights, ema=weights, optimizer={}),
        path,
    )
    return path


def build(
    source: Path, checkpoint: Path, out: Path, config: PairsConfig = CONFIG, limit: int | None = None
) -> PairsSummary:
    request = PairsRequest(str(source), str(checkpoint), config, limit)
    return build_pairs(request, str(out), local_engine, Reporter(Console(file=io.StringIO())))


@pytest.mark.slow
def test_both_motions_of_every_listening_window(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    summary = build(source, checkpoint, tmp_path)
    windows = {s.key: s for s in Dataset(str(source)).samples("train", WindowClass.LISTENING)}
    pairs = Dataset(summary.dataset)
    found = {s.key: s for s in pairs.samples("train")}
    assert verify_dataset(summary.dataset) == []
    assert summary.tried == summary.kept == len(windows)
    assert set(found) == set(windows)
    assert max(e.samples for e in pairs.manifest.shards) <= CONFIG.unit
    for key, pair in found.items():
        assert pair.chosen is not None
        np.testing.assert_array_equal(pair.chosen, windows[key].avatar_motion)
        np.testing.assert_array_equal(pair.user_motion, windows[key].user_motion)
        assert pair.pair is not None
        assert (pair.pair.chosen, pair.pair.rejected) == ("ground_truth", "dropped")
        assert pair.pair.dropped == ("user_audio", "user_motion")
        assert pair.pair.generator == checkpoint_id(checkpoint)
        assert pair.pair.dataset == Dataset(str(source)).hash
        assert pair.pair.distance > 0
    assert pairs.manifest.pairs is not None
    assert pairs.manifest.pairs.kept == len(windows)
    assert pairs.manifest.plan.mixture[WindowClass.LISTENING] == 1


@pytest.mark.slow
def test_the_rejected_motion_does_not_know_the_user_and_shares_the_noise(
    source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """The rejected motion is what the same model makes of the same noise without its user, whoever the user was."""
    full = build(source, checkpoint, tmp_path, CONFIG.model_copy(update={"chosen": "full"}))
    pair = next(iter(Dataset(full.dataset).samples("train")))
    batch = collate([pair])
    model = small_model()
    other_user = -batch.user_motion
    for drop, side, user in (("no_user", pair.rejected, other_user), ("full", pair.chosen, batch.user_motion)):
        motion = rollout(
            model, batch.avatar_audio, batch.user_audio, user, batch.reference, CONFIG.sampler, [pair.key], drop  # type: ignore[arg-type]
        )  # fmt: skip
        assert side is not None
        np.testing.assert_allclose(motion[0].numpy(), side, atol=1e-4)


@pytest.mark.slow
def test_built_again_nothing_is_done_and_fresh_bytes_are_the_same(
    source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    first, again, fresh = (build(source, checkpoint, tmp_path / name) for name in ("a", "a", "b"))
    assert first.processed > 1
    assert again.processed == 0
    names = sorted(p.relative_to(first.dataset) for p in Path(first.dataset).rglob("*.*"))
    assert len(names) == first.processed + 1
    for name in names:
        assert (Path(first.dataset) / name).read_bytes() == (Path(fresh.dataset) / name).read_bytes()


@pytest.mark.slow
def test_the_manifest_says_how_far_the_generator_hears(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    """And pairs are made with the checkpoint's own encoder, wherever it lies now."""
    plain = Dataset(build(source, checkpoint, tmp_path / "plain", limit=2).dataset).manifest.pairs
    assert plain is not None
    assert (plain.audio.kind, plain.audio.horizon_ms) == ("log_mel", 0)

    weights = write_torchaudio(tmp_path / "weights.safetensors")
    features, encoder = load_encoder(
        FeatureConfig(kind="wav2vec2", weights=str(weights), architecture=BASE_LIKE, layers=(1,), chunk=5)
    )
    config = TrainConfig(model=small_model().config, features=features)
    model = build_model(config.model, config.features, SPEC, 0, encoder)
    state = model.state_dict()
    path = tmp_path / "encoded.safetensors"
    save_checkpoint(
        Checkpoint(config=config, motion=SPEC, manifest="0" * 64, step=1, model=state, ema=state, optimizer={}), path
    )
    moved = weights.rename(tmp_path / "moved.safetensors")
    with pytest.raises(UsageError, match=r"they lay at .*weights\.safetensors\); name the file"):
        build(source, path, tmp_path / "encoded", limit=2)
    assert not (tmp_path / "encoded").exists()
    there = CONFIG.model_copy(update={"encoder": str(moved)})
    made = Dataset(build(source, path, tmp_path / "encoded", there, limit=2).dataset).manifest.pairs
    assert made is not None
    assert made.audio == load_checkpoint(path).audio
    assert (made.audio.kind, made.audio.weights_sha256) == ("wav2vec2", features.weights_sha256)
    assert (made.audio.look_ahead_ms, made.audio.horizon_ms) == (80, (5 + 2 - 1 + 2) * 40)
    moved.rename(weights)
    back = CONFIG.model_copy(update={"encoder": str(weights)})
    assert build(source, path, tmp_path / "encoded", back, limit=2).processed == 0  # where it lies shapes nothing


@pytest.mark.slow
def test_another_checkpoint_is_not_mixed_in(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    build(source, checkpoint, tmp_path / "run")
    other = tmp_path / "other.safetensors"  # another file, another id
    save_checkpoint(replace(load_checkpoint(checkpoint), step=2), other)
    with pytest.raises(UsageError, match="was built with generator="):
        build(source, other, tmp_path / "run")


@pytest.mark.slow
def test_another_checkpoint_makes_the_rejected_motion(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Its motion under every condition, from the same noise; record and manifest have both digests."""
    other = save_model(small_model(seed=1), tmp_path / "other.safetensors")
    config = CONFIG.model_copy(update={"rejected": "checkpoint", "rejected_checkpoint": str(other), "chosen": "full"})
    made = Dataset(build(source, checkpoint, tmp_path / "run", config).dataset)
    pair = next(iter(made.samples("train")))
    batch = collate([pair])
    for seed, side in ((0, pair.chosen), (1, pair.rejected)):
        arguments = batch.avatar_audio, batch.user_audio, batch.user_motion, batch.reference
        motion = rollout(small_model(seed=seed), *arguments, CONFIG.sampler, [pair.key])
        assert side is not None
        np.testing.assert_allclose(motion[0].numpy(), side, atol=1e-4)
    digests = (checkpoint_id(checkpoint), checkpoint_id(other))
    for said in (pair.pair, made.manifest.pairs):
        assert said is not None
        assert (said.generator, said.rejected_generator, said.rejected, said.dropped) == (*digests, "checkpoint", ())
    moved = other.rename(tmp_path / "moved.safetensors")
    there = config.model_copy(update={"rejected_checkpoint": str(moved)})
    assert build(source, checkpoint, tmp_path / "run", there).processed == 0  # where it lies shapes nothing
    save_model(small_model(seed=2), moved)
    with pytest.raises(UsageError, match="was built with rejected_generator="):
        build(source, checkpoint, tmp_path / "run", there)


def test_a_checkpoint_that_does_not_fit_is_told_before_work_starts(
    source: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def refused(motion: MotionSpec, match: str) -> None:
        other = save_model(small_model(seed=1), tmp_path / "other.safetensors", motion)
        config = CONFIG.model_copy(update={"rejected": "checkpoint", "rejected_checkpoint": str(other)})
        with pytest.raises(UsageError, match=match):
            build(source, checkpoint, tmp_path / "run", config)
        assert not (tmp_path / "run").exists()

    refused(SPEC.model_copy(update={"codec": "other"}), "speaks codec other")
    refused(SPEC.model_copy(update={"expression": (7, 12)}), "other columns")
    same = CONFIG.model_copy(update={"rejected": "checkpoint", "rejected_checkpoint": str(checkpoint)})
    with pytest.raises(UsageError, match="say rejected=own"):
        build(source, checkpoint, tmp_path / "run", same)
    with pytest.raises(ValueError, match="drops nothing"):
        PairsConfig(rejected_conditions="full")
    with pytest.raises(UsageError, match=r"--set drop.*drop is now rejected_conditions"):
        parse_config("{}", PairsConfig, ["drop=none"])
    with pytest.raises(ValueError, match="come together"):
        PairsConfig(rejected="checkpoint")
    for other in ({"chosen": "full"}, {"rejected_conditions": "no_user"}):
        with pytest.raises(ValueError, match="against recorded motion"):
            PairsConfig.model_validate({"rejected": "own"} | other)


@pytest.mark.slow
def test_the_rejected_motion_can_be_what_the_model_does_with_its_user(
    source: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same motion as that of `chosen: full`, and the gate asks what it lacks."""
    monkeypatch.setattr(reference_statistics, "FEWEST", 2)
    some = CONFIG.model_copy(update={"classes": (WindowClass.OVERLAP,)})  # of both folds
    own = build(source, checkpoint, tmp_path / "own", some.model_copy(update={"rejected": "own"}))
    full = build(source, checkpoint, tmp_path / "full", some.model_copy(update={"chosen": "full"}))
    pairs = Dataset(own.dataset)
    made = {s.key: s for s in Dataset(full.dataset).samples("train")}
    for pair in pairs.samples("train"):
        assert pair.pair is not None
        assert (pair.pair.rejected, pair.pair.dropped) == ("own", ())
        assert pair.pair.generator == pair.pair.rejected_generator
        np.testing.assert_array_equal(pair.rejected, made[pair.key].chosen)
        np.testing.assert_array_equal(pair.chosen, pair.avatar_motion)
    assert own.kept
    info = pairs.manifest.pairs
    assert info is not None
    assert (info.rejected, info.dropped) == ("own", ())
    assert info.shortfall
    assert all(short is None or 0 <= short <= 1 for short in info.shortfall.values())
    other = Dataset(full.dataset).manifest.pairs
    assert other is not None
    assert other.shortfall == {}  # chosen is the model's own
    blind = some.model_copy(update={"shortfall_share": 1.0, "batch": 3})
    told = Dataset(build(source, checkpoint, tmp_path / "blind", blind).dataset).manifest.pairs
    assert told is not None
    assert told.shortfall == info.shortfall  # the same motion is asked for, whoever loses


@pytest.mark.slow
def test_several_pairs_of_a_window_differ_by_their_noise(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Keys stay unique and have no dots; each pair's motions share their noise; the first is that of a single one."""
    config = CONFIG.model_copy(update={"per_window": 3, "chosen": "full"})
    made = Dataset(build(source, checkpoint, tmp_path / "three", config).dataset)
    found = {s.key: s for s in made.samples("train")}
    single = Dataset(build(source, checkpoint, tmp_path / "one", CONFIG.model_copy(update={"chosen": "full"})).dataset)
    windows = {s.key: s for s in single.samples("train")}
    assert set(found) == {f"{key}-r{number}" for key in windows for number in range(3)}
    assert made.manifest.pairs is not None
    assert (made.manifest.pairs.seeds, made.manifest.pairs.kept) == ((0, 1, 2), 3 * len(windows))
    for key, window in windows.items():
        several = [found[f"{key}-r{number}"] for number in range(3)]
        assert [(p.pair.window, p.pair.sampler.seed) for p in several if p.pair] == [(key, 0), (key, 1), (key, 2)]
        np.testing.assert_array_equal(several[0].rejected, window.rejected)
        np.testing.assert_array_equal(several[0].chosen, window.chosen)
        sides = [side for p in several for side in (p.chosen, p.rejected) if side is not None]
        assert len({side.tobytes() for side in sides}) == 6
    assert verify_dataset(made.location) == []


@pytest.mark.slow
def test_the_least_expressive_windows_are_passed_over(checkpoint: Path, tmp_path: Path) -> None:
    def graded(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        meta = json.loads(members["meta.json"]) | {"expressiveness": int(key[-2:]) / 10}
        return members | {"meta.json": json.dumps(meta).encode()}

    source = write_dataset(tmp_path / "source", {WindowClass.LISTENING: 8, WindowClass.SPEAKING: 4}, damage=graded)
    classes = (WindowClass.SPEAKING, WindowClass.LISTENING)
    config = CONFIG.model_copy(update={"min_expressiveness": 0.5, "classes": classes})
    summary = build(source, checkpoint, tmp_path / "run", config)
    kept = {s.key for s in Dataset(summary.dataset).samples("train")}
    named = {f"speaking-1000{i}" for i in range(4)} | {f"listening-{i:05d}" for i in range(8)}
    enough = {key for key in named if int(key[-1]) >= (2 if key.startswith("speaking") else 4)}
    assert len(enough) == len(kept)
    assert {key.split("-")[0] for key in kept} == {"speaking", "listening"}
    assert all(int(key[-2:]) in (2, 3) if key.startswith("speaking") else int(key[-2:]) >= 4 for key in kept)
    assert (summary.windows, summary.passed_over, summary.tried) == (12, 6, 6)


@pytest.mark.slow
def test_members_of_the_window_are_copied_as_they_are(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    windows, pairs = (
        {
            key: dict(members)
            for entry in data.manifest.of("train", WindowClass.LISTENING)
            for key, members in data.shard(entry)
        }
        for data in (Dataset(str(source)), Dataset(build(source, checkpoint, tmp_path).dataset))
    )
    for key, members in pairs.items():
        for name in ("avatar.audio.flac", "user.audio.flac", "avatar.motion.npy", "meta.json"):
            assert members[name] == windows[key][name]
        assert members["chosen.motion.npy"] == members["avatar.motion.npy"]


@pytest.mark.slow
def test_a_dry_run_tells_what_a_run_would_give(
    source: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no more windows than are tried, exactly; and it writes nothing."""
    monkeypatch.setattr(reference_statistics, "FEWEST", 2)
    out = tmp_path / "run"
    words = ["visavis", "pairs", str(source), str(checkpoint), "--out", str(out), "--set", "sampler.steps=2"]
    words += ["--set", "gate.min_reactivity_margin=0.1", "--set", "gate.max_jerk_ratio=1e9", "--engine", "local"]
    words += ["--set", "gate.max_off_manifold=1e9", "--set", "shortfall_share=1", "--set", "classes=[overlap]"]

    def said(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*words, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        out, err = capsys.readouterr()
        return out if "--json" in more else out + err

    found = json.loads(said("--dry-run", "--json"))
    in_words = said("--dry-run")
    assert not out.exists()
    done = json.loads(said("--json"))
    assert (found["pairs"], found["gated"], found["windows"]) == (done["kept"], done["gated"], done["windows"])
    assert found["figures"] == done["figures"]
    assert found["seconds"] > 0
    assert found["shortfall"] == pytest.approx(done["shortfall"], abs=1e-3)
    assert "nothing was written" in in_words
    assert f"{shortfall_line(found['shortfall'])}, by these few windows" in in_words.replace("\n", " ")
    told = shortfall_line(done["shortfall"])
    assert told
    assert told in said().replace("\n", " ")
    monkeypatch.setattr(sys, "argv", ["visavis", "report", str(out)])
    with pytest.raises(SystemExit):
        main()
    report = capsys.readouterr().out
    assert "reactivity_margin" in report
    assert told in report.replace("\n", " ")
    assert max(map(len, report.splitlines()[:20])) <= 80


@pytest.mark.slow
def test_what_the_gate_leaves_out_is_counted(source: Path, checkpoint: Path, tmp_path: Path) -> None:
    strict = CONFIG.model_copy(update={"gate": OPEN.model_copy(update={"min_distance": 1.0})})
    summary = build(source, checkpoint, tmp_path / "a", strict)
    assert summary.kept + sum(summary.gated.values()) == summary.tried
    nothing = CONFIG.model_copy(update={"gate": OPEN.model_copy(update={"min_distance": 1e6})})
    with pytest.raises(RunFailed, match=r"the gate left none of (\d+) pairs: \1 too similar; leave"):
        build(source, checkpoint, tmp_path / "b", nothing)
    assert not (tmp_path / "b" / "dataset" / "manifest.json").exists()


def test_the_plan_cuts_shards_into_units_and_stops_at_the_limit(source: Path) -> None:
    dataset = Dataset(str(source))
    count = sum(s.samples for s in dataset.manifest.of("train", WindowClass.LISTENING))
    plan = plan_pairs(dataset, CONFIG)
    assert sum(i.last - i.first for i in plan) == count
    assert len({i.path for i in plan}) == len(plan)
    limited = plan_pairs(dataset, CONFIG, limit=7)
    assert Counter(i.last - i.first for i in limited).total() == len(limited)
    assert sum(i.last - i.first for i in limited) == 7


def test_the_command_makes_pairs(
    source: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [str(source), str(checkpoint), "--out", str(tmp_path), "--engine", "local", "--limit", "4", "--json"]
    settings = ["--set", "sampler.steps=2", "--set", "gate.min_reactivity_margin=-10", "--set", "gate.min_distance=0"]
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "visavis",
            "pairs",
            *words,
            *settings,
            "--set",
            "gate.max_jerk_ratio=1e9",
            "--set",
            "gate.max_off_manifold=1e9",
        ],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["kept"] == 4
    assert Dataset(str(tmp_path / "dataset")).manifest.motion.codec == CODEC

"""The rule that conversations were made by can be read back from them, and the ruler is not fooled by noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import solo
from benchmarks.listeners import CORPORA, DIM, LEVERS, PITCH, REAL, Rule
from benchmarks.reactions import Nod, Windows, baselines, cues, far_from, measure, nods
from benchmarks.reactive import (
    AVATAR,
    CODEC,
    HOP,
    USER,
    Corpus,
    make_envelope,
    make_motion,
    make_talk,
    write_corpus,
)
from benchmarks.reactivity import Scale, bench
from visavis.pipeline.cli.verify import verify_dataset
from visavis.schemas import FPS
from visavis.schemas.dyads import WindowClass
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.train import FeatureConfig
from visavis.schemas.windows_config import BalanceConfig
from visavis.stages.face.codec import motion_spec
from visavis.stages.windows import avatar_state
from visavis.training.checkpoint import load_checkpoint
from visavis.training.dataset import Dataset
from visavis.training.features import LogMel
from visavis.training.loader import Loader

RULE = Rule()
CORPUS = Corpus(train=40, val=0)
TINY = Corpus(train=5, val=3, seconds=16)


def conversations(corpus: Corpus, rule: Rule) -> Windows:
    """Whole conversations as windows, without their sound."""
    talks = [make_talk(corpus, number) for number in range(corpus.train)]
    user, avatar = zip(*(make_motion(corpus, rule, i, talk) for i, talk in enumerate(talks)), strict=True)
    states = [avatar_state(talk.state(corpus.seconds * FPS), AVATAR) for talk in talks]
    both = np.concatenate(user + avatar)
    return Windows(
        truth=np.stack(avatar),
        user=np.stack(user),
        loudness=np.stack(
            [make_envelope(corpus, i, talk, AVATAR).reshape(-1, HOP).mean(axis=1) for i, talk in enumerate(talks)]
        ),
        cues=tuple(cues(state, motion, rule) for state, motion in zip(states, user, strict=True)),
        listens=np.stack([far_from(state & 1 > 0) for state in states]),
        motion=motion_spec(CODEC, DIM, both.mean(axis=0), both.std(axis=0)),
    )


@pytest.fixture(scope="module")
def windows() -> Windows:
    return conversations(CORPUS, RULE)


@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        replace(RULE, nod_probability=0.25, smile_gain=0.3),
        replace(RULE, nod_delay=(4, 6), smile_delay=4, nod_frames=8),
    ],
    ids=["as_it_is", "rarer_and_fainter", "sooner"],
)
def test_the_rule_can_be_read_back(rule: Rule) -> None:
    windows = conversations(CORPUS, rule)
    found = measure(windows.truth, windows, rule)
    assert found["recall"] == pytest.approx(rule.nod_probability, abs=0.06)
    assert found["nod_delay_ms"] == pytest.approx(rule.nod_mean_delay * 40, abs=20)
    assert found["gain"] == pytest.approx(rule.smile_gain, abs=0.05)
    assert found["gain_delay_ms"] == pytest.approx(rule.smile_delay * 40, abs=40)
    assert found["jaw"] > 0.85
    assert found["alarms_min"] < 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["real", "other"])
def test_every_kind_of_listener_can_be_read_back(name: str) -> None:
    rule, shape = CORPORA[name]
    windows = conversations(replace(CORPUS, **shape), rule)
    found = measure(windows.truth, windows, rule)
    hummed = 0.2 * (rule.hum_probability or 0) + 0.8 * rule.nod_probability  # a fifth of phrase ends is hummed at
    expected = rule.nod_probability if rule.hum_probability is None else hummed
    assert found["recall"] == pytest.approx(expected, abs=0.07)
    assert found["alarms_min"] < 1
    assert found["nod_delay_ms"] == pytest.approx(rule.nod_mean_delay * 40, abs=80)
    assert found["gain"] == pytest.approx(rule.smile_gain, abs=0.05)
    assert found["gain_delay_ms"] == pytest.approx(rule.smile_delay * 40, abs=40)
    assert found["upwards"] == pytest.approx(rule.nod_upwards, abs=0.06)
    assert found["cycles"] == pytest.approx(np.dot(rule.nod_cycles, 1 + np.arange(len(rule.nod_cycles))), abs=0.1)
    assert found.get("gain_brows", 0) == pytest.approx(rule.brow_gain, abs=0.05)
    rows = {each: measure(motion, windows, rule) for each, motion in baselines(windows).items()}
    assert rows["hold_still"]["recall"] == rows["hold_still"]["alarms_min"] == 0
    assert rows["shuffled"]["recall"] == pytest.approx(rows["shuffled"]["chance"], abs=0.06)
    assert found["recall"] > found["chance"] + 0.3


@pytest.mark.slow
def test_real_listeners_nod_as_was_counted() -> None:
    still = replace(REAL, pitch_drift=1e-4)  # so that a finer ruler overlooks nothing
    windows = conversations(replace(CORPUS, train=100), still)
    found = nods(windows.truth, replace(REAL, nod_depth=0.02))
    cycles = np.array([min(nod.cycles, 3) for each in found for nod in each])
    assert [np.mean(cycles == n) for n in (1, 2, 3)] == pytest.approx([0.51, 0.33, 0.16], abs=0.05)
    assert np.mean([nod.upwards for each in found for nod in each]) == pytest.approx(0.24, abs=0.04)
    near = [windows.truth[i, nod.apex - 5 : nod.apex + 6, PITCH] for i, each in enumerate(found) for nod in each]
    ranges = np.array([np.ptp(span) for span in near])
    assert np.degrees(ranges.mean()) == pytest.approx(4.0, abs=0.2)
    assert np.log(ranges).std() == pytest.approx(REAL.nod_spread, abs=0.05)


def test_a_dull_listener_reacts_less(windows: Windows) -> None:
    dull = conversations(replace(CORPUS, lively=0.0, dull=0.2), RULE)
    found = measure(dull.truth, dull, RULE)
    assert found["recall"] == pytest.approx(0.2 * RULE.nod_probability, abs=0.06)
    assert found["gain"] == pytest.approx(0.2 * RULE.smile_gain, abs=0.05)
    half = conversations(replace(CORPUS, lively=0.5, dull=0.0), RULE)
    assert 0.2 < measure(half.truth, half, RULE)["recall"] < 0.5


@pytest.mark.slow
def test_noise_and_other_peoples_reactions_score_what_chance_gives(windows: Windows) -> None:
    rows = {name: measure(motion, windows, RULE) for name, motion in baselines(windows).items()}
    assert rows["shuffled"]["recall"] == pytest.approx(rows["ground_truth"]["chance"], abs=0.08)
    assert abs(rows["shuffled"]["gain"]) < 0.06
    assert rows["hold_still"]["recall"] == rows["mean_motion"]["recall"] == rows["hold_still"]["alarms_min"] == 0
    assert rows["copy_user"]["gain_delay_ms"] == 0
    assert rows["ground_truth"]["rpcc_expression"] == 0
    assert rows["hold_still"]["rpcc_expression"] > 0.05

    drifting = np.stack([make_motion(CORPUS, replace(RULE, nod_probability=0), i, make_talk(CORPUS, i))[AVATAR]
                         for i in range(CORPUS.train)])  # fmt: skip
    assert measure(drifting, windows, RULE)["recall"] < 0.1
    trembling = np.random.default_rng(0).normal(0, RULE.pitch_drift, windows.truth.shape)
    assert measure(trembling, windows, RULE)["recall"] < 0.1


def test_a_nod_of_another_shape_is_a_nod_too(windows: Windows) -> None:
    motion = np.zeros((1, 100, DIM))
    motion[0, 40:52, PITCH] = -RULE.nod_depth * np.minimum(np.arange(12), 12 - np.arange(12)) / 6
    motion[0, 70:82, PITCH] = 0.3 * motion[0, 40:52, PITCH]  # too faint
    (nod,) = nods(motion, RULE)[0]
    assert abs(nod.apex - 46) <= 1
    assert nod == Nod(nod.apex, cycles=1, upwards=False)


def test_a_nodding_head_turns_about_its_neck(windows: Windows) -> None:
    for column, lever in LEVERS[PITCH].items():
        still = make_motion(CORPUS, replace(RULE, nod_probability=0), 0, make_talk(CORPUS, 0))[AVATAR]
        nodded = still[:, column] - windows.truth[0, :, column]
        assert nodded.max() == pytest.approx(lever * RULE.nod_depth, rel=0.6)
        assert nodded.min() >= 0


def test_backchannels_of_the_user_evoke_nothing(windows: Windows) -> None:
    talks = [make_talk(CORPUS, number) for number in range(CORPUS.train)]
    hums = tuple(np.array([end for _, end in talk.backchannels[USER]], int) for talk in talks)
    assert sum(map(len, hums)) > 50
    found = measure(windows.truth, replace(windows, cues=hums), RULE)
    assert found["recall"] < 0.2  # others' phrases end near some of them


def test_listeners_do_not_mirror_while_they_speak(windows: Windows) -> None:
    speaking = np.stack([np.convolve(x, np.ones(11), mode="same") > 10.5 for x in windows.loudness > 0])
    assert speaking.sum() > 1000
    assert abs(measure(windows.truth, replace(windows, listens=speaking), RULE)["gain"]) < 0.08


def test_the_share_of_speaking_is_as_asked() -> None:
    for asked in (0.2, 0.8):
        talks = [make_talk(replace(CORPUS, speaking=asked), number) for number in range(20)]
        spoken = [sum(end - first for talk in talks for first, end in talk.phrases[who]) for who in (USER, AVATAR)]
        assert spoken[AVATAR] / sum(spoken) == pytest.approx(asked, abs=0.1)


@pytest.mark.slow
def test_the_dataset_is_one_like_any_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_corpus(tmp_path / name, TINY, RULE)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert all((tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes() for path in files)
    assert verify_dataset(str(tmp_path / "one")) == []

    data = Dataset(str(tmp_path / "one"))
    batch, _ = next(iter(Loader(data, 8)))
    assert batch.avatar_motion.shape == (8, TINY.window, DIM)
    samples = [sample for split in ("train", "val") for sample in data.samples(split)]  # type: ignore[arg-type]
    assert len(samples) == (TINY.train + TINY.val) * TINY.seconds * FPS // TINY.window
    assert {s.meta.conversation for s in data.samples("val")} == {f"c{n:06d}" for n in range(TINY.train, 8)}

    features = LogMel(FeatureConfig())
    loud, quiet = [], []
    for sample in samples:
        heard = features(torch.from_numpy(sample.user_audio)[None])[0].mean(dim=1).numpy()
        silent = sample.state & 0b1010 == 0
        loud.append(heard[sample.state & 2 > 0])
        quiet.append(heard[1:][(silent[1:] & silent[:-1])])
    threshold = (np.concatenate(loud).mean() + np.concatenate(quiet).mean()) / 2
    assert (np.concatenate(loud) > threshold).mean() > 0.95
    assert (np.concatenate(quiet) < threshold).mean() > 0.95


def test_unbalanced_corpora_are_told_by_their_manifest(tmp_path: Path) -> None:
    plain = BalanceConfig(mixture={WindowClass.SPEAKING: 0.8, WindowClass.LISTENING: 0.2}, dull_keep=1.0)
    manifest = write_corpus(tmp_path, replace(TINY, speaking=0.8, lively=0.3, balance=plain), RULE)
    assert manifest.plan.seconds_before[WindowClass.SPEAKING] > manifest.plan.seconds_before[WindowClass.LISTENING]
    assert manifest.plan.mixture[WindowClass.SPEAKING] == 0.8
    assert manifest.plan.keep[WindowClass.LISTENING] == 1.0
    assert (tmp_path / MANIFEST_NAME).exists()


def test_clips_of_one_person_are_avatars_whose_user_was_cut_off(tmp_path: Path) -> None:
    data = {}
    for name, corpus in {"whole": TINY, "cut": replace(TINY, dyads=2)}.items():
        write_corpus(tmp_path / name, corpus, RULE)
        data[name] = Dataset(str(tmp_path / name))
    assert verify_dataset(data["cut"].location) == []
    whole, cut = ({s.key: s for split in ("train", "val") for s in d.samples(split)} for d in data.values())  # type: ignore[arg-type]
    assert whole.keys() == cut.keys()
    for key, sample in cut.items():
        np.testing.assert_array_equal(sample.avatar_motion, whole[key].avatar_motion)
        np.testing.assert_array_equal(sample.avatar_audio, whole[key].avatar_audio)
        number = int(sample.meta.conversation[1:])
        if 2 <= number < TINY.train:
            user = (sample.user_motion, sample.user_audio, sample.valid[:, 1])
            assert not any(part.any() for part in user)
            assert not (sample.state & 0b1010).any(), "nobody is said to speak"
        else:
            np.testing.assert_array_equal(sample.user_motion, whole[key].user_motion)


@pytest.mark.slow
@pytest.mark.nightly("that the benchmark still runs, not what the product does")
def test_the_benchmark_of_clips_goes_on_with_what_it_made(tmp_path: Path) -> None:
    scale = solo.Scale(conversations=3, held_out=1, steps=3, seeds=(0,), seconds=16)
    result = solo.bench(scale, tmp_path, jobs=0)
    assert set(result["rows"]) == set(solo.ROWS)
    assert load_checkpoint(next(tmp_path.glob("*/first-0/checkpoint.safetensors"))).step == 2, "a third without anybody"
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert solo.bench(scale, tmp_path, jobs=0)["rows"] == result["rows"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.slow
@pytest.mark.nightly("that the benchmark still runs, not what the product does")
def test_the_benchmark_goes_on_with_what_it_made(tmp_path: Path) -> None:
    """A few steps teach nothing: this is about the workflow from corpus to rows."""
    scale = Scale(TINY, steps=2, seeds=(0,), held_out=2)
    result = bench(scale, tmp_path)
    json.dumps(result, allow_nan=False)
    made = {"block", "block_no_user", "full", "full_no_user"}
    assert set(result["rows"]) == made | {"ground_truth", "hold_still", "copy_user", "mean_motion", "shuffled"}
    assert all(np.isfinite(result["rows"][name]["explained_pitch"]) for name in ("block", "full"))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    assert bench(scale, tmp_path)["rows"] == result["rows"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == stamps

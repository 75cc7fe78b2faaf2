"""A student does in few evaluations what its teacher does in many: the same blocks as in a stream, the loss as it is
written, nothing seen too early, and a run that says what it made and goes on where it was."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain import PlainListener
from tests.training.conftest import small_model
from tests.training.preferences.made import pairs_of
from tests.training.synthetic import DIM
from tests.training.test_causality import CONDITIONS, bound, changed_after, inputs
from tests.training.test_plain import plain_of
from visavis.pipeline.app import main
from visavis.schemas.errors import UsageError
from visavis.schemas.train import DistillConfig, Drop, Mask, ObjectiveConfig, SamplerConfig, TrainConfig
from visavis.training.checkpoint import checkpoint_id, load_checkpoint, load_model
from visavis.training.distill import ALONE, Blocks, Distillation
from visavis.training.evaluate import evaluate
from visavis.training.guidance import Branch, guidance_weights
from visavis.training.loader import Batch
from visavis.training.model import Keep, Listener
from visavis.training.noise import noise
from visavis.training.objective import Part
from visavis.training.pool import StreamPool
from visavis.training.sampler import Stream, rollout
from visavis.training.train import Stopped, train

FRAMES, BLOCK = 23, 5  # the last block is short
NONE_DROPPED = ObjectiveConfig(full=1, no_user=0, no_avatar=0, none=0)


def asked(teacher: SamplerConfig, evaluations: int = 2) -> TrainConfig:
    """Settings as `distilling` leaves them."""
    return TrainConfig(
        distill=DistillConfig(evaluations=evaluations, teacher=teacher),
        sampler=SamplerConfig(steps=evaluations, guidance="none"),
        objective=NONE_DROPPED,
    )


@torch.no_grad()
def states(
    model: Listener,
    x: dict[str, torch.Tensor],
    past: torch.Tensor,
    start: torch.Tensor,
    levels: list[float],
    weights: dict[Branch, float] = ALONE,
) -> list[torch.Tensor]:
    conditions = model.conditions(*(x[name] for name in CONDITIONS))
    blocks = Blocks(model, past, model.normalise(x["reference"]), conditions, Keep.all(2), weights)
    return blocks.integrate(start, levels)


@pytest.mark.parametrize(
    ("mask", "guidance", "drop"),
    [
        ("block", "paper", "full"),
        ("block", "none", "no_user"),
        ("frame", "full", "no_avatar"),
        ("frame", "none", "none"),
    ],
)
def test_blocks_beside_each_other_are_those_of_a_stream(mask: Mask, guidance: Any, drop: Drop):
    """Given a stream's motion as the past, and its noise: nothing else of what it sees is other in training."""
    model, x = small_model(mask), inputs(FRAMES)
    sampler = SamplerConfig(steps=3, guidance=guidance, w_a=1.5, w_u=1.2)
    streamed = rollout(model, *(x[name] for name in CONDITIONS), x["reference"], sampler, ["a", "b"], drop)
    drawn = [noise(sampler.seed, ["a", "b"], n, BLOCK, DIM) for n in range(-(-FRAMES // BLOCK))]
    past = model.normalise(streamed)
    weights = guidance_weights(sampler, drop)
    *_, made = states(model, x, past, torch.cat(drawn, dim=1)[:, :FRAMES], [0, 1 / 3, 2 / 3, 1], weights)
    assert past.std() > 0.1
    torch.testing.assert_close(made, past, atol=2e-5, rtol=0)


def test_a_window_that_lacks_the_user_is_guided_as_its_drop_says():
    """Patterns are drawn by window, and windows of other patterns share a batch."""
    model, x = small_model(), inputs(FRAMES)
    conditions, sampler = model.conditions(*(x[name] for name in CONDITIONS)), SamplerConfig(guidance="paper", w_u=1.5)
    given_ = x["noisy_motion"], model.normalise(x["reference"]), conditions
    keep = Keep(torch.tensor([True, True]), torch.tensor([True, False]))
    with torch.no_grad():
        mixed = Blocks(model, *given_, keep, guidance_weights(sampler)).integrate(x["user_motion"], [0, 1])[0]
        whole, without = (
            Blocks(model, *given_, Keep.all(2), guidance_weights(sampler, drop)).integrate(x["user_motion"], [0, 1])[0]
            for drop in ("full", "no_user")
        )
    torch.testing.assert_close(mixed[0], whole[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[1], without[1], atol=1e-5, rtol=0)


# --- the loss, written out


def plain_states(
    plain: PlainListener, batch: Batch, start: torch.Tensor, levels: list[float], weights: dict[Branch, float]
) -> list[torch.Tensor]:
    """Every block by itself, in a pass over the whole window for each level and branch; float64."""
    features = small_model().conditions(batch.avatar_audio, batch.user_audio, batch.user_motion)
    heard = [part.double() for part in (features.avatar_audio, features.user_audio, features.user_motion)]
    past = ((batch.avatar_motion - small_model().mean) / small_model().std).double()
    reference = ((batch.reference - small_model().mean) / small_model().std).double()
    found = [start.clone() for _ in levels[1:]]
    for first in range(0, start.shape[1], BLOCK):
        block = slice(first, first + BLOCK)
        now = start[:, block]
        for n, t in enumerate(levels[:-1]):
            noisy, level = past.clone(), torch.ones(past.shape[:2], dtype=torch.float64)
            noisy[:, block], level[:, block] = now, t
            noisy[:, first + BLOCK :] = 7.0  # is not seen
            velocity = sum(w * plain(noisy, level, reference, *heard, branch)[0] for branch, w in weights.items())
            now = now + (levels[n + 1] - t) * velocity[:, block]
            found[n] = torch.cat([found[n][:, :first], now, found[n][:, first + BLOCK :]], dim=1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("guidance", ["none", "paper"])
def test_the_loss_is_the_written_one_in_float64(guidance: Any):
    student, teacher, batch = small_model(seed=1), small_model(seed=0), pairs_of(20)
    batch.valid[0, 12:, 0] = False
    sampler = SamplerConfig(steps=4, guidance=guidance, w_a=1.5, w_u=1.2)
    objective = Distillation(student, teacher, asked(sampler))
    losses = objective(Part(batch), [1.0, 0.0, 0.0], torch.Generator().manual_seed(3))
    losses.total.backward()

    generator = torch.Generator().manual_seed(3)
    torch.rand(2, generator=generator)  # the drop patterns
    start = torch.randn(batch.avatar_motion.shape, generator=generator).double()
    plain = plain_of(student, torch.float64)
    made = plain_states(plain, batch, start, [0, 0.5, 1], {(True, True): 1.0})
    with torch.no_grad():
        goals = plain_states(
            plain_of(teacher, torch.float64), batch, start, [0, 0.25, 0.5, 0.75, 1], guidance_weights(sampler)
        )
    total, count = torch.zeros((), dtype=torch.float64), 0
    for b in range(2):
        for frame in batch.valid[b, :, 0].nonzero().flatten().tolist():
            for k in (0, 1):
                total = total + (made[k][b, frame] - goals[2 * k + 1][b, frame]).square().sum() / DIM
            count += 1
    (total / count).backward()
    assert count == 32
    assert losses.total.item() == pytest.approx((total / count).item(), rel=1e-4)
    ours = {name: weight.grad for name, weight in student.named_parameters()}
    for name, weight in plain.named_parameters():
        if weight.grad is None:  # what stands for a condition that is dropped
            assert ours[name] is None or not ours[name].any()
            continue
        error = (ours[name].double() - weight.grad).norm() / weight.grad.norm().clamp(min=1e-6)
        assert error < 2e-3, name


def test_a_student_that_does_what_is_asked_is_left_as_it_is():
    """The teacher in two evaluations is what a student of two with its weights does."""
    student, teacher = small_model(), small_model()
    objective = Distillation(student, teacher, asked(SamplerConfig(steps=2, guidance="none")))
    losses = objective(Part(pairs_of(20)), [1.0, 0.0, 0.0], torch.Generator())
    losses.total.backward()
    assert losses.total.item() == 0
    assert all(not weight.grad.any() for weight in student.parameters() if weight.grad is not None)
    assert all(weight.grad is None for weight in teacher.parameters())


# --- causality


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(data=st.data(), mask=st.sampled_from(["block", "frame"]), name=st.sampled_from([*CONDITIONS, "past", "noise"]))
def test_no_block_sees_what_a_stream_would_not_have_yet(data, mask: Mask, name: str):
    """Of conditions the look-ahead, of clean motion what lies before the block, of noise its own block."""
    block = data.draw(st.integers(1, 8))
    model = small_model(
        mask,
        block=block,
        look_ahead=data.draw(st.integers(0, block)),
        cross_window=data.draw(st.integers(0, 4)),
        context=data.draw(st.integers(0, 20)),
    )
    n = data.draw(st.integers(0, FRAMES - 2))
    x = inputs(FRAMES) | {"past": inputs(FRAMES)["noisy_motion"].flip(0), "noise": inputs(FRAMES)["noisy_motion"]}
    last = n - n % block - 1 if name == "past" else bound(model, name if name in CONDITIONS else "noisy_motion", n)
    other = changed_after(x, name, last)
    before, after = (states(model, each, each["past"], each["noise"], [0, 0.5, 1]) for each in (x, other))
    first = n - n % block if name == "past" else 0  # of earlier blocks the past is another one's future, too
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one[:, first : n + 1], two[:, first : n + 1])


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_what_a_student_generates_ignores_what_comes_after_the_look_ahead(student: Path, cached: bool):
    made = load_checkpoint(student)
    model, original = load_model(made), inputs(25)

    def generated(x: dict[str, torch.Tensor]) -> torch.Tensor:
        conditions = (x[name] for name in CONDITIONS)
        return rollout(model, *conditions, x["reference"], made.config.sampler, ["a", "b"], cached=cached)

    before = generated(original)
    for name in CONDITIONS:
        for n in (0, 9, 10):
            after = generated(changed_after(original, name, bound(model, name, n)))
            assert torch.equal(before[:, : n + 1], after[:, : n + 1])
            assert not torch.equal(before, after)


# --- runs


def student_config(config: TrainConfig, **distill: Any) -> TrainConfig:
    given_ = {"evaluations": 2, "steps": 6, "lr": 1e-3, "warmup": 2, "teacher": SamplerConfig(steps=4)} | distill
    return config.model_copy(update={"distill": DistillConfig(**given_)})


@pytest.fixture(scope="module")
def student(windows: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `trained`, which samples by the defaults: ten evaluations, guided."""
    config = TrainConfig(
        distill=DistillConfig(evaluations=2, steps=2, warmup=1), device="cpu", log_every=1, checkpoint_every=100
    )
    return train(str(windows), tmp_path_factory.mktemp("student"), config, init=trained)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_through_the_same_losses(
    windows: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    def run(folder: str, stop: int | None = None) -> tuple[list[float], bytes]:
        out, config = tmp_path / folder, student_config(small_config)
        if stop is not None:
            answers = iter([False] * stop)
            with pytest.raises(Stopped):
                train(str(windows), out, config, init=trained, stop=lambda: next(answers, True))
        path = train(str(windows), out, config, init=trained)
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line], path.read_bytes()

    whole = run("whole")
    assert len(whole[0]) == 6
    assert run("cut", stop=2) == whole
    with pytest.raises(UsageError, match=r"distill\.teacher"):
        train(str(windows), tmp_path / "whole", student_config(small_config, teacher=None), init=trained)


@pytest.mark.slow
def test_a_student_comes_near_its_teacher(windows: Path, trained: Path, tmp_path: Path, small_config: TrainConfig):
    """Nearer than the teacher itself comes in as few evaluations; with its guidance inside."""
    config = student_config(small_config, steps=30, lr=5e-3, teacher=SamplerConfig(steps=4, w_u=1.5))
    train(str(windows), tmp_path, config.model_copy(update={"checkpoint_every": 30}), init=trained)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["val_distance"] < 0.7 * last["val_distance_naive"]


@pytest.mark.slow
def test_a_checkpoint_says_what_it_was_distilled_for(windows: Path, trained: Path, student: Path):
    made = load_checkpoint(student)
    assert made.reference == checkpoint_id(trained)
    assert made.config.distill.teacher == load_checkpoint(trained).config.sampler == SamplerConfig()
    assert (made.config.sampler.steps, made.config.sampler.guidance) == (2, "none")
    found = evaluate(student, str(windows), limit=2, seeds=(0,))
    assert (found["sampler"]["steps"], found["sampler"]["guidance"]) == (2, "none")


@pytest.mark.slow
def test_a_student_takes_its_evaluations_and_no_others(windows: Path, student: Path):
    made = load_checkpoint(student)
    model = load_model(made)
    stream = Stream(model, torch.zeros(1, DIM), made.config.sampler, ["a"])
    x = inputs(12, batch=1)
    stream.step(*(x[name] for name in CONDITIONS))
    assert stream.counts.evaluations == 2
    assert StreamPool(model, made.config.sampler, 1).keys == ()
    for other in (SamplerConfig(), SamplerConfig(steps=2), SamplerConfig(guidance="none")):
        with pytest.raises(UsageError, match=r"distilled for 2 evaluations.* sampler\.steps=2"):
            Stream(model, torch.zeros(1, DIM), other, ["a"])
        with pytest.raises(UsageError, match="distilled for 2"):
            StreamPool(model, other, 1)
        with pytest.raises(UsageError, match="distilled for 2"):
            rollout(model, *(x[name] for name in CONDITIONS), torch.zeros(1, DIM), other, ["a"], cached=False)


@pytest.mark.slow
def test_what_does_not_go_together_is_refused(
    windows: Path, pairs: Path, trained: Path, student: Path, tmp_path: Path, small_config: TrainConfig
):
    def refused(config: TrainConfig, why: str, **more: Any) -> None:
        with pytest.raises(UsageError, match=why):
            train(str(windows), tmp_path, config, **more)

    refused(student_config(small_config), "give one as init")
    refused(student_config(small_config), "no pairs", init=trained, pairs=str(pairs))
    refused(student_config(small_config, evaluations=3), "4 evaluations, a student in a fraction", init=trained)
    refused(student_config(small_config, evaluations=4), "a student in a fraction", init=trained)
    refused(small_config, "is a student: between its evaluations", init=student)
    refused(student_config(small_config, evaluations=1), "distilled for 2 evaluations", init=student)


@pytest.mark.slow
def test_a_student_may_teach_one_of_fewer_evaluations(
    windows: Path, student: Path, tmp_path: Path, small_config: TrainConfig
):
    path = train(str(windows), tmp_path, student_config(small_config, evaluations=1, teacher=None), init=student)
    made = load_checkpoint(path)
    assert (made.config.sampler.steps, made.config.distill.teacher.steps) == (1, 2)  # type: ignore[union-attr]


def test_frames_that_are_not_valid_do_not_count():
    batch = pairs_of(20)
    objective = Distillation(small_model(seed=1), small_model(), asked(SamplerConfig(steps=4)))

    def loss(batch: Batch) -> float:
        return objective(Part(batch), [1.0, 0.0, 0.0], torch.Generator().manual_seed(0)).total.item()

    whole, cut = loss(batch), replace(batch, valid=batch.valid.clone())
    cut.valid[:, 15:, 0] = False
    wild = replace(cut, avatar_motion=cut.avatar_motion.clone())
    wild.avatar_motion[:, 15:] = 50.0  # in the last block, which is nobody's past
    assert loss(cut) == loss(wild) != whole


@pytest.mark.slow
def test_commands_follow_the_checkpoint(
    windows: Path,
    trained: Path,
    tmp_path: Path,
    small_config: TrainConfig,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def said(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["visavis", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), " ".join("".join(capsys.readouterr()).split())

    recipe, out = tmp_path / "recipe.yaml", str(tmp_path / "student")
    recipe.write_text(json.dumps(small_config.model_dump(mode="json")))  # JSON is YAML
    distill = ["--distill", "2", "--set", "distill.steps=2", "--init", str(trained), "--out", out]
    code, text = said("train", str(recipe), str(windows), *distill)
    assert code == 0, text
    made = f"{out}/checkpoint.safetensors"
    assert load_checkpoint(Path(made)).config.distill.evaluations == 2
    assert said("pairs", str(windows), made, "--dry-run")[0] == 0
    code, text = said("pairs", str(windows), made, "--dry-run", "--set", "sampler.steps=10")
    assert code == 2
    assert "set sampler.steps=2 and sampler.guidance=none" in text
    code, text = said("tune", str(windows), "--init", made, "--out", str(tmp_path / "tuned"))
    assert code == 2
    assert "the initial checkpoint is a student" in text

"""Small datasets with a known rule, written the way the shard stage writes them.

Twelve motion dimensions: 0–2 rotation, 3–5 translation, 6–11 expression. Dimension 6 (jaw) follows the own voice,
dimension 7 (smile) of the avatar is the user's smile `DELAY` frames earlier, dimension 0 (nod) of the avatar dips
after the user's speech ends; the rest drifts slowly and means nothing.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.dyads import WindowClass
from visavis.schemas.manifest import (
    MANIFEST_NAME,
    BalancePlan,
    Manifest,
    MotionSpec,
    PairsInfo,
    ShardEntry,
    Split,
    dump_manifest,
)
from visavis.schemas.pairs import PairRecord
from visavis.schemas.sample import Sample, SampleMeta, encode_sample
from visavis.schemas.train import FeatureConfig, ModelConfig, SamplerConfig
from visavis.training.features import audio_spec

DIM = 12
JAW, SMILE, NOD = 6, 7, 0
DELAY = 8
CODEC = "synthetic"
SCALE = np.linspace(0.5, 2.0, DIM).astype(np.float32)
"""Deviations differ between dimensions, so that a forgotten normalisation shows."""

SPEC = MotionSpec(
    codec=CODEC,
    dim=DIM,
    rotation=(0, 3),
    translation=(3, 6),
    expression=(6, DIM),
    mean=tuple(np.full(DIM, 0.25).tolist()),
    std=tuple(SCALE.tolist()),
)
STATES = {WindowClass.SPEAKING: 1, WindowClass.LISTENING: 2, WindowClass.OVERLAP: 3, WindowClass.SILENCE: 0}


def smooth(random: np.random.Generator, frames: int, width: int = 6) -> np.ndarray:
    """A slow random curve of deviation 1."""
    kernel = np.hanning(2 * width + 1)
    noise = random.standard_normal(frames + 2 * width)
    return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), mode="valid")


def sample(seed: int, label: WindowClass = WindowClass.LISTENING, frames: int = 50, weight: float = 1.0) -> Sample:
    """One window that follows the rule."""
    random = np.random.default_rng(seed)
    lead = 2 * DELAY
    motion = {who: np.stack([smooth(random, frames + lead) for _ in range(DIM)], axis=1) for who in ("avatar", "user")}
    motion["avatar"][DELAY:, SMILE] = motion["user"][:-DELAY, SMILE]
    audio = {}
    for bit, who in ((1, "avatar"), (2, "user")):
        speaks = bool(STATES[label] & bit)
        loud = np.clip(smooth(random, frames + lead), 0, None) * speaks
        motion[who][:, JAW] = 2 * loud - 0.5
        noise = random.standard_normal((frames + lead) * SAMPLES_PER_FRAME)
        audio[who] = np.clip(0.1 * np.repeat(loud, SAMPLES_PER_FRAME) * noise, -1, 1)
        ends = np.flatnonzero((loud[:-1] > 0) & (loud[1:] == 0))
        if who == "user":
            for end in ends:
                motion["avatar"][end + 3 : end + 9, NOD] -= 2.5
    cut = slice(lead, lead + frames)
    samples = slice(lead * SAMPLES_PER_FRAME, (lead + frames) * SAMPLES_PER_FRAME)
    return Sample(
        key=f"{label.value}-{seed:05d}",
        avatar_motion=(motion["avatar"][cut] * SCALE + 0.25).astype(np.float32),
        user_motion=(motion["user"][cut] * SCALE + 0.25).astype(np.float32),
        avatar_audio=audio["avatar"][samples].astype(np.float32),
        user_audio=audio["user"][samples].astype(np.float32),
        state=np.full(frames, STATES[label], np.uint8),
        valid=np.ones((frames, 2), bool),
        reference=np.full(DIM, 0.25, np.float32),
        meta=SampleMeta(
            conversation=f"c{seed}",
            avatar="a",
            user="b",
            start=0,
            label=label,
            expressiveness=1.0,
            weight=weight,
            binding=1.0,
            codec=CODEC,
        ),
    )


def as_pair(window: Sample) -> Sample:
    """A pair whose rejected side does not mirror the user's smile."""
    rejected = window.avatar_motion.copy()
    rejected[:, SMILE] = 0.25
    record = PairRecord(
        window=window.key,
        chosen="ground_truth",
        rejected="dropped",
        dropped=("user_audio", "user_motion"),
        generator="0" * 64,
        rejected_generator="0" * 64,
        dataset="0" * 64,
        solver="euler",
        sampler=SamplerConfig(guidance="none"),
        reactivity_margin=0.5,
        lagged_margin=0.5,
        event_margin=None,
        energy_margin=0.1,
        distance=0.3,
        jerk_ratio=(1.0, 0.9),
        off_manifold=(0.9, 0.8),
    )
    return replace(window, chosen=window.avatar_motion, rejected=rejected, pair=record)


def write_dataset(
    folder: Path,
    counts: Mapping[WindowClass, int] | None = None,
    *,
    val: int = 0,
    frames: int = 50,
    mixture: Mapping[WindowClass, float] | None = None,
    weight: float = 1.0,
    shards: int = 1,
    pairs: bool = False,
    codec: str = CODEC,
    damage: Callable[[str, dict[str, bytes]], dict[str, bytes]] | None = None,
) -> Path:
    """Write shards and manifest.

    Args:
        counts: train samples of each class.
        val: held-out samples of each class.
        shards: train shards per class.
        damage: may change the members of a sample before they are written (the manifest fits the result).
    """
    counts = counts or dict.fromkeys(WindowClass, 8)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (label, count) in enumerate(counts.items()):
        seeds = np.arange(count) + 10_000 * number
        for i, part in enumerate(np.array_split(seeds, shards)):
            entries.append(_write_shard(folder, "train", label, i, part, frames, weight, pairs, codec, damage))
        if val:
            held_out = np.arange(val) + 10_000 * number + 5_000
            entries.append(_write_shard(folder, "val", label, 0, held_out, frames, weight, pairs, codec, damage))
    seconds = {label: count * frames / FPS for label, count in counts.items()}
    info = PairsInfo(
        dataset="0" * 64,
        generator="0" * 64,
        rejected_generator="0" * 64,
        audio=audio_spec(FeatureConfig(), ModelConfig()),
        rejected_audio=audio_spec(FeatureConfig(), ModelConfig()),
        chosen="ground_truth",
        rejected="dropped",
        dropped=("user_audio", "user_motion"),
        solver="euler",
        sampler=SamplerConfig(guidance="none"),
        seeds=(0,),
        classes=tuple(counts),
        min_expressiveness=0.0,
        gate={},
        windows=sum(counts.values()),
        passed_over=0,
        kept=sum(counts.values()),
        gated={},
        figures={},
    )
    manifest = Manifest(
        kind="pairs" if pairs else "windows",
        fingerprint="f" * 64,
        fps=FPS,
        sample_rate=SAMPLE_RATE,
        window=frames,
        motion=SPEC.model_copy(update={"codec": codec}),
        conversations=1,
        participants=2,
        plan=BalancePlan(
            mixture=dict(mixture or {label: 1 / len(counts) for label in counts}),
            keep=dict.fromkeys(counts, weight),
            seconds_before=seconds,
            seconds_after=seconds,
        ),
        shards=tuple(entries),
        pairs=info if pairs else None,
    )
    (folder / MANIFEST_NAME).write_bytes(dump_manifest(manifest))
    return folder


def _write_shard(
    folder: Path,
    split: Split,
    label: WindowClass,
    number: int,
    seeds: np.ndarray,
    frames: int,
    weight: float,
    pairs: bool,
    codec: str,
    damage: Callable[[str, dict[str, bytes]], dict[str, bytes]] | None,
) -> ShardEntry:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for seed in seeds:
            window = sample(int(seed), label, frames, weight)
            window = replace(window, meta=window.meta.model_copy(update={"codec": codec}))
            members = encode_sample(as_pair(window) if pairs else window)
            for extension, data in (damage(window.key, members) if damage else members).items():
                info = tarfile.TarInfo(f"{window.key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    path = f"{split}-{label.value}-{number:05d}.tar"
    (folder / path).write_bytes(buffer.getvalue())
    return ShardEntry(
        path=path,
        split=split,
        label=label,
        samples=len(seeds),
        bytes=buffer.tell(),
        sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
    )

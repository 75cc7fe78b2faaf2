"""Cards for Hugging Face's hub: README.md of a dataset or a model, with the YAML at its top, from what is recorded.

Nothing is claimed that the manifest or the checkpoint does not say. Licence, language and where the people's consent is
from are for the owner to add: they are left as lines to be filled in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from visavis.schemas.coefficients import column_groups, kind_of
from visavis.schemas.dyads import WindowClass
from visavis.schemas.manifest import Manifest, MotionSpec
from visavis.schemas.words import counted, size
from visavis.training.checkpoint import Checkpoint

_TO_FILL = "to be filled in"
_LICENCE = {"license": "other", "license_name": "to-be-filled-in"}  # the hub refuses words of ours as a licence


def dataset_card(manifest: Manifest, digest: str, name: str) -> str:
    """README.md of a dataset or a set of pairs. digest: sha256 of its manifest."""
    windows = sum(shard.samples for shard in manifest.shards)
    pairs = manifest.kind == "pairs"
    head = {
        **_LICENCE,
        "pretty_name": name,
        "task_categories": ["other"],
        "tags": ["webdataset", "dyadic-conversation", "listening-head", *(["preference-pairs"] if pairs else [])],
        "size_categories": [_size_category(windows)],
        "configs": [{"config_name": "default", "data_files": _data_files(manifest)}],
    }
    return _page(head, name, [
        f"{counted(windows, 'preference pair' if pairs else 'window')} of {manifest.window} frames at"
        f" {manifest.fps} fps, of {counted(manifest.conversations, 'conversation')} with"
        f" {counted(manifest.participants, 'participant')}; voices at {manifest.sample_rate} Hz;"
        f" {size(sum(shard.bytes for shard in manifest.shards))} in {counted(len(manifest.shards), 'shard')}.",
        _motion(manifest.motion),
        _classes(manifest),
        *([_pairs(manifest)] if pairs else []),
        "## Read it\n\nShards are WebDataset tars; the members of a sample are described in the project's page"
        " *Dataset and pairs*. People are in one split only, where their corpus did not say otherwise.",
        f"## Origin\n\nMade by visavis. Manifest sha256 `{digest}`, settings `{manifest.fingerprint}`."
        f"\n\n- Source recordings and their licence: {_TO_FILL}\n- Consent of the people shown: {_TO_FILL}",
    ])  # fmt: skip


def model_card(checkpoint: Checkpoint, digest: str, name: str) -> str:
    """README.md of a checkpoint. digest: sha256 of its file."""
    config = checkpoint.config
    tags = ["listening-head", "motion-generation", "flow-matching", *(["dpo"] if checkpoint.pairs else [])]
    head = {**_LICENCE, "library_name": "visavis", "tags": tags, "pipeline_tag": "other"}
    weights = sum(tensor.numel() for tensor in checkpoint.ema.values())
    model, objective = config.model, config.objective
    student = config.distill.evaluations
    tuned = (
        f"Tuned on preference pairs `{checkpoint.pairs}`, from `{checkpoint.reference}`."
        if checkpoint.pairs
        else f"Distilled to {counted(student, 'evaluation')} a block, from `{checkpoint.reference}`."
        if student
        else f"Drop pattern: full {objective.full:g}, no user {objective.no_user:g}, no avatar {objective.no_avatar:g},"
        f" none {objective.none:g}; norm {objective.norm}."
    )
    return _page(head, name, [
        "A causal listener: motion of an avatar from both voices and the user's motion, in blocks of"
        f" {model.block} frames with {model.look_ahead} frames of look-ahead. {weights:,} numbers;"
        f" step {checkpoint.step}.",
        _motion(checkpoint.motion),
        f"## Training\n\nTrained on a dataset with manifest sha256 `{checkpoint.manifest}`. {tuned}"
        f"\n\n```yaml\n{yaml.safe_dump(config.model_dump(mode='json'), sort_keys=False)}```",
        f"## Figures\n\n{_TO_FILL}: `visavis evaluate CHECKPOINT DATASET`",
        f"## Origin\n\nThe file is safetensors, nothing in it can run; sha256 `{digest}`."
        f"\n\n- Licence of the training data: {_TO_FILL}\n- Intended use: {_TO_FILL}",
    ])  # fmt: skip


def write_card(text: str, out: Path) -> None:
    """Commit a card; what is there is not replaced, for people edit it."""
    with out.open("x", encoding="utf-8") as file:
        file.write(text)


def _page(head: dict[str, Any], name: str, parts: list[str]) -> str:
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    body = "\n\n".join(part for part in parts if part)
    return f"---\n{front}---\n\n# {name}\n\n{body}\n"


def _motion(motion: MotionSpec) -> str:
    groups = ", ".join(f"{group} {span.start}–{span.stop - 1}" for group, span in column_groups(motion).items())
    model = kind_of(motion.codec)
    what = f"coefficients of {model}" if model else "a codec of this project, on 478 landmarks"
    return f"## Motion\n\n`{motion.codec}`: {motion.dim} numbers a frame, {what}. Columns: {groups}."


def _classes(manifest: Manifest) -> str:
    rows = [
        f"| {label.value} | {sum(s.samples for s in manifest.of('train', label))}"
        f" | {sum(s.samples for s in manifest.of('val', label))} | {manifest.plan.mixture.get(label, 0.0):.0%} |"
        for label in WindowClass
    ]
    return "\n".join(["| class | train | held out | drawn |", "|---|---|---|---|", *rows])


def _pairs(manifest: Manifest) -> str:
    made = manifest.pairs
    if made is None:
        return ""
    left = ", ".join(f"{reason} {count}" for reason, count in made.gated.items()) or "none"
    return f"## Pairs\n\nChosen: {made.chosen}; rejected: {made.rejected}. Left out by the gate: {left}."


def _data_files(manifest: Manifest) -> list[dict[str, str]]:
    there = [("train", "train", "train/*.tar"), ("val", "validation", "val/*.tar")]
    return [{"split": name, "path": path} for split, name, path in there if manifest.of(split)]  # type: ignore[arg-type]


def _size_category(count: int) -> str:
    edges = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for edge, name in edges if count < edge), "1M<n<10M")

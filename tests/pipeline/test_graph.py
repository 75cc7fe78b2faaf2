"""The graph of stages: what one version built is not built again by the next, and what shapes the data is known.

A forgotten field would redo a corpus or, worse, would not.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from safetensors.numpy import save_file

from tests.stages.onnx_networks import of_cells
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.graph import STEPS, Graph, Step, check_types, drawing, step
from visavis.schemas.config import BuildConfig
from visavis.schemas.markers import marker_of, shaping
from visavis.schemas.recipes import load_config
from visavis.schemas.train import TrainConfig
from visavis.stages.bind import BindStage
from visavis.stages.separate import SeparateStage

REPOSITORY = Path(__file__).parents[2]
PINNED: dict[str, dict[str, str]] = {
    "default.yaml": {
        "ingest": "9a0e13052725",
        "diarize": "3ea71c8c1809",
        "glance": "0124dd21cb0b",
        "faces": "e5cd7eead67f",
        "cast": "9ba9a17745a2",
        "bind": "e1c8ac770548",
        "separate": "ea0baa8c9b16",
        "fit": "213d07b8e372",
        "motion": "88de03a98274",
        "windows": "90e5f1463763",
        "census": "5a8c120d03f1",
        "shard": "877533c9eb30",
    },
    "demo.yaml": {
        "fit": "2bd1a240623a",
        "windows": "434bf16274ba",
        "census": "41b76fbc01c1",
        "shard": "298f55593654",
    },
    "cluster.yaml": {},
    "default.yaml, transcribed": {
        "transcribe": "3aacee95b2f3",
        "windows": "12dda3b039be",
        "census": "de0ed73b5885",
        "shard": "03b7cf88829d",
    },
    "default.yaml, voiceprints": {"voiceprints": "b8f43d69beb3"},
    "default.yaml, network": {
        "encode": "2b11e8fad172",
        "fit": "f521e0a97748",
        "motion": "e3f53512087b",
        "windows": "2ea9fa26ed9f",
        "census": "2a86800501a7",
        "shard": "15804be03c24",
    },
    "default.yaml, all": {
        "soundprint": "16c7246e32c5",
        "dnsmos": "321881fdbc74",
        "glance": "e694484cb3ee",
        "faces": "05de712e0c52",
        "filmprint": "9fa73704ee39",
        "cast": "1535a2b35554",
        "bind": "231809d10b4a",
        "separate": "25b376886568",
        "transcribe": "cd99a0e4652b",
        "faceprints": "f85774dceeef",
        "encode": "69deb044d7d0",
        "fit": "d1850938e095",
        "motion": "0d1983e266bb",
        "windows": "eb067ee08942",
        "census": "7c8fb506a913",
        "shard": "a8af58279d9b",
    },
}
"""Of the recipes that are shipped, with what is switched on beside; those after the first only where they differ."""

MARKED = {
    *("sources", "run", "diarize.device", "transcribe.device", "transcribe.folder", "faces.landmarker"),
    *("separate.device", "separate.weights", "separate.weights_sha256", "voiceprints.device"),
    *("faceprints.weights", "faceprints.weights_sha256"),
    *("encode.device", "encode.network", "encode.network_sha256", "shard.labeller"),
}
MARKED_OF_TRAINING = {
    *("sampler", "device", "log_every", "checkpoint_every", "keep_checkpoints", "keep_every", "val_batches"),
    *("max_bad_samples", "readers", "features.weights", "optim.compile", "dpo.cache"),
    "optim.activation_checkpointing",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What settings name: encoders, a separator's weights and a labeller, of always the same bytes."""
    folder = tmp_path_factory.mktemp("files")
    with zipfile.ZipFile(folder / "encoder.pt", "w") as archive:
        for part in ("code/network.py", "constants.pkl"):
            archive.writestr(zipfile.ZipInfo(f"encoder/{part}"), "encoder")
    (folder / "own.py").write_text("def label(samples):\n    return [[] for _ in samples]\n")
    save_file({"encoder": np.zeros(3, np.float32)}, folder / "encoder.safetensors")
    (folder / "faces.onnx").write_bytes(of_cells())
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recipe(name: str, files: Path) -> BuildConfig:
    """A recipe that is shipped, `, with` more."""
    network, weights, faces = (files / name for name in ("encoder.pt", "encoder.safetensors", "faces.onnx"))
    encoder = ["motion.kind=network", f"encode.network={network}", f"encode.network_sha256={sha256(network)}"]
    separator = ["backend=convtasnet", f"weights={weights}", f"weights_sha256={sha256(weights)}"]
    more = {
        "transcribed": ["transcribe.enabled=true", "transcribe.folder=models"],
        "voiceprints": ["voiceprints.enabled=true"],
        "network": encoder,
        "all": [
            *(*encoder, "transcribe.enabled=true", "faces.landmarker=face.task", "faces.model=face-landmarker"),
            *(f"separate.{setting}" for setting in separator),
            f"shard.labeller={files / 'own.py'}:label",
            *(f"faceprints.weights={faces}", f"faceprints.weights_sha256={sha256(faces)}"),
            "duplicates.enabled=true",
            "dnsmos.enabled=true",
        ],
    }
    file, _, what = name.partition(", ")
    return load_config(REPOSITORY / "configs" / file, BuildConfig, more.get(what, []))


@pytest.mark.parametrize("name", PINNED)
def test_runs_of_earlier_versions_go_on(name: str, files: Path) -> None:
    assert Graph(recipe(name, files)).fingerprints == PINNED["default.yaml"] | PINNED[name]


def leaves(kind: type[BaseModel], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a configuration that is no section, by its path."""
    for name, field in kind.model_fields.items():
        inside = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        section = next((each for each in inside if issubclass(each, BaseModel)), None)
        if section and field.default is not None and name not in ("resources", "plugins"):
            yield from leaves(section, (*before, name))
        else:
            yield (*before, name)


def another(path: tuple[str, ...], config: BaseModel, files: Path) -> BaseModel:
    """The same with another value of one field, whatever the field takes."""
    value: Any = config
    for name in path:
        value = getattr(value, name)
    files_of = (("encode", "network"), ("separate", "weights"), ("faceprints", "weights"), ("shard", "labeller"))
    if path in files_of:  # the same file elsewhere
        candidates: list[Any] = [str(files / ".." / files.name / Path(value).name)]
    elif path[-1] == "weights_sha256" and value:
        candidates = [None]
    else:
        numbers = [value / 2, value * 2, value + 1, 0.5, 10] if isinstance(value, int | float) else []
        words = ["pyannote", "facemesh", "decord", "mask", "0..1", "landmark-pca", "cpu", "local", "f" * 64, "x"]
        words += ["frame", "l1", "l2", "wav2vec2", "paper", "none", "layer", "cosine", "bfloat16", "listening"]
        words += ["bgr", "logit_normal", "thread", "elsewhere.py:Class", "dpo", "turns", "column", "shortfall", "sides"]
        mappings = [{"x": "y"}, {"x": ["y"]}, {"x": {}}, {"speaking": 1.0}, {"x": {"code": "a.py:B"}}]
        candidates = [not value, *numbers, *words, *mappings, ["x"], [1], [0.5, 0.5], [0.2, 0.5], {}, 0.5]
    for candidate in candidates:
        if candidate != value and (changed := _with(path, candidate, config)) not in (None, config):
            return changed
    raise AssertionError(f"no other value of {'.'.join(path)} is known; add one here")


def _with(path: tuple[str, ...], value: Any, config: BaseModel) -> BaseModel | None:
    plain = config.model_dump(mode="json")
    if path in SHARES and value == 0.5:  # they sum to one
        plain["objective"] |= dict.fromkeys(SHARES[path], 0.0) | {SHARES[path][0]: 0.5}
    place = plain
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    try:
        return type(config).model_validate(plain)
    except ValidationError:
        return None


def is_marked(path: tuple[str, ...], kind: type[BaseModel]) -> bool:
    for name in path:
        field = kind.model_fields[name]
        if marker_of(field):
            return True
        inside = (field.annotation, *get_args(field.annotation))
        kind = next((k for k in inside if isinstance(k, type) and issubclass(k, BaseModel)), kind)
    return False


NAMES = ("full", "no_user", "no_avatar", "none")
SHARES = {("objective", name): [other for other in NAMES if other != name] for name in NAMES}
FIXED = {("encode", "network_sha256"), ("split", "people")}
"""A network runs by its digest only, so it has no other value beside the same file. Splits by voice need voiceprints:
tests/e2e/test_people.py."""
SELECTING = {("quality",), ("duplicates", "min_overlap"), ("split", "face_threshold")}
"""What is measured is held against these anew in each run: they are in its settings, and nothing is measured again."""


@pytest.mark.parametrize("path", [path for path in leaves(BuildConfig) if path not in FIXED], ids=".".join)
def test_what_shapes_the_data_and_nothing_else_does_it_anew(path: tuple[str, ...], files: Path) -> None:
    config = recipe("default.yaml, all", files)
    changed = another(path, config, files)
    if path == ("plugins",):
        assert shaping(changed) != shaping(config)
        return  # tests/pipeline/test_plugins.py
    assert isinstance(changed, BuildConfig)
    same = Graph(changed).fingerprints == Graph(config).fingerprints
    assert same == (is_marked(path, BuildConfig) or not SELECTING.isdisjoint({path[:1], path}))
    assert (shaping(changed) == shaping(config)) == is_marked(path, BuildConfig)


@pytest.mark.parametrize("path", leaves(TrainConfig), ids=".".join)
def test_a_training_run_goes_on_with_other_settings_that_do_not_shape_its_weights(
    path: tuple[str, ...], files: Path
) -> None:
    changed = another(path, TrainConfig(), files)
    assert (shaping(changed) == shaping(TrainConfig())) == is_marked(path, TrainConfig)


@pytest.mark.parametrize(("kind", "marked"), [(BuildConfig, MARKED), (TrainConfig, MARKED_OF_TRAINING)])
def test_these_settings_and_no_others_are_said_not_to_shape_anything(kind: type[BaseModel], marked: set[str]) -> None:
    found = {".".join(path) for path in leaves(kind) if is_marked(path, kind)}
    inside = {name for name in found if any(name.startswith(f"{section}.") for section in marked)}
    assert found - inside == {name for name in marked if name in found}
    assert {name for name in marked if name not in found} == {name.partition(".")[0] for name in inside}


def test_a_stage_that_takes_what_nobody_makes_is_found_before_anything_starts() -> None:
    steps = {step.name: step for step in STEPS}
    check_types(steps)
    wrong = Step(BindStage, ("bind",), takes={"conversation": "ingest", "cast": "faces"})
    with pytest.raises(TypeError, match=r"bind\.cast takes Cast, but faces makes FaceTracks"):
        check_types(steps | {"bind": wrong})


def test_the_readme_draws_the_graph_as_it_is() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    _, _, rest = readme.partition("<!-- stages -->\n\n")
    shown, _, _ = rest.partition("\n\n<!-- /stages -->")
    assert [line.removeprefix("    ") for line in shown.splitlines()] == drawing().splitlines()


def test_a_run_says_of_its_settings_what_it_always_said(tmp_path: Path) -> None:
    config = Build(BuildConfig(), str(tmp_path), local_engine, Reporter()).settings["config"]
    newer = {"voiceprints", "faceprints", "split", "duplicates", "dnsmos"}
    assert set(config) == set(BuildConfig.model_fields) - {"sources", "run", "plugins"} - newer
    assert "device" not in config["diarize"]


def test_a_step_of_two_sections_goes_by_what_its_weights_are(tmp_path: Path) -> None:
    made = step(SeparateStage, "separate", "balance")
    prints = []
    for value in (0.0, 1.0):
        save_file({"w": np.full(1, value)}, file := tmp_path / f"{value}.safetensors")
        weights = {"backend": "convtasnet", "weights": str(file), "weights_sha256": sha256(file)}
        prints.append(made.fingerprint(BuildConfig.model_validate({"separate": weights}), ()))
    assert prints[0] != prints[1]

"""Recipes are typed data, and what is wrong with one is said in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.config import BuildConfig, load_config, parse_config
from schemas.dyads import WindowClass
from schemas.errors import UsageError
from schemas.train import TrainConfig
from training.features import audio_spec

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_default_recipe_states_the_defaults() -> None:
    assert load_config(CONFIGS / "default.yaml", BuildConfig) == BuildConfig()
    assert load_config(CONFIGS / "train" / "paper.yaml", TrainConfig).model == TrainConfig().model


def test_wav2vec2_waits_no_longer_than_the_paper_does() -> None:
    paper, encoded = (load_config(CONFIGS / "train" / f"{name}.yaml", TrainConfig) for name in ("paper", "wav2vec2"))
    waits = [audio_spec(config.features, config.model).stream_wait_ms for config in (paper, encoded)]
    assert waits == [480, 480]
    assert (encoded.features.kind, encoded.optim.precision) == ("wav2vec2", paper.optim.precision)


@pytest.mark.parametrize("name", ["default.yaml", "demo.yaml", "cluster.yaml"])
def test_every_recipe_loads(name: str) -> None:
    load_config(CONFIGS / name, BuildConfig)


def test_overrides_are_yaml_values() -> None:
    config = parse_config("windows: {hop: 10}", BuildConfig, ["windows.length=100", "balance.mixture={listening: 1}"])
    assert (config.windows.length, config.windows.hop) == (100, 10)
    assert config.balance.mixture == {WindowClass.LISTENING: 1.0}


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("windows: {lenght: 50}", [], r"windows\.lenght: unknown key"),
        ("windows: {length: fifty}", [], r"windows\.length: .*valid integer"),
        ("windows: [50]", [], r"windows: "),
        ("- a", [], "must be a mapping"),
        ("a: [", [], "not valid YAML"),
        ("", ["windows.length"], "wants section.key=value"),
        ("", ["windows.length.x=1", "windows.length=2"], r"windows\.length"),
        ("windows: 3", ["windows.length=50"], "windows is not a section"),
        ("balance: {mixture: {speaking: -1}}", [], "mixture needs shares"),
        ("x: !!python/object/apply:os.system [ls]", [], "not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        parse_config(text, BuildConfig, overrides)
    assert "\n" not in str(error.value)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        BuildConfig().windows.length = 3  # type: ignore[misc]


def test_a_missing_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read config"):
        load_config(tmp_path / "absent.yaml", BuildConfig)

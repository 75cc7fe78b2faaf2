"""The list of production models is complete and honest about what is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.assets import at_hand, read_assets
from schemas.errors import UsageError


def test_every_asset_says_where_it_comes_from_and_under_which_licence() -> None:
    assets = read_assets()
    assert {"pyannote-community-1", "whisper-large-v3", "face-landmarker"} <= {a.name for a in assets}
    assert all(a.licence and a.used_by and a.size_mb > 0 for a in assets)


def test_a_model_that_was_not_fetched_is_not_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (hub, *_) = [a for a in read_assets() if a.hub_id]
    assert at_hand(hub.model_copy(update={"source": "hub: nobody/never-fetched"})) is False
    assert at_hand(hub.model_copy(update={"source": "project: a web page"})) is None


def test_a_broken_list_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "assets.yaml"
    path.write_text("assets: [{name: x}]")
    with pytest.raises(UsageError, match="cannot read") as error:
        read_assets(path)
    assert "\n" not in str(error.value)

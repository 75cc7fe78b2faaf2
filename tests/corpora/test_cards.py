"""Cards say what is recorded, in YAML that the hub reads, and never write over what somebody edited."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.training.synthetic import write_dataset
from visavis.pipeline.cli.cards import dataset_card, write_card
from visavis.training.dataset import Dataset


def test_a_datasets_card_has_yaml_and_its_counts(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    data = Dataset(str(tmp_path))
    text = dataset_card(data.manifest, data.hash, "name: odd")
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["pretty_name"] == "name: odd"
    assert {"split": "train", "path": "train/*.tar"} in head["configs"][0]["data_files"]
    assert data.hash in body
    assert f"{sum(shard.samples for shard in data.manifest.shards)} windows" in body
    write_card(text, tmp_path / "README.md")
    with pytest.raises(FileExistsError):
        write_card("other", tmp_path / "README.md")

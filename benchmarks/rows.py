"""What a row of the preference table is: steps after a base, with pairs or without, and how motion is then sampled.

Rows lie in a YAML file (`benchmarks/rows.yaml`), so that a recipe can be tried without touching code:

    pairs: {NAME: settings of `PairsConfig`, …}
    rows: {NAME: {pairs: NAME, dpo: {…}, objective: {…}, sampler: {…}, lr: 3e-4, steps: 1, corpora: […]}, …}
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from benchmarks.reactivity import SAMPLER
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.section import Section
from visavis.schemas.train import DpoConfig, ObjectiveConfig, SamplerConfig

ROWS = Path(__file__).with_name("rows.yaml")
CONTROL = "control"


class RowSpec(Section):
    pairs: str | None = Field(None, description="name of the pairs; none: the flow loss alone")
    dpo: dict[str, Any] = Field({}, description="of `DpoConfig`")
    objective: dict[str, Any] = Field({}, description="of `ObjectiveConfig`, for the further steps")
    sampler: dict[str, Any] = Field({}, description="of `SamplerConfig`, for what is judged; costs no training")
    lr: float | None = Field(None, gt=0, description="peak of the further steps; none: the table's")
    steps: float = Field(1.0, ge=0, description="times the table's further steps; 0: the base as it is")
    settle: bool = Field(False, description="taken back where reactions go beyond, as `visavis tune` does")
    quick: bool = Field(True, description="whether it is part of the quick table")
    corpora: tuple[str, ...] | None = Field(None, description="corpora that it makes sense on; none: all")

    @property
    def sampling(self) -> SamplerConfig:
        return SamplerConfig.model_validate(SAMPLER.model_dump() | self.sampler)


class Rows(Section):
    pairs: dict[str, dict[str, Any]] = Field({}, description="of `PairsConfig`, by name")
    rows: dict[str, RowSpec]

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        """A misspelt setting is found here and not after an hour."""
        for name, settings in self.pairs.items():
            _check(f"pairs {name}", PairsConfig, settings)
        for name, row in self.rows.items():
            if row.pairs is not None and row.pairs not in self.pairs:
                raise ValueError(f"row {name}: no pairs are called {row.pairs}")
            for config, settings in ((DpoConfig, row.dpo), (ObjectiveConfig, row.objective)):
                _check(f"row {name}", config, settings)
            _check(f"row {name}", SamplerConfig, row.sampler)
        return self

    def chosen(self, names: list[str] | None, *, quick: bool = False) -> Rows:
        """These rows, or all of the table, and the control, which all are held against.

        Raises:
            ValueError: no such row.
        """
        if names is None:
            names = [name for name, row in self.rows.items() if row.quick or not quick]
        if unknown := [name for name in names if name not in self.rows]:
            raise ValueError(f"no such row: {'; '.join(unknown)}. There are: {'; '.join(self.rows)}")
        return Rows(pairs=self.pairs, rows={n: row for n, row in self.rows.items() if n in (*names, CONTROL)})


def read_rows(path: Path) -> Rows:
    """
    Raises:
        OSError: it cannot be read.
        ValueError: it says what no row can be.
    """
    try:
        return Rows.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML") from error


def digest(*described: object) -> str:
    """Short name of what a file was made by: where anything of it changes, the file is another."""
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:10]


def _check(where: str, config: type[Section], settings: dict[str, Any]) -> None:
    try:
        config.model_validate(settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error

"""Production models: what they are, under which licence, and whether they are at hand.

Nothing here is needed for a first run. Hub models are at hand when the hub's own cache on this machine has them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import Field, ValidationError

from schemas.config import Section
from schemas.errors import UsageError

ASSETS_FILE = Path(__file__).parent.parent / "configs" / "assets.yaml"


class Asset(Section):
    """One entry of `configs/assets.yaml`; its head explains the fields."""

    name: str
    what: str
    licence: str
    size_mb: float
    source: str = Field(pattern=r"^(hub|project): ")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    gated: bool
    used_by: str
    extra: str | None = None

    @property
    def hub_id(self) -> str | None:
        """Its id on the model hub, where it has one."""
        kind, _, name = self.source.partition(": ")
        return name if kind == "hub" else None


class _Assets(Section):
    assets: tuple[Asset, ...]


def read_assets(path: Path = ASSETS_FILE) -> tuple[Asset, ...]:
    """The known production models.

    Raises:
        UsageError: the file is missing or not what its head describes.
    """
    try:
        return _Assets.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).assets
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise UsageError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def at_hand(asset: Asset) -> bool | None:
    """True or False for a hub model; None where only its user can know."""
    if asset.hub_id is None:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(asset.hub_id, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def run_assets(*, as_json: bool) -> None:
    """`visavis assets`."""
    rows: list[dict[str, Any]] = [a.model_dump(mode="json") | {"at_hand": at_hand(a)} for a in read_assets()]
    if as_json:
        typer.echo(json.dumps({"assets": rows}, sort_keys=True))
        return
    for row in rows:
        known = {True: "at hand", False: "not at hand", None: "at hand only where you put it"}[row["at_hand"]]
        gated = ", gated: accept its terms and set HF_TOKEN" if row["gated"] else ""
        typer.echo(f"{row['name']}: {row['what']}\n    {row['licence']}, {row['size_mb']:.0f} MB, {known}{gated}")
        typer.echo(f"    from {row['source']}, used by {row['used_by']}")

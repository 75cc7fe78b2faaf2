"""Production models: what they are, under which licence, where they are fetched to, and whether they are intact.

Nothing here is needed for a first run. A hub model is at hand when the hub's own cache on this machine has it, a file
when it lies in `~/.cache/visavis`; or, for both, in the folder that they were fetched to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

import visavis
from visavis.pipeline.cli.download import damaged_files, digest_of
from visavis.schemas.errors import UsageError
from visavis.schemas.section import Section
from visavis.schemas.words import candidates
from visavis.stages.models.hub import fetched

_PICKLED = (".pt", ".pth", ".bin")
ASSETS_FILE = Path(visavis.__file__).parent / "configs" / "assets.yaml"


class Asset(Section):
    """One entry of `configs/assets.yaml`; its head explains the fields."""

    name: str
    what: str
    licence: str
    size_mb: float
    source: str = Field(pattern=r"^(hub: [^/\s]+/[^/\s]+|url: https?://\S+/[^/\s?#]+)$")
    files: tuple[str, ...] | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    gated: bool
    used_by: str
    setting: str | None = None
    extra: str | None = None

    @property
    def hub_id(self) -> str | None:
        """Its id on the model hub, where it has one."""
        kind, _, name = self.source.partition(": ")
        return name if kind == "hub" else None

    @property
    def url(self) -> str:
        """Where its one file is, if it has no hub id."""
        return self.source.partition(": ")[2]

    def file(self, folder: str | None) -> Path:
        """Where that file is fetched to."""
        own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visavis"
        return (Path(folder) if folder else own) / self.url.rpartition("/")[2]

    def served(self, fetched: Path) -> Path:
        """The file that is used: what was pickled is converted once it was fetched, and nothing else reads it."""
        return fetched.with_suffix(".safetensors") if fetched.suffix in _PICKLED else fetched


class _Assets(Section):
    assets: tuple[Asset, ...]


def read_assets() -> tuple[Asset, ...]:
    """The known production models.

    Raises:
        UsageError: the file is missing or not what its head describes.
    """
    try:
        return _Assets.model_validate(yaml.safe_load(ASSETS_FILE.read_text(encoding="utf-8"))).assets
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise UsageError(f"cannot read {ASSETS_FILE}: {str(error).splitlines()[0]}") from error


def at_hand(asset: Asset, folder: str | None = None) -> Path | None:
    """The fetched file, or the folder of a fetched hub model. folder: where it was fetched to."""
    if asset.hub_id:
        return fetched(asset.hub_id, folder, asset.files or ())
    path = asset.file(folder)
    return asset.served(path) if path.is_file() and asset.served(path).is_file() else None


def named_assets(names: Sequence[str]) -> list[Asset]:
    """The assets of these names; one with a slash that is not on the list is a model of the hub.

    Raises:
        UsageError: a name that is neither.
    """
    known = {key: asset for asset in read_assets() for key in (asset.name, asset.hub_id) if key}
    return [known[name] if name in known else _of_hub(name) for name in names]


def _of_hub(name: str) -> Asset:
    try:
        return Asset(
            name=name, what="a model of the hub", licence="see its page", size_mb=0, source=f"hub: {name}",
            gated=False, used_by="whoever names it",
        )  # fmt: skip
    except ValidationError as error:
        raise UsageError(
            f"no model is called {name!r}; {candidates(name, (a.name for a in read_assets()), 'model')};"
            " others of the hub are called OWNER/MODEL"
        ) from error


def converted(asset: Asset, path: Path) -> Path:
    """The file that serves, made of the one that was fetched."""
    served = asset.served(path)
    if served != path:
        from visavis.training.convert import convert  # torch takes its time

        served.unlink(missing_ok=True)  # of what was fetched before
        convert(path, served)
    return served


def damage(asset: Asset, path: Path) -> list[str]:
    """What is wrong with a model that is at hand."""
    if asset.hub_id:
        return [f"{name} is damaged" for name in damaged_files(path)]
    fetched = path.with_name(asset.url.rpartition("/")[2])
    return ["not the pinned file"] if asset.sha256 and asset.sha256 != digest_of(fetched) else []

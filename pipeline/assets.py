"""Production models: what they are, under which licence, where they are fetched to, and whether they are sound.

Nothing here is needed for a first run. A hub model is at hand when the hub's own cache on this machine has it, a file
when it lies in `~/.cache/visavis`; or, for both, in the folder that they were fetched to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from pipeline.download import damaged_files, digest_of, fetch_file, fetch_hub, names_in
from pipeline.progress import Reporter
from pipeline.terminal import say, say_json
from schemas.config import Section
from schemas.errors import UsageError
from schemas.words import candidates
from stages.hub import fetched

_PICKLED = (".pt", ".pth", ".bin")
ASSETS_FILE = Path(__file__).parent.parent / "configs" / "assets.yaml"


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
        return (Path(folder) if folder else _own_cache()) / self.url.rpartition("/")[2]

    def served(self, fetched: Path) -> Path:
        """The file that is used: what was pickled is converted once it was fetched, and nothing else reads it."""
        return fetched.with_suffix(".safetensors") if fetched.suffix in _PICKLED else fetched


class _Assets(Section):
    assets: tuple[Asset, ...]


def _own_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visavis"


def read_assets(path: Path | None = None) -> tuple[Asset, ...]:
    """The known production models.

    Raises:
        UsageError: the file is missing or not what its head describes.
    """
    path = path or ASSETS_FILE
    try:
        return _Assets.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).assets
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise UsageError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def at_hand(asset: Asset, folder: str | None = None) -> Path | None:
    """The fetched file, or the folder of a fetched hub model. folder: where it was fetched to."""
    if asset.hub_id:
        return fetched(asset.hub_id, folder, names_in(asset.files))
    path = asset.file(folder)
    return asset.served(path) if path.is_file() and asset.served(path).is_file() else None


def run_list(folder: str | None, *, as_json: bool) -> None:
    """`visavis assets`."""
    rows = [(asset, at_hand(asset, folder)) for asset in read_assets()]
    if as_json:
        plain = [a.model_dump(mode="json") | {"at_hand": path is not None, "path": _text(path)} for a, path in rows]
        say_json({"assets": plain})
        return
    for asset, path in rows:
        gated = ", gated: accept its terms and set HF_TOKEN" if asset.gated else ""
        known = f"at hand: {path}" if path else "not at hand"
        say(f"{asset.name}: {asset.what}\n    {asset.licence}, {asset.size_mb:.0f} MB, {known}{gated}")
        say(f"    from {asset.source}, used by {asset.used_by}")


def run_fetch(names: Sequence[str], folder: str | None) -> None:
    """`visavis assets fetch`.

    Raises:
        UsageError: an unknown name, or a model that is not ours to have yet.
        RunFailed: one cannot be had.
    """
    reporter = Reporter()
    for asset in _named(names):
        path = at_hand(asset, folder)
        if path is None or _findings(asset, path):
            reporter.line(f"{asset.name}: fetching from {asset.url}")
            path = _fetch(asset, folder, reporter, again=path is not None)
        say(f"{asset.name}: {path}")
        if asset.setting and (folder or not asset.hub_id):
            value = asset.setting.format(path=path, folder=folder)
            say(f"    use it with --set {value}")


def run_check(names: Sequence[str], folder: str | None, *, as_json: bool) -> bool:
    """`visavis assets check`: of those named, or of all that are at hand. True if all is well.

    Raises:
        UsageError: an unknown name.
    """
    rows: list[dict[str, Any]] = []
    for asset in _named(names) if names else read_assets():
        path = at_hand(asset, folder)
        if path or names:
            findings = _findings(asset, path) if path else ["not at hand"]
            rows.append({"name": asset.name, "path": _text(path), "findings": findings})
    if as_json:
        say_json({"assets": rows})
    for row in rows if not as_json else ():
        say(f"{row['name']}: {', '.join(row['findings']) or 'sound'}{row['path'] and '  ' + row['path']}")
    if not rows and not as_json:
        say("no model is at hand; `visavis assets` lists them")
    return not any(row["findings"] for row in rows)


def _named(names: Sequence[str]) -> list[Asset]:
    """The assets of these names; one with a slash that is not on the list is a model of the hub."""
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


def _fetch(asset: Asset, folder: str | None, reporter: Reporter, *, again: bool) -> Path:
    if asset.hub_id:
        return fetch_hub(asset.hub_id, folder, asset.files, reporter, again=again)
    path = asset.file(folder)
    sha256 = fetch_file(asset.url, path, asset.sha256, reporter)
    if asset.sha256 is None:
        reporter.line(f"{asset.name}: sha256 {sha256}, not pinned: compare it with what others have")
    return _converted(asset, path)


def _converted(asset: Asset, path: Path) -> Path:
    served = asset.served(path)
    if served != path:
        from training.convert import convert  # torch takes its time

        served.unlink(missing_ok=True)  # of what was fetched before
        convert(path, served)
    return served


def _findings(asset: Asset, path: Path) -> list[str]:
    if asset.hub_id:
        return [f"{name} is damaged" for name in damaged_files(path)]
    fetched = path.with_name(asset.url.rpartition("/")[2])
    return ["not the pinned file"] if asset.sha256 and asset.sha256 != digest_of(fetched) else []


def _text(path: Path | None) -> str:
    return str(path or "")

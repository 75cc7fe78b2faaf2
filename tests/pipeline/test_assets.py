"""Production models: the list is complete, what is fetched is whole, and what cannot be had is told in one line."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.pipeline.filehost import FileHost, file_host
from tests.pipeline.test_cli import CONFIG, text_as_video, visavis
from visavis.pipeline.cli.assets import at_hand, read_assets
from visavis.schemas.errors import UsageError

__all__ = ["text_as_video"]

FILE = bytes(range(256)) * 5000
MODEL = {"config.json": b"{}", "weights.bin": FILE[:100_000], "README.md": b"not wanted"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileHost]:
    """A file host and hub, a list of what it has, and caches of our own."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import reset_sessions

    with file_host() as running:
        running.files["/models/face.task"] = FILE
        running.models = {"lab/open": MODEL, "lab/gated": MODEL}
        running.gated, running.members, running.strangers = {"lab/gated"}, {"hf_member"}, {"hf_stranger"}
        plain = {"what": "a model", "licence": "MIT", "size_mb": 1, "gated": False, "used_by": "nobody"}
        listed: list[dict[str, Any]] = [
            plain
            | {
                "name": "face",
                "source": f"url: {running.address}/models/face.task",
                "setting": "faces.landmarker={path}",
            }
            | {"sha256": hashlib.sha256(FILE).hexdigest()},
            plain | {"name": "loose", "source": f"url: {running.address}/models/face.task"},
            plain | {"name": "open", "source": "hub: lab/open", "files": ["config.json", "*.bin"]},
            plain | {"name": "gated", "source": "hub: lab/gated", "gated": True},
        ]
        (tmp_path / "assets.yaml").write_text(yaml.safe_dump({"assets": listed}))
        monkeypatch.setattr("visavis.pipeline.cli.assets.ASSETS_FILE", tmp_path / "assets.yaml")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", running.address)
        template = running.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        reset_sessions()
        yield running
    monkeypatch.undo()
    reset_sessions()


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def assets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    def run(*words: str) -> tuple[int, str, str]:
        code, out, err = visavis(capsys, monkeypatch, "assets", *words)
        if code:
            assert err.count("\n") <= 2  # what was begun, and what went wrong
        return code, out, err

    return run


def test_every_asset_says_where_it_comes_from_and_under_which_licence() -> None:
    known = read_assets()
    assert {"pyannote-community-1", "whisper-large-v3", "face-landmarker"} <= {a.name for a in known}
    assert all(a.licence and a.used_by and a.size_mb > 0 for a in known)
    assert all(a.hub_id or a.url.startswith("https://") for a in known)
    assert all(a.setting is None or "{" in a.setting for a in known)


def test_a_broken_list_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "assets.yaml"
    path.write_text("assets: [{name: x}]")
    monkeypatch.setattr("visavis.pipeline.cli.assets.ASSETS_FILE", path)
    with pytest.raises(UsageError, match="cannot read") as error:
        read_assets()
    assert "\n" not in str(error.value)


def test_a_file_is_fetched_once_and_found_again(host: FileHost, assets: Command, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "visavis" / "face.task"
    code, out, _ = assets()
    assert (code, out.count("not at hand")) == (0, 4)
    code, out, err = assets("fetch", "face")
    assert (code, out) == (0, f"face: {path}\n    use it with --set faces.landmarker={path}\n")
    assert f"fetching from {host.address}" in err
    assert path.read_bytes() == FILE
    assert [p.name for p in path.parent.iterdir()] == ["face.task"]
    assert host.asked == ["GET /models/face.task"]
    assert assets("fetch", "face")[0] == 0
    assert len(host.asked) == 1
    assert assets("check")[:2] == (0, f"face: intact  {path}\nloose: intact  {path}\n")
    plain = json.loads(assets("--json")[1])["assets"]
    assert [(a["name"], a["at_hand"]) for a in plain] == [
        ("face", True), ("loose", True), ("open", False), ("gated", False),
    ]  # fmt: skip


@pytest.mark.slow
def test_what_was_pickled_is_converted_as_soon_as_it_was_fetched(
    host: FileHost, assets: Command, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(3)}, buffer)
    host.files["/models/net.pt"] = buffer.getvalue()
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    listed = yaml.safe_load((tmp_path / "assets.yaml").read_text())["assets"]
    listed[1] |= {"source": f"url: {host.address}/models/net.pt", "setting": "separate.weights={path}"}
    (tmp_path / "assets.yaml").write_text(yaml.safe_dump({"assets": listed}))
    path = tmp_path / "cache" / "visavis" / "net.safetensors"
    code, out, err = assets("fetch", "loose")
    assert (code, out) == (0, f"loose: {path}\n    use it with --set separate.weights={path}\n")
    assert f"sha256 {digest}, not pinned" in err
    assert load_file(path)["weight"].tolist() == [1, 1, 1]
    assert assets("check", "loose")[:2] == (0, f"loose: intact  {path}\n")
    listed[1] |= {"sha256": digest}
    (tmp_path / "assets.yaml").write_text(yaml.safe_dump({"assets": listed}))
    assert assets("check", "loose")[0] == 0
    path.with_suffix(".pt").write_bytes(b"other")
    assert assets("check", "loose")[:2] == (1, f"loose: not the pinned file  {path}\n")


def test_another_folder_may_be_named(host: FileHost, assets: Command, tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "models"
    assert assets("fetch", "loose", "open", "--to", str(folder))[0] == 0
    assert (folder / "face.task").read_bytes() == FILE
    assert at_hand(read_assets()[2], str(folder))
    assert assets("check", "loose", "--in", str(folder))[0] == 0
    code, out, _ = assets("check", "loose")
    assert (code, out) == (1, "loose: not at hand\n")


def test_the_next_command_names_the_folder_too(host: FileHost, assets: Command, tmp_path: Path) -> None:
    folder = str(tmp_path / "models")
    assert f"next: visavis assets check loose --to {folder}" in assets("fetch", "loose", "--to", folder)[2]
    assert f"next: visavis assets fetch NAME --to {folder}" in assets("--to", folder)[2]


def test_a_damaged_file_is_told_and_fetched_again(host: FileHost, assets: Command, tmp_path: Path) -> None:
    assets("fetch", "face")
    path = tmp_path / "cache" / "visavis" / "face.task"
    path.write_bytes(FILE[:-1] + b"x")
    assert assets("check")[:2] == (1, f"face: not the pinned file  {path}\nloose: intact  {path}\n")
    assert assets("fetch", "face")[0] == 0
    assert path.read_bytes() == FILE


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["other", "cut_off", "gone", "down"])
def test_a_file_that_cannot_be_had_leaves_nothing_behind(
    fault: str, host: FileHost, assets: Command, tmp_path: Path
) -> None:
    host.cut_off = fault == "cut_off"
    if fault == "other":
        host.files["/models/face.task"] = b"something else"
    if fault == "gone":
        host.files.clear()
    if fault == "down":
        listing = tmp_path / "assets.yaml"
        listing.write_text(listing.read_text().replace(host.address, "http://127.0.0.1:1"))
    code, out, err = assets("fetch", "face")
    assert (code, out) == (1, "")
    sentence = {"other": "it was not kept", "cut_off": "broke off after 640000 of 1280000 bytes", "gone": "answers 404"}
    assert sentence.get(fault, "cannot be reached") in err
    assert list((tmp_path / "cache" / "visavis").iterdir()) == []


def test_a_hub_model_is_fetched_and_every_file_of_it_can_be_proved(
    host: FileHost, assets: Command, tmp_path: Path
) -> None:
    code, out, _ = assets("fetch", "open")
    assert code == 0
    folder = at_hand(read_assets()[2])
    assert folder is not None
    assert out == f"open: {folder}\n"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {n: MODEL[n] for n in ("config.json", "weights.bin")}
    assert assets("check", "open")[:2] == (0, f"open: intact  {folder}\n")
    for name in ("config.json", "weights.bin"):
        blob = (folder / name).resolve()
        blob.write_bytes(b"x" + blob.read_bytes()[1:])
        assert assets("check")[:2] == (1, f"open: {name} is damaged  {folder}\n")
        assert assets("fetch", "open")[0] == 0
        assert assets("check")[0] == 0
    (folder / "config.json").unlink()
    assert assets("check", "open")[:2] == (1, "open: not at hand\n")


def test_any_model_of_the_hub_may_be_named(host: FileHost, assets: Command) -> None:
    host.models["someone/aligner"] = MODEL
    assert assets("fetch", "someone/aligner")[0] == 0
    assert assets("check", "someone/aligner")[0] == 0
    code, _, err = assets("fetch", "someone/nothing")
    assert (code, "no such model on the hub" in err) == (2, True)
    code, _, err = assets("fetch", "nothing")
    assert (code, "no model is called 'nothing'" in err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("token", "code", "sentence"),
    [
        (None, 2, "lab/gated is gated: accept its terms on {page}, then set HF_TOKEN"),
        ("hf_stranger", 2, "lab/gated is gated: accept its terms on {page}"),
        ("hf_wrong", 2, "the hub refuses the token; set HF_TOKEN to a valid one"),
        ("hf_member", 0, "fetching"),
    ],
)
def test_a_gated_model_says_what_to_do(
    token: str | None, code: int, sentence: str, host: FileHost, assets: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    found, _, err = assets("fetch", "gated")
    assert found == code
    assert sentence.format(page=f"{host.address}/lab/gated") in err
    assert (at_hand(read_assets()[3], None) is not None) == (code == 0)


def test_a_hub_out_of_reach_is_one_line(host: FileHost, assets: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    code, _, err = assets("fetch", "open")
    assert (code, "the hub at http://127.0.0.1:1 cannot be reached" in err) == (1, True)


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["transcribe.enabled=true"], "run `visavis assets fetch Systran/faster-whisper-large-v3`"),
        (["diarize.backend=pyannote"], "run `visavis assets fetch pyannote/speaker-diarization-community-1`"),
        (["faces.model=face-landmarker"], "`visavis assets fetch face-landmarker` gets it"),
    ],
)
def test_a_build_tells_of_a_missing_model_before_it_begins(
    settings: list[str],
    sentence: str,
    dry_run: tuple[str, ...],
    text_as_video: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    out = tmp_path / "run"
    words = [word for setting in settings for word in ("--set", setting)]
    code, shown, err = visavis(capsys, monkeypatch, "build", CONFIG, text_as_video, "--out", str(out), *words, *dry_run)
    assert (code, shown, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert not out.exists()

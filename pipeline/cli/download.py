"""Fetching models: one file by its URL, or a folder of the model hub. Each appears whole or not at all.

Asked for by `visavis assets fetch`, and by nothing else. What cannot be had is told in a sentence that helps.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from visavis.pipeline.engine.progress import Reporter
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.storage.faults import about
from visavis.schemas.storage.store import Store
from visavis.stages.models.hub import fetched

_BLOCK = 1 << 20
_MOST_BYTES = 64 << 30
_PATIENCE = 30.0  # seconds without a byte


def fetch_file(url: str, path: Path, sha256: str | None, reporter: Reporter) -> str:
    """Fetch one file; it takes its name when it is complete and, where that is known, proved to be the right one.

    Returns: its sha256.

    Raises:
        RunFailed: not to be had, cut off, or another file than the pinned one. What was there before is left alone.
    """
    digest, done = hashlib.sha256(), 0
    try:
        with (
            Store(str(path.parent)).writer(path.name) as file,
            urllib.request.urlopen(url, timeout=_PATIENCE) as answer,  # noqa: S310 - from our list: https
        ):
            told = answer.headers.get("Content-Length") or ""
            total = int(told) if told.isdecimal() and len(told) < 20 else 0  # 0: the server says nothing, or no number
            with _progress(path.name, total, reporter) as advance:
                while block := answer.read(_BLOCK):
                    with about(path):
                        file.write(block)
                    digest.update(block)
                    done += len(block)
                    if max(done, total) > _MOST_BYTES:
                        raise RunFailed(f"{url} is larger than the {_MOST_BYTES} bytes that are fetched")
                    advance(len(block))
            if total and done != total:
                raise RunFailed(f"{url} broke off after {done} of {total} bytes; try again")
            if sha256 and digest.hexdigest() != sha256:
                raise RunFailed(
                    f"{url} has sha256 {digest.hexdigest()[:12]}…, not {sha256[:12]}… as pinned: another file lies"
                    " there now, or somebody between us changed it; it was not kept"
                )
    except urllib.error.HTTPError as error:
        raise RunFailed(f"{url}: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise RunFailed(f"{url} cannot be reached: {getattr(error, 'reason', None) or error}") from error
    return digest.hexdigest()


def fetch_hub(
    repository: str, folder: str | None, patterns: tuple[str, ...] | None, reporter: Reporter, *, again: bool = False
) -> Path:
    """Fetch a model of the hub, with the token in HF_TOKEN where there is one.

    Args:
        folder: instead of the hub's own cache; laid out as it is. patterns: files wanted; None: all.
        again: also what seems to be there.

    Returns: the folder that holds its files.

    Raises:
        UsageError: no such model, or its terms are not accepted, or the token is wrong.
        RunFailed: the hub cannot be reached, or broke off.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )
    from huggingface_hub.utils.tqdm import disable_progress_bars

    page = f"{constants.ENDPOINT}/{repository}"
    refused = f"{repository} is gated: accept its terms on {page}, then set HF_TOKEN to a token of the same account"
    if not reporter.console.is_terminal:
        disable_progress_bars()
    try:
        snapshot_download(
            repository,
            cache_dir=folder or constants.HF_HUB_CACHE,
            allow_patterns=list(patterns) if patterns else None,
            force_download=again,
        )
    except GatedRepoError as error:
        raise UsageError(refused) from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"{repository}: no such model on the hub, or a private one that needs HF_TOKEN") from error
    except LocalEntryNotFoundError as error:
        raise RunFailed(f"{repository}: the hub at {constants.ENDPOINT} cannot be reached") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise UsageError(f"{repository}: the hub refuses the token; set HF_TOKEN to a valid one") from error
        if status == 403:
            raise UsageError(f"{refused} that may read it") from error
        raise RunFailed(f"{repository}: the hub answers {status}") from error
    found = fetched(repository, folder, patterns or ())
    if found is None:
        raise RunFailed(f"{repository} was not fetched to the end; try again")
    return found


def damaged_files(folder: Path) -> list[str]:
    """Files of a hub model that are not what was fetched. The hub's cache names each after the digest of its content.

    Large files go by their sha256, others by the id that git gives them. Files that are no links into the cache pass.
    """
    wrong = []
    for path in sorted(p for p in folder.rglob("*") if not p.is_dir()):
        expected = path.resolve().name
        linked = path.is_symlink() and len(expected) in (40, 64)
        if linked and (not path.exists() or expected != digest_of(path, as_git=len(expected) == 40)):
            wrong.append(path.relative_to(folder).as_posix())
    return wrong


def digest_of(path: Path, *, as_git: bool = False) -> str:
    """A file's sha256, or the id that git gives it."""
    git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, (lambda: git) if as_git else "sha256").hexdigest()


@contextlib.contextmanager
def _progress(name: str, total: int, reporter: Reporter) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; elsewhere nothing, as one line tells when it is there."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=reporter.console, transient=True,
        disable=not reporter.console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(name, total=total or None)
        yield lambda count: bar.update(task, advance=count)

"""Two runs in one folder, whose lock has failed: nothing is lost, nothing doubled, nothing half, wherever it lies."""

from __future__ import annotations

import hashlib
import io
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.bucket import BUCKET, S3Server
from tests.clouds import azure_store, google_store
from tests.pipeline.toy import CountLetters
from tests.training.synthetic import SPEC
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.dataset import codec_entry, publish, read_made, shard_path, write_shards
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.tasks import Artifact, Task, artifact_path
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.config import RunConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.manifest import MANIFEST_NAME, BalancePlan, Manifest, ShardEntry, parse_manifest
from visavis.schemas.rows import Row
from visavis.schemas.section import Section
from visavis.schemas.storage.store import Store
from visavis.stages.base import Stage
from visavis.stages.shard import ShardRow

SETTINGS: dict[str, Any] = {"config": {"letters": 1}, "fingerprints": {"letters": "f", "pack": "p"}}
WORDS = [f"word {n}" for n in range(24)]
OTHERS = [f"word {n}" for n in range(0, 36, 2)]


class Words(Row):
    path: str
    words: tuple[str, ...]


class Pack(Stage[Words, ShardRow]):
    """Writes words into a shard. `meanwhile` is called before it does."""

    name = "pack"
    version = 1

    def __init__(self, dataset: str, meanwhile: Callable[[], None]) -> None:
        super().__init__(Section())
        self._dataset, self._meanwhile = dataset, meanwhile

    def process(self, item: Words) -> Iterator[ShardRow]:
        self._meanwhile()
        data = "\n".join(item.words).encode()
        Store(self._dataset).write(item.path, data)
        entry = ShardEntry(
            path=item.path,
            split="train",
            label=WindowClass.LISTENING,
            samples=0,
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        yield ShardRow(entry=entry, weight=1.0)

    def facts(self, rows: Sequence[ShardRow]) -> str:
        return rows[0].model_dump_json()


def run_of(
    root: str,
    words: Sequence[str],
    meanwhile: Callable[[], None] = lambda: None,
    settings: dict[str, Any] = SETTINGS,
    *,
    reconfigure: bool = False,
) -> int:
    """A whole run: words are counted, then packed into shards of five. Returns how many tasks had to be done."""
    stages = {"letters": CountLetters(), "pack": Pack(f"{root}/{DATASET}", meanwhile)}
    reporter, limits = Reporter(Console(file=io.StringIO())), RunConfig()
    with opened(root, local_engine, stages, limits, settings, reporter, reconfigure=reconfigure) as run:
        counted = [_task("letters", word.replace(" ", "-"), {"text": word}) for word in words]
        made = run.execute("letters", counted, len(counted))
        assert None not in made.values()
        packs = [_pack(n, tuple(words[n * 5 : n * 5 + 5])) for n in range((len(words) + 4) // 5)]
        rows, before = write_shards(run, "pack", lambda: packs, ShardRow)
        codec = "\n".join(words).encode()
        publish(run, manifest_of(rows, codec), codec, before)
        return run.processed


def _task(stage: str, key: str, inline: dict[str, Any], **more: Any) -> Task:
    return Task(stage, key, key, artifact_path(stage, 1, "f", key), "f", inline=inline, **more)


def _pack(number: int, words: tuple[str, ...]) -> Task:
    path = shard_path(f"train/listening-{number:06d}", words)
    return _task("pack", f"{number:06d}", {"path": path, "words": words}, files=(f"{DATASET}/{path}",))


def manifest_of(rows: Sequence[ShardRow], codec: bytes) -> Manifest:
    return Manifest(
        kind="windows",
        fingerprint="p",
        fps=FPS,
        sample_rate=SAMPLE_RATE,
        window=50,
        motion=SPEC,
        codec=codec_entry(codec),
        conversations=1,
        participants=2,
        plan=BalancePlan(mixture={}, keep={}, seconds_before={}, seconds_after={}),
        shards=tuple(row.entry for row in rows),
    )


def dataset(root: str) -> dict[str, bytes]:
    store = Store(root)
    return {name: store.read(f"{DATASET}/{name}") for name in sorted(store.names(DATASET))}


def check_sound(root: str, *, absent: bool = False) -> None:
    """Whatever the manifest names is there as it says. absent: there need not be one."""
    files = dataset(root)
    if absent and MANIFEST_NAME not in files:
        return
    manifest = parse_manifest(files[MANIFEST_NAME])
    for entry in (*manifest.shards, manifest.codec):
        assert entry
        assert hashlib.sha256(files[entry.path]).hexdigest() == entry.sha256


def rows_of(root: str) -> dict[tuple[str, str], str]:
    return {name: row.status for name, row in Ledger(Store(root)).latest().items()}


@contextmanager
def unlocked(*_: Any) -> Iterator[Any]:
    """A lock that keeps nobody out."""
    yield SimpleNamespace(check=lambda: None)


@pytest.fixture(autouse=True)
def _no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visavis.pipeline.plan.run_folder.locked", unlocked)
    monkeypatch.setattr("visavis.pipeline.state.ledger._FLUSH_ROWS", 2)  # so that both merge parts, too
    monkeypatch.setattr("visavis.pipeline.state.ledger._FAN", 3)


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with google_store(tmp_path_factory.mktemp("google")) as url:
        yield url


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azure_store(tmp_path_factory.mktemp("azurite")) as url:
        yield url


@pytest.fixture
def s3(server: S3Server) -> str:
    return f"s3://{BUCKET}"


@pytest.fixture
def disk(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture(params=["disk", "s3", "google", "azure"])
def place(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return f"{url}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """What runs make that nobody disturbs."""
    found = {}
    for name, words in (("words", WORDS), ("others", OTHERS)):
        root = str(tmp_path_factory.mktemp(name))
        run_of(root, words)
        found[name] = dataset(root)
    return found


def at_once(*acts: Callable[[], int]) -> list[str]:
    """What came of each: empty, or why it failed."""

    def said(act: Callable[[], int]) -> str:
        try:
            act()
            return ""
        except RunFailed as error:
            return str(error)

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(said, acts))


@pytest.mark.slow
def test_two_runs_of_the_same_make_what_one_makes(place: str, expected: dict[str, dict[str, bytes]]) -> None:
    assert at_once(*[lambda: run_of(place, WORDS)] * 2) == ["", ""]
    assert dataset(place) == expected["words"]
    rows = rows_of(place)
    assert len(rows) == len(WORDS) + 5
    assert set(rows.values()) == {"ok"}
    assert run_of(place, WORDS) == 0
    assert Store(place).sweep() == 0


@pytest.mark.slow
def test_of_two_runs_of_different_lists_at_least_one_ends_well(
    place: str, expected: dict[str, dict[str, bytes]]
) -> None:
    said = at_once(lambda: run_of(place, WORDS), lambda: run_of(place, OTHERS))
    assert "" in said
    for why in filter(None, said):
        assert re.fullmatch(rf"{re.escape(place)}: another run .* run again[^\n]*", why)
    check_sound(place, absent=True)
    assert len(rows_of(place)) == len({*WORDS, *OTHERS}) + 5
    for name, words in (("words", WORDS), ("others", OTHERS)):
        run_of(place, words)
        assert dataset(place) == expected[name]


@pytest.mark.slow
def test_who_comes_second_with_another_dataset_is_told_and_changes_nothing(
    disk: str, expected: dict[str, dict[str, bytes]]
) -> None:
    """While the first run writes its second shard, another one does all of its work."""
    calls = iter(range(100))

    def meanwhile() -> None:
        if next(calls) == 1:
            run_of(disk, OTHERS)

    with pytest.raises(RunFailed, match=r"another run (published its dataset|removed .*) meanwhile"):
        run_of(disk, WORDS, meanwhile)
    assert expected["others"].items() <= dataset(disk).items()
    check_sound(disk)
    assert run_of(disk, WORDS) > 0
    assert dataset(disk) == expected["words"]


def test_nor_does_it_replace_a_dataset_that_holds_its_own(disk: str) -> None:
    calls = iter(range(100))

    def meanwhile() -> None:
        if next(calls) == 1:
            run_of(disk, WORDS[:20])

    with pytest.raises(RunFailed, match=r"another run published its dataset meanwhile; run again"):
        run_of(disk, WORDS[:15], meanwhile)
    manifest = parse_manifest(Store(disk).read(f"{DATASET}/{MANIFEST_NAME}"))
    assert len(manifest.shards) == 4
    check_sound(disk)


def test_no_manifest_names_what_another_run_removed(disk: str) -> None:
    calls = iter(range(100))

    def meanwhile() -> None:
        if next(calls) == 1:
            run_of(disk, OTHERS)
            Store(disk).delete(f"{DATASET}/{MANIFEST_NAME}")  # a third one begins with its shards

    with pytest.raises(RunFailed, match=r"another run removed .* meanwhile; let it end, then run again"):
        run_of(disk, WORDS, meanwhile)
    check_sound(disk, absent=True)


def test_a_run_that_only_looks_is_no_faster_than_one_that_works(
    disk: str, expected: dict[str, dict[str, bytes]]
) -> None:
    """A run that finds all done publishes what was there, while another one is at a dataset of its own."""
    run_of(disk, WORDS)
    calls = iter(range(100))

    def meanwhile() -> None:
        if next(calls) == 1:
            assert run_of(disk, WORDS) == 0

    with pytest.raises(RunFailed, match="another run"):
        run_of(disk, OTHERS, meanwhile)
    assert expected["words"].items() <= dataset(disk).items()
    check_sound(disk)
    run_of(disk, OTHERS)
    assert dataset(disk) == expected["others"]


def test_a_manifest_that_alone_changes_is_replaced(disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(disk, WORDS)
    before = dataset(disk)
    monkeypatch.setattr(f"{__name__}.SPEC", SPEC.model_copy(update={"codec": "another"}))
    assert run_of(disk, WORDS) == 0
    after = dataset(disk)
    assert {name for name in after if after[name] != before.get(name)} == {MANIFEST_NAME}


def test_of_two_runs_with_different_settings_the_second_writes_nothing(disk: str) -> None:
    other = SETTINGS | {"config": {"letters": 2}}
    asked = iter(range(100))

    def engine(stages: Any, root: str) -> Any:
        if next(asked) == 0:  # the first one has looked at the settings, and has not begun yet
            run_of(disk, OTHERS, settings=other)
        return local_engine(stages, root)

    limits, reporter = RunConfig(), Reporter(Console(file=io.StringIO()))
    stages = {"letters": CountLetters()}
    with (
        pytest.raises(UsageError, match="was built with letters=2 and now has 1"),
        opened(disk, engine, stages, limits, SETTINGS, reporter) as run,
    ):
        run.execute("letters", [_task("letters", "a", {"text": "a"})], 1)
    assert ("letters", "a") not in rows_of(disk)
    check_sound(disk)


def test_an_artifact_of_many_that_another_run_wrote_over_is_made_anew(disk: str) -> None:
    store = Store(disk)
    store.write("artifacts/fit/v1-f/1.safetensors", b"other")
    artifact = Artifact("artifacts/fit/v1-f/1.safetensors", hashlib.sha256(b"mine").hexdigest()[:16])
    with pytest.raises(RunFailed, match="another run wrote over"):
        read_made(store, artifact)
    assert not store.exists(artifact.path)
    store.write(artifact.path, b"mine")
    assert read_made(store, artifact) == b"mine"

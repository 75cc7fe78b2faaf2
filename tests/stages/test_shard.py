"""Shards hold exactly what the dyads held, and their bytes never change."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stages.test_quality import GOOD
from visavis.pipeline.cli.verify import verify_dataset
from visavis.pipeline.plan.dataset import codec_entry
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.artifact import dump_rows, load_row
from visavis.schemas.dyads import Codec, Dyad, DyadHead, Window, WindowClass
from visavis.schemas.manifest import MANIFEST_NAME, SCHEMA_VERSION, Manifest, Split, dump_manifest, parse_manifest
from visavis.schemas.rows import Layout
from visavis.schemas.sample import Sample, decode_audio, decode_sample, encode_audio
from visavis.schemas.section import Section
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoiceFigures, Voices
from visavis.schemas.windows_config import BalanceConfig, ShardConfig
from visavis.stages.balance import plan_balance
from visavis.stages.census import CensusInput, CensusStage
from visavis.stages.face.codec import decode_motion, motion_spec, named_columns
from visavis.stages.face.decode import avatar_of, conversation_of, read_codec, read_faces
from visavis.stages.shard import ShardInput, ShardStage, capacity, cut_series
from visavis.stages.windows import avatar_state
from visavis.training.dataset import Dataset

FRAMES, DIM, LENGTH = 120, 8, 20
CODEC = dump_rows(
    [
        Codec(
            id="test",
            kind="landmark-pca",
            given=0,
            network="",
            mean=np.zeros(478 * 3, np.float32),
            basis=np.eye(DIM - 6, 478 * 3, dtype=np.float32),
            explained=1.0,
        )
    ]
)


def make_dyad(name: str, seed: int) -> Dyad:
    rng = np.random.default_rng(seed)
    motion = tuple(rng.standard_normal((FRAMES, DIM)).astype(np.float32) for _ in range(2))
    state = np.where(np.arange(FRAMES) < 60, 1, 2).astype(np.uint8)
    windows = tuple(
        Window(
            key=f"{name}-{avatar}-{first:07d}",
            avatar=avatar,
            first=first,
            length=LENGTH,
            label=WindowClass.SPEAKING if (first < 60) == (avatar == 0) else WindowClass.LISTENING,
            expressiveness=float(rng.uniform()),
        )
        for first in range(0, FRAMES - LENGTH + 1, LENGTH)
        for avatar in (0, 1)
    )
    return Dyad(
        conversation=name,
        participants=(f"{name}-0", f"{name}-1"),
        layout=Layout.PER_PARTICIPANT,
        codec="test",
        scores=(0.5, 0.6),
        figures=(GOOD, GOOD.model_copy(update={"yaw": 30.0})),
        motion=(motion[0], motion[1]),
        valid=(np.ones(FRAMES, bool), np.ones(FRAMES, bool)),
        reference=(motion[0][0], motion[1][0]),
        neutral=(rng.standard_normal((478, 3)).astype(np.float32), rng.standard_normal((478, 3)).astype(np.float32)),
        neutral_code=(np.zeros(0, np.float32), np.zeros(0, np.float32)),
        state=state,
        windows=windows,
        moments=((0.0,), (0.0,)),
    )


def make_voices(name: str, seed: int) -> Voices:
    rng = np.random.default_rng(seed)
    one, other = (rng.uniform(-0.5, 0.5, FRAMES * SAMPLES_PER_FRAME).astype(np.float32) for _ in range(2))
    quiet = VoiceFigures(method="mask", residual_db=-31.5, overlapped=0.1)
    return Voices(
        conversation=name,
        audio=(np.frombuffer(encode_audio(one), np.uint8), np.frombuffer(encode_audio(other), np.uint8)),
        figures=(quiet, quiet.model_copy(update={"residual_db": None})),
    )


def write_dataset(folder: Path, config: ShardConfig) -> tuple[Manifest, list[Dyad]]:
    dyads = [make_dyad(f"c{i}", i) for i in range(3)]
    voices = {d.conversation: make_voices(d.conversation, i) for i, d in enumerate(dyads)}
    heads = tuple(DyadHead(windows=d.windows, moments=d.moments) for d in dyads[:2])
    (census,) = CensusStage(Section()).process(CensusInput(dyads=heads))
    stage = ShardStage(config, str(folder))
    sides: tuple[tuple[Split, list[Dyad]], ...] = (("train", dyads[:2]), ("val", dyads[2:]))
    rows = []
    for (split, side), label in itertools.product(sides, WindowClass):
        series = [(d.conversation, sum(w.label is label for w in d.windows)) for d in side]
        for number, slices in enumerate(cut_series(series, capacity(LENGTH, DIM, config))):
            item = ShardInput(
                path=f"{split}/{label.value}-{number:06d}.tar",
                split=split,
                label=label,
                slices=slices,
                dull_keep=0.25,
                census=census,
                dyads=tuple(next(d for d in dyads if d.conversation == part.conversation) for part in slices),
                voices=tuple(voices[part.conversation] for part in slices),
            )
            rows.extend(stage.process(item))
    entries = [row.entry for row in rows]
    plan = plan_balance(dict.fromkeys(WindowClass, 1.0), dict.fromkeys(WindowClass, 1.0), BalanceConfig())
    manifest = Manifest(
        kind="windows",
        fingerprint="f",
        fps=25,
        sample_rate=16000,
        window=LENGTH,
        motion=motion_spec("test", DIM, np.zeros(DIM), np.ones(DIM)),
        columns=named_columns(load_row(CODEC, Codec)),
        codec=codec_entry(CODEC),
        conversations=3,
        participants=6,
        plan=plan,
        shards=tuple(entries),
    )
    (folder / codec_entry(CODEC).path).write_bytes(CODEC)
    (folder / MANIFEST_NAME).write_bytes(dump_manifest(manifest))
    return manifest, dyads


def samples(folder: Path) -> dict[str, Sample]:
    dataset = Dataset(str(folder))
    return {s.key: s for split in ("train", "val") for s in dataset.samples(split)}  # type: ignore[arg-type]


def test_every_window_arrives_once_and_whole(tmp_path: Path) -> None:
    manifest, dyads = write_dataset(tmp_path, ShardConfig(max_samples=5))
    found = samples(tmp_path)
    assert sorted(found) == sorted(w.key for d in dyads for w in d.windows)
    assert max(s.samples for s in manifest.shards) == 5

    dyad = dyads[1]
    window = next(w for w in dyad.windows if w.avatar == 1 and w.first == 40)
    sample, span = found[window.key], slice(40, 60)
    np.testing.assert_array_equal(sample.avatar_motion, dyad.motion[1][span])
    np.testing.assert_array_equal(sample.user_motion, dyad.motion[0][span])
    np.testing.assert_array_equal(sample.state, avatar_state(dyad.state[span], 1))
    assert set(sample.state) == {2}  # the user speaks
    assert sample.meta.label is WindowClass.LISTENING
    assert (sample.meta.avatar, sample.meta.binding) == (dyad.participants[1], 0.6)
    assert (sample.meta.avatar_figures, sample.meta.user_figures) == dyad.figures[::-1]
    voices = make_voices(dyad.conversation, 1)
    assert (sample.meta.avatar_voice, sample.meta.user_voice) == voices.figures[::-1]
    for voice, person in ((sample.avatar_audio, 1), (sample.user_audio, 0)):
        whole = decode_audio(voices.audio[person].tobytes())
        np.testing.assert_array_equal(voice, whole[40 * SAMPLES_PER_FRAME : 60 * SAMPLES_PER_FRAME])


counts = st.lists(st.integers(0, 30), max_size=20)


@given(counts, st.integers(1, 12))
def test_a_series_is_cut_without_loss_and_every_shard_but_the_last_is_full(numbers: list[int], room: int) -> None:
    series = [(f"c{n}", count) for n, count in enumerate(numbers)]
    shards = list(cut_series(series, room))
    assert [sum(part.count for part in shard) for shard in shards[:-1]] == [room] * (len(shards) - 1)
    found = [(p.conversation, n) for shard in shards for p in shard for n in range(p.first, p.first + p.count)]
    assert found == [(name, n) for name, count in series for n in range(count)]


def test_written_again_byte_for_byte(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", ShardConfig())
    write_dataset(tmp_path / "b", ShardConfig())
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert any(n.suffix == ".tar" for n in names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path, ShardConfig())
    assert verify_dataset(str(tmp_path)) == []
    return tmp_path


def test_a_flipped_byte_is_found(dataset: Path) -> None:
    shard = dataset / "train" / "listening-000000.tar"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (finding,) = verify_dataset(str(dataset))
    assert finding == "shard train/listening-000000.tar is not the one the manifest lists (sha256 differs)"


def test_a_missing_shard_a_cut_one_and_a_stray_one_are_found(dataset: Path) -> None:
    (dataset / "train" / "listening-000000.tar").rename(dataset / "train" / "other.tar")
    speaking = dataset / "train" / "speaking-000000.tar"
    speaking.write_bytes(speaking.read_bytes()[:-512])
    assert sorted(verify_dataset(str(dataset))) == [
        "shard train/listening-000000.tar is missing",
        "shard train/speaking-000000.tar is not the one the manifest lists (sha256 differs)",
        "train/other.tar is not in the manifest",
    ]


def test_a_copied_dataset_decodes_its_motion_alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("moved") / "dataset"
    dyads = {d.conversation: d for d in (make_dyad(f"c{i}", i) for i in range(3))}
    dataset.rename(elsewhere)
    store, manifest = Store(str(elsewhere)), parse_manifest((elsewhere / MANIFEST_NAME).read_bytes())
    codec = read_codec(store, manifest)
    assert codec is not None
    seen = set()
    for entry in manifest.shards:
        faces = read_faces(store, entry)
        for key, members in Dataset(str(elsewhere)).shard(entry):
            sample = decode_sample(key, members)
            dyad, avatar = dyads[sample.meta.conversation], avatar_of(key)
            assert conversation_of(key) == dyad.conversation
            neutral = faces[dyad.conversation].neutral[avatar]
            points = decode_motion(codec, sample.avatar_motion, neutral)
            np.testing.assert_array_equal(points, decode_motion(codec, sample.avatar_motion, dyad.neutral[avatar]))
            seen.add(dyad.conversation)
    assert seen == set(dyads)


def test_what_decodes_the_motion_is_verified(dataset: Path) -> None:
    (dataset / codec_entry(CODEC).path).write_bytes(CODEC[:-1])
    (dataset / "faces" / "t-listening-000000.safetensors").rename(dataset / "faces" / "other.safetensors")
    assert [finding.partition(";")[0] for finding in verify_dataset(str(dataset))] == [
        f"{codec_entry(CODEC).path} is not the one the manifest lists (sha256 differs)",
        "faces/t-listening-000000.safetensors is missing",
        "faces/other.safetensors is not in the manifest",
    ]


def test_no_name_beside_the_shards_looks_like_a_split(dataset: Path) -> None:
    """Or `load_dataset` of Hugging Face would take it for shards of that split."""
    names = [str(p.relative_to(dataset)) for p in dataset.rglob("*.safetensors")]
    assert len(names) > 2
    assert not [name for name in names if re.search(r"(train|val|valid|test|dev|eval)[^/a-z]", name)]


def test_columns_that_do_not_fit_the_motion_are_told(dataset: Path) -> None:
    path = dataset / MANIFEST_NAME
    whole = json.loads(path.read_text())
    for columns in (whole["columns"][:-1], [*whole["columns"], whole["columns"][0]]):
        path.write_text(json.dumps(whole | {"columns": columns}))
        (finding,) = verify_dataset(str(dataset))
        assert f"columns must have {DIM} names that differ" in finding


def test_a_dataset_of_version_2_is_read_and_nothing_asked_of_it(dataset: Path) -> None:
    path = dataset / MANIFEST_NAME
    old = json.loads(path.read_text())
    old |= {"schema_version": 2, "shards": [{k: v for k, v in s.items() if k != "faces"} for s in old["shards"]]}
    del old["codec"], old["columns"]
    path.write_text(json.dumps(old))
    for file in (dataset / codec_entry(CODEC).path, *(dataset / "faces").iterdir()):
        file.unlink()
    assert verify_dataset(str(dataset)) == []
    assert len(samples(dataset)) > 10


CURRENT = f'"schema_version": {SCHEMA_VERSION}'


def test_another_schema_version_and_no_manifest_are_told(dataset: Path) -> None:
    path = dataset / MANIFEST_NAME
    path.write_text(path.read_text().replace(CURRENT, '"schema_version": 7'))
    (finding,) = verify_dataset(str(dataset))
    assert "schema version 7, this program reads 2, 3, 4, 5" in finding
    path.write_text(path.read_text().replace('"schema_version": 7', CURRENT).replace("train/", "../x/"))
    (finding,) = verify_dataset(str(dataset))
    assert "path: String should match pattern" in finding  # a manifest cannot point outside its folder
    path.unlink()
    (finding,) = verify_dataset(str(dataset))
    assert "no manifest.json" in finding

"""What happens in a window stands in its record, is counted in the manifest, and decides how often it is drawn."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tests.stages.test_shard import LENGTH, make_dyad, make_voices
from tests.training.synthetic import sample, write_dataset
from visavis.pipeline.plan.dataset import count_labels
from visavis.pipeline.plan.pairs_order import check_where
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import Census, Dyad, WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.labels import KINDS
from visavis.schemas.pairs import PairsConfig, WhereConfig
from visavis.schemas.sample import Sample, decode_sample, encode_sample
from visavis.schemas.storage.store import Store
from visavis.schemas.windows_config import ShardConfig
from visavis.stages.models.labeller import Labeller
from visavis.stages.shard import ShardInput, ShardRow, ShardStage, Slice
from visavis.training.dataset import Dataset
from visavis.training.shards import samples_of

NOD, BARGE = KINDS.index("nod"), KINDS.index("interruption")


def labelled(name: str, seed: int) -> Dyad:
    """Participant 1 nods throughout the first window and takes the turn in it; nothing else happens."""
    events = np.array([[NOD, 1, 2, 20], [BARGE, 1, 5, 12]], np.int32)
    told = ("nod", "interruption")
    return make_dyad(name, seed).model_copy(update={"events": events, "told": told, "blinks_min": (12.5, None)})


def write(
    folder: Path, dyad: Dyad, emphasis: dict[str, float] | None = None, config: ShardConfig | None = None
) -> tuple[ShardRow, dict[str, Sample]]:
    count = sum(w.label is WindowClass.LISTENING for w in dyad.windows)
    item = ShardInput(
        path="train/listening-000000.tar",
        split="train",
        label=WindowClass.LISTENING,
        slices=(Slice(conversation=dyad.conversation, first=0, count=count),),
        dull_keep=1.0,
        emphasis=emphasis or {},
        census=Census(counts=np.ones((4, 512), np.int64), moments=np.zeros(1)),
        dyads=(dyad,),
        voices=(make_voices(dyad.conversation, 0),),
    )
    (row,) = ShardStage(config or ShardConfig(), str(folder)).process(item)
    found = samples_of(Store(str(folder)).read(item.path))
    return row, {key: decode_sample(key, members) for key, members in found}


def test_a_windows_record_says_what_happens_in_it(tmp_path: Path) -> None:
    row, windows = write(tmp_path, labelled("c", 0))
    first = windows["c-1-0000000"].meta if "c-1-0000000" in windows else windows["c-0-0000000"].meta
    mine = "avatar" if first.avatar == "c-1" else "user"
    assert first.labels == (f"{mine}_interruption", f"{mine}_nod")
    assert [str(each) for each in first.happened] == [f"{mine}_nod:2-{min(20, LENGTH)}", f"{mine}_interruption:5-12"]
    assert {first.avatar_blinks_min, first.user_blinks_min} == {12.5, None}
    others = [s.meta.labels for s in windows.values() if s.meta.start >= 20]
    assert others
    assert set(others) == {()}
    assert row.labels[f"{mine}_nod"] == sum(f"{mine}_nod" in (s.meta.labels or ()) for s in windows.values()) > 0
    assert set(row.labels) == {f"{side}_{kind}" for side in ("avatar", "user") for kind in ("nod", "interruption")}
    assert count_labels([row, row])[f"{mine}_nod"] == {"train": 2 * row.labels[f"{mine}_nod"], "val": 0}  # type: ignore[index]


def test_where_nobody_looked_a_record_says_so_and_nothing_is_counted(tmp_path: Path) -> None:
    row, windows = write(tmp_path, make_dyad("c", 0))
    assert {s.meta.labels for s in windows.values()} == {None}
    assert count_labels([row]) is None


def test_a_sample_from_before_there_were_labels_is_read() -> None:
    members = dict(encode_sample(sample(0)))
    for name in (b'"labels": "", ', b'"events": "", ', b'"avatar_blinks_min": 0.0, ', b'"user_blinks_min": 0.0, '):
        members["meta.json"] = members["meta.json"].replace(name, b"")
    for name in (b" labels", b" events", b" avatar_blinks_min", b" user_blinks_min"):
        members["meta.json"] = members["meta.json"].replace(name, b"")
    assert b"blinks" not in members["meta.json"]
    assert decode_sample("k", members).meta.labels is None


def test_what_is_no_event_is_refused() -> None:
    made = sample(0)
    wrong = made.meta.model_copy(update={"labels": ("x",), "events": ("avatar_nod:1-2; rm",)})
    with pytest.raises(Exception, match="is no event"):
        decode_sample("k", encode_sample(replace(made, meta=wrong)))


def test_windows_with_a_label_are_drawn_more_often_than_others_of_their_class(tmp_path: Path) -> None:
    _, plain = write(tmp_path / "plain", labelled("c", 0))
    row, more = write(tmp_path / "more", labelled("c", 0), {"interruption": 4.0})
    for key, window in more.items():
        share = 1.0 if any("interruption" in name for name in window.meta.labels or ()) else 0.25
        assert window.meta.weight == pytest.approx(share * plain[key].meta.weight)
    assert row.weight == pytest.approx(sum(window.meta.weight for window in more.values()))
    with pytest.raises(ValidationError, match="interuption"):
        BuildConfig.model_validate({"balance": {"labels": {"interuption": 2}}})


def test_a_dataset_of_an_older_version_has_no_labels(tmp_path: Path) -> None:
    write_dataset(tmp_path, {WindowClass.LISTENING: 2})
    assert Dataset(str(tmp_path)).manifest.labels is None


def own(folder: Path, answer: str) -> str:
    path = folder / "mine.py"
    path.write_text(f"def label(samples):\n    return {answer}\n")
    return f"{path}:label"


def test_a_function_of_ones_own_adds_labels_to_those_that_were_found(tmp_path: Path) -> None:
    labeller = Labeller(own(tmp_path, "[['long_' + str(len(s.state))] for s in samples]"))
    windows = [sample(i) for i in range(70)]  # more than a batch
    windows[3] = replace(windows[3], meta=windows[3].meta.model_copy(update={"labels": ("avatar_nod",)}))
    found = list(labeller.label(windows))
    assert [s.key for s in found] == [s.key for s in windows]
    assert {s.meta.labels for s in found} == {("long_50",), ("avatar_nod", "long_50")}
    there = pickle.loads(pickle.dumps(labeller))
    assert there.digest == labeller.digest
    (tmp_path / "mine.py").write_text("def label(samples):\n    return []\n")
    with pytest.raises(UsageError, match="is another one"):
        pickle.loads(pickle.dumps(labeller))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("None", "gave NoneType for 1 windows"),
        ("[]", "gave 0 answers for 1 windows"),
        ("['far']", "expected a list"),
        ("[['Far away']]", "'Far away' is no label"),
        ("[['nod']]", "nod is a label of ours"),
        ("[[1 / 0]]", "raised ZeroDivisionError"),
    ],
)
def test_what_a_labeller_gives_amiss_is_told_in_a_line(answer: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as told:
        list(Labeller(own(tmp_path, answer)).label([sample(0)]))
    assert "\n" not in str(told.value)


def test_own_labels_are_written_counted_and_weigh_as_any_other(tmp_path: Path) -> None:
    config = ShardConfig(labeller=own(tmp_path, "[['early'] if s.meta.start == 0 else [] for s in samples]"))
    row, windows = write(tmp_path, labelled("c", 0), {"early": 2.0}, config)
    early = [s.meta for s in windows.values() if s.meta.start == 0]
    assert row.labels["early"] == len(early) > 0
    assert all("early" in (meta.labels or ()) for meta in early)
    assert {s.meta.weight for s in windows.values() if s.meta.start} <= {0.5}


@pytest.mark.parametrize(
    ("where", "taken"),
    [
        ({"labels": ("interruption",)}, True),
        ({"labels": ("avatar_interruption",)}, False),
        ({"labels": ("gap", "user_interruption")}, True),
        ({"without": ("interruption",)}, False),
        ({"labels": ("interruption",), "without": ("nod",)}, False),
        ({}, True),
    ],
)
def test_which_windows_pairs_are_made_of(where: dict[str, tuple[str, ...]], taken: bool) -> None:
    assert WhereConfig(**where).wants(("user_interruption", "user_nod")) == taken  # type: ignore[arg-type]
    assert WhereConfig(**where).wants(None) == (not where.get("labels"))  # type: ignore[arg-type]


def test_labels_that_no_window_has_are_asked_for_in_vain(tmp_path: Path) -> None:
    data = Dataset(str(write_dataset(tmp_path, {WindowClass.LISTENING: 2})))
    config = PairsConfig(where=WhereConfig(labels=("interuption",)))
    with pytest.raises(UsageError, match="has no labels"):
        check_where(data, config)
    data.manifest = data.manifest.model_copy(update={"labels": {"user_interruption": {"train": 1, "val": 0}}})
    with pytest.raises(UsageError, match=r"no window of .* has interuption; .*user_interruption"):
        check_where(data, config)
    check_where(data, PairsConfig(where=WhereConfig(labels=("interruption",))))

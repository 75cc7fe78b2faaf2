"""Votes of a study: what they are counted to, how sure that is, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.study import QUESTION, World, made_study, vote_all, vote_blindly
from visavis.pipeline.cli.study_make import put_study
from visavis.pipeline.page import shares
from visavis.pipeline.page.count import count_votes
from visavis.pipeline.page.study import same_size, told
from visavis.pipeline.page.study_motion import deal
from visavis.pipeline.page.votes import Ballot, Clip, Key, read_key, read_votes, scores
from visavis.schemas.errors import UsageError
from visavis.schemas.plain import to_json

N = -1  # nobody answered


@given(st.integers(1, 500), st.data())
def test_wilsons_interval_is_scipys(votes: int, data: st.DataObject) -> None:
    wins = data.draw(st.integers(0, votes))
    expected = binomtest(wins, votes).proportion_ci(method="wilson")
    assert shares.wilson(wins, votes) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_krippendorffs_alpha_of_the_published_examples() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011): C, four observers with gaps; A, two observers, two values."""
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
    two = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert shares.krippendorff_alpha(np.array(four)) == pytest.approx(0.743, abs=5e-4)
    assert shares.krippendorff_alpha(np.array(two)) == pytest.approx(0.095, abs=5e-4)
    assert shares.krippendorff_alpha(np.array([[1, 1], [1, 1]])) is None  # nobody differs, and nothing could


def test_votes_of_a_person_count_less_than_votes_of_many() -> None:
    """Ten people who each have one opinion are ten opinions, however often they say it."""
    score_PC = np.repeat([[1.0]] * 6 + [[0.0]] * 4, 30, axis=1)
    assert shares.effective_votes(score_PC) == pytest.approx(10, rel=0.5)
    low, high = shares.interval(score_PC)
    alone = shares.wilson(180, 300)
    assert high - low > 4 * (alone[1] - alone[0])
    assert shares.interval(score_PC[:1]) is None  # one person says nothing about people
    assert shares.interval(np.ones((10, 30)))[0] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("world", [World("alike", trials=20), World("differ", trials=20, people=0.5, clips=0.7)])
def test_a_known_preference_is_recovered(world: World) -> None:
    """In 95 % of studies, through keys, sheets and votes. Of 100, chance alone leaves 91 or more; `benchmarks/study.py`
    has 2000 of many kinds.
    """
    random, held, plain, left = np.random.default_rng(5), 0, 0, []
    truth = world.truth
    for n in range(100):
        key, sheet = made_study(world.trials, 4, n)
        result = count_votes(key, vote_all(key, sheet, world, random))
        (found,) = result["questions"]["listening"]["shares"]
        held += found["interval"][0] <= truth <= found["interval"][1]
        plain += found["wilson"][0] <= truth <= found["wilson"][1]
        left.append(result["sides"]["share"])
        assert result["people"]["left_out"] == []
    assert held >= 91
    if world.people:
        assert plain < 88  # as if all votes were independent
    assert np.mean(left) == pytest.approx(0.5, abs=0.01)  # whatever people prefer


def test_each_system_is_left_in_half_of_a_sheet_and_each_clip_in_half_of_the_sheets() -> None:
    key, sheets = made_study(30, 4, 1, ("a", "b", "c"))
    listed = sorted(key.trials, key=lambda trial: trial.code)
    lefts = np.array([
        [sorted(c.code for c in t.clips)[int(n)] == t.clips[0].code for t, n in zip(listed, sheet, strict=True)]
        for sheet in sheets
    ])  # fmt: skip
    assert (lefts.mean(axis=0) == 0.5).all()
    for pair in ({"a", "b"}, {"a", "c"}, {"b", "c"}, {"recorded", "jumbled"}):
        of_pair = [{c.system for c in trial.clips} == pair for trial in listed]
        if "recorded" not in pair:
            assert lefts[:, of_pair].shape[1] == 10
            assert (lefts[:, of_pair].sum(axis=1) == 5).all()
    checks = [bool(trial.check) for trial in listed]
    assert (lefts[:, checks].sum(axis=1) == 2).all()


def test_the_page_is_told_nothing_that_tells_systems_apart() -> None:
    """The same data comes out when systems change places, but for codes, which a keyed hash makes."""
    key, _ = made_study(12, 2, 3)
    said = json.dumps(told(key, b"secret", 50))
    for word in (*key.systems, "recorded", "jumbled", key.trials[0].window, "check"):
        assert f'"{word}' not in said
    page = told(key, b"secret", 50)
    assert [t["code"] for t in page["trials"]] == sorted(t.code for t in key.trials)
    first = {trial.clips[0].code for trial in key.trials}
    places = [trial["clips"][0] in first for trial in page["trials"]]
    assert 2 <= sum(places) <= 12  # in some the one is listed first, in some the other


def test_files_of_both_sides_have_one_size(tmp_path: Path) -> None:
    import av

    from visavis.pipeline.view.encoding import film_writer

    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4"]
    random = np.random.default_rng(0)
    for n, path in enumerate(paths):
        with film_writer(path) as put:
            for _ in range(5):
                put((random.random((64, 64, 3)) * 100 * n).astype(np.uint8), np.zeros((2, 640), np.float32))
    assert len({path.stat().st_size for path in paths}) == 3
    same_size(paths)
    assert len({path.stat().st_size for path in paths}) == 1
    for path in paths:
        with av.open(str(path)) as film:
            assert sum(1 for _ in film.decode(video=0)) == 5


def test_a_system_that_nobody_compared_has_no_score() -> None:
    """Not a score of 0 with an interval of no width."""
    votes = shares.Comparisons(
        np.array([0, 0, 1, 2, 0, 1]), np.array([1, 1, 2, 0, 2, 0]), np.array([1, 1, 0, 1, 0.5, 0]),
        np.array([0, 1, 0, 1, 2, 2]), np.arange(6),
    )  # fmt: skip
    for with_fourth, without in zip(shares.bradley_terry(votes, 4), shares.bradley_terry(votes, 3), strict=True):
        assert np.isnan(with_fourth[3])
        np.testing.assert_allclose(with_fourth[:3], without, atol=1e-6)


def test_three_systems_are_ranked() -> None:
    key, sheet = made_study(60, 0, 2, ("bad", "middle", "good"))
    odds = {"bad": -1.0, "middle": 0.0, "good": 1.0}
    random = np.random.default_rng(2)
    ballots = []
    for ballot in vote_all(key, sheet, World("", voters=12), random):
        votes = []
        for vote in ballot.votes.votes:
            trial = next(t for t in key.trials if t.code == vote.trial)
            left, right = sorted(trial.clips, key=lambda clip: clip.code != vote.left)
            chance = 1 / (1 + np.exp(odds[right.system] - odds[left.system]))
            votes.append(vote.model_copy(update={"answer": "left" if random.random() < chance else "right"}))
        ballots.append(replace(ballot, votes=ballot.votes.model_copy(update={"votes": tuple(votes)})))
    ranked = count_votes(key, ballots)["questions"]["listening"]["bradley_terry"]
    assert [row["system"] for row in ranked] == ["good", "middle", "bad"]
    for row in ranked:
        assert row["interval"][0] < odds[row["system"]] < row["interval"][1]
        assert row["interval"][1] - row["interval"][0] < 1


def test_who_presses_at_random_is_told_of_and_not_counted() -> None:
    key, sheet = made_study(20, 10, 4)
    random = np.random.default_rng(4)
    honest = vote_all(key, sheet, World(""), random)
    people = count_votes(key, [*honest, vote_blindly(key, random)])["people"]
    assert (people["files"], people["counted"]) == (11, 10)
    assert people["left_out"][0].startswith("blind0.json: ")
    assert people["left_out"][0].endswith("of 10 attention checks failed, left out")


def test_measurements_are_held_against_votes() -> None:
    """A figure that says by how much a clip is better goes with the votes; one of chance does not."""
    key, sheet = made_study(40, 0, 6)
    random = np.random.default_rng(6)
    ballots = vote_all(key, sheet, World("", voters=15, trials=40, preference=0, clips=1.5), random)
    share_C = scores(ballots, key, "listening").mean(axis=0)

    def told_of(trial_share: float, clip: Clip) -> Clip:
        value = trial_share + random.normal(0, 0.05) if clip.system == "one" else 0.0
        return clip.model_copy(update={"figures": {"good": value, "chance": random.normal(), "absent": None}})

    trials = tuple(
        trial.model_copy(update={"clips": tuple(told_of(s - 0.5, clip) for clip in trial.clips)})
        for trial, s in zip(key.trials, share_C, strict=True)
    )
    result = count_votes(key.model_copy(update={"trials": trials}), ballots)["questions"]["listening"]
    found = {row["measurement"]: row for row in result["measurements"]}
    assert found["good"]["correlation"] > 0.9
    assert found["good"]["same_side"] > 0.9 * found["good"]["decided"]
    assert found["chance"]["interval"][0] < 0 < found["chance"]["interval"][1]
    assert found["absent"]["correlation"] is None
    preferred = {row["trial"]: row["preferred"] for row in result["trials"]}
    assert preferred[trials[0].code] == ("one" if share_C[0] > 0.5 else "two" if share_C[0] < 0.5 else None)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Key, list[Path]]:
    """A study's key, and three people's votes, as files."""
    key, sheet = made_study(8, 2, 7)
    (tmp_path / "key.json").write_text(to_json(key.model_dump(mode="json")))
    paths = []
    for ballot in vote_all(key, sheet, World("", voters=3), np.random.default_rng(7)):
        (tmp_path / ballot.file).write_text(to_json(ballot.votes.model_dump(mode="json")))
        paths.append(tmp_path / ballot.file)
    return read_key(tmp_path / "key.json"), paths


def test_a_person_counts_once(files: tuple[Key, list[Path]], tmp_path: Path) -> None:
    key, paths = files
    again = tmp_path / "again.json"
    again.write_bytes(paths[0].read_bytes())
    shorter = json.loads(paths[1].read_bytes())
    shorter["votes"] = shorter["votes"][:3]
    (tmp_path / "shorter.json").write_text(json.dumps(shorter))
    people = count_votes(key, read_votes([*paths, again, tmp_path / "shorter.json"], key))["people"]
    assert (people["files"], people["counted"]) == (5, 3)
    assert people["left_out"] == [
        f"{again}: of the same person as {paths[0]}, left out (the same votes)",
        f"{tmp_path / 'shorter.json'}: of the same person as {paths[1]}, left out (3 votes)",
    ]


def test_who_stopped_early_counts_and_is_told_of(files: tuple[Key, list[Path]]) -> None:
    key, paths = files
    early = json.loads(paths[2].read_bytes())
    early["votes"], early["ended"] = early["votes"][:4], ""
    paths[2].write_text(json.dumps(early))
    result = count_votes(key, read_votes(paths, key))
    assert result["people"]["unfinished"] == [f"{paths[2]}: 4 of 10 votes, counted"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"study": "0" * 16}, "votes of study 0000000000000000, and the key is of study"),
        ({"person": "<script>"}, "not a file of votes (person: "),
        ({"person": 3}, "not a file of votes (person: "),
        ({"more": 1}, "not a file of votes (more: "),
        ({"votes": [{}]}, "not a file of votes (votes.0."),
        ({"votes": "many"}, "not a file of votes (votes: "),
    ],
)  # fmt: skip
def test_what_is_no_file_of_votes_is_refused(files: tuple[Key, list[Path]], change: dict, said: str) -> None:
    key, paths = files
    paths[1].write_text(json.dumps(json.loads(paths[1].read_bytes()) | change))
    with pytest.raises(UsageError) as refused:
        read_votes(paths, key)
    assert str(refused.value).startswith(f"{paths[1]}: {said}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[", "{}", "NaN", "[" * 10000, '{"a":1,"a":2}', "\x00", " " * (5 << 20)])
def test_what_is_no_json_is_refused(files: tuple[Key, list[Path]], text: str) -> None:
    key, paths = files
    paths[0].write_text(text)
    with pytest.raises(UsageError, match=r"0\.json: not a file of votes"):
        read_votes(paths, key)
    with pytest.raises(UsageError, match="not the key of a study"):
        read_key(paths[0])


def test_votes_that_the_page_cannot_make_are_refused(files: tuple[Key, list[Path]]) -> None:
    key, paths = files
    whole = json.loads(paths[0].read_bytes())
    changes = {
        "does not have": [{**whole["votes"][0], "left": whole["votes"][1]["left"]}],
        "is the second one on": [whole["votes"][0], whole["votes"][0]],
    }
    for said, votes in changes.items():
        paths[0].write_text(json.dumps(whole | {"votes": votes}))
        with pytest.raises(UsageError, match=said):
            read_votes(paths, key)
    no_ties = key.model_copy(update={"ties": False})
    paths[0].write_text(json.dumps(whole | {"votes": [{**whole["votes"][0], "answer": "same"}]}))
    with pytest.raises(UsageError, match="which the study does not offer"):
        read_votes(paths, no_ties)


PLAIN = st.none() | st.booleans() | st.floats() | st.text()


@given(st.recursive(PLAIN, lambda part: st.lists(part) | st.dictionaries(st.text(), part)))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("any") / "votes.json"
    path.write_text(json.dumps(value))
    key, _ = made_study(2, 0, 0)
    with pytest.raises(UsageError):
        read_votes([path], key)


def test_nobody_is_counted_without_error() -> None:
    key, _ = made_study(4, 2, 8)
    empty = Ballot("a.json", vote_blindly(key, np.random.default_rng(0)).votes.model_copy(update={"votes": ()}))
    for ballots in ([], [empty]):
        result = count_votes(key, ballots)
        assert result["questions"][QUESTION.code]["shares"] == []
        assert result["sides"]["share"] is None


def test_how_many_people_it_takes() -> None:
    assert shares.expected_half_width(30, 10) == pytest.approx(0.0566, abs=1e-3)
    usual = shares.expected_half_width(30, 10, people_differ=0.1, clips_differ=0.15)
    assert usual > 0.09
    assert shares.people_needed(30, usual + 1e-9, (0.1, 0.15)) == 10
    assert shares.people_needed(5, 0.01, (0.1, 0.15)) is None  # five clips stay five clips


@pytest.mark.parametrize(
    ("keys", "trials", "checks"),
    [
        ([f"{'ab' * 8}-0-{50 * n:07d}" for n in range(34)], 30, 4),
        ([f"{'ab' * 8}-0-{50 * n:07d}" for n in range(5)], 5, 0),
        ([f"{'ab' * 8}-0-{50 * (n % 20):07d}-r{n // 20}" for n in range(30)], 28, 2),  # some windows in two pairs
        ([f"{'ab' * 8}-0-0000000"], 1, 0),
    ],
)
def test_no_window_is_a_trial_and_a_check(keys: list[str], trials: int, checks: int) -> None:
    windows = [SimpleNamespace(sample=SimpleNamespace(key=key)) for key in keys]
    dealt = [[each.sample.key.partition("-r")[0] for each in some] for some in deal(windows, 30, 4)]  # type: ignore[arg-type]
    assert [len(some) for some in dealt] == [trials, checks]
    assert not set(dealt[0]) & set(dealt[1])


def test_a_study_that_cannot_be_put_there_leaves_nothing(tmp_path: Path) -> None:
    unfinished, out = tmp_path / "unfinished", tmp_path / "study"
    (unfinished / "page").mkdir(parents=True)
    (out / "key.json").mkdir(parents=True)  # nothing can be renamed onto a folder
    (unfinished / "key.json").write_text("{}")
    with pytest.raises(OSError, match="directory"):
        put_study(unfinished, out)
    assert [path.name for path in out.iterdir()] == ["key.json"]

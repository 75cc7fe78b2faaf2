"""Events are found in motion, and timing figures tell who reacts to this user from who reacts to somebody else."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.listeners import DIM, REAL, SMILES, Rule
from benchmarks.power import judged
from benchmarks.reactive import AVATAR, Corpus, make_motion, make_talk
from visavis.schemas import FPS
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.manifest import MotionColumn
from visavis.stages.windows import avatar_state
from visavis.training.events import events, not_told, readouts, thresholds
from visavis.training.granger import Space, user_gain
from visavis.training.reaction_rows import reaction_rows
from visavis.training.reactions import REACH, Reactions, delays, lagged, match, phrase_ends, pile, wrong_times
from visavis.training.sequences import Recorded, Side

SIGNALS = {
    "pitch": np.eye(DIM)[0],
    "yaw": np.eye(DIM)[1],
    "smile": np.eye(DIM)[[7, 8]].mean(axis=0),
    "jaw": np.eye(DIM)[6],
}
SEEN = np.ones(300, bool)
SILENT = np.zeros(300, bool)


def conversations(count: int, seconds: int = 60, **rule: float) -> list[Recorded]:
    """As `benchmarks.reactive` makes them."""
    found = []
    corpus = Corpus(seconds=seconds)
    for number in range(count):
        talk = make_talk(corpus, number)
        user, avatar = make_motion(corpus, replace(Rule(), **rule), number, talk)
        state = avatar_state(talk.state(len(user)), AVATAR)
        side = Side(f"c{number}", f"a{number}", f"u{number}")
        still, silence = np.zeros(DIM, np.float32), np.zeros(0, np.float32)
        found.append(
            Recorded(side.conversation, side, avatar, user, state, np.ones(len(user), bool), still, silence, silence)
        )
    return found


def other_noise(number: int) -> np.ndarray:
    """An avatar with the same user and rule, whose nods, delays, drift and own smiles are drawn anew."""
    corpus, unmoved = Corpus(seconds=60), replace(Rule(), smile_gain=0.0)
    talk = make_talk(corpus, number)
    _, avatar = make_motion(replace(corpus, seed=9), unmoved, number, talk)
    mirrored = make_motion(corpus, Rule(), number, talk)[AVATAR] - make_motion(corpus, unmoved, number, talk)[AVATAR]
    avatar[:, SMILES] += mirrored[:, SMILES]
    return avatar


def window(recorded: Recorded, first: int, frames: int = 100) -> Recorded:
    some = {name: getattr(recorded, name)[first : first + frames] for name in ("truth", "user", "state", "valid")}
    return replace(recorded, **some)


def bump(at: int, frames: int, height: float, total: int = 300) -> np.ndarray:
    motion = np.zeros(total)
    motion[at : at + frames] = height * np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2
    return motion


def found_in(
    motion: dict[int, np.ndarray], least: dict[str, float], **changed: np.ndarray
) -> dict[str, list[list[int]]]:
    made = np.zeros((300, DIM))
    for column, values in motion.items():
        made[:, column] = values
    spans = events(made, changed.get("valid", SEEN), changed.get("speaks", SILENT), SIGNALS, least)
    return {kind: each.tolist() for kind, each in spans.items() if len(each)}


LEAST = {"nod": 0.1, "shake": 0.1, "smile": 0.5, "jaw": 0.5}


def test_nods_go_either_way_in_one_cycle_or_several() -> None:
    once = found_in({0: -bump(100, 12, 0.2) + bump(200, 12, 0.2)}, LEAST)["nod"]
    assert [first for first, _ in once] == pytest.approx([103, 203], abs=1)
    twice = found_in({0: -bump(100, 12, 0.2) - bump(114, 12, 0.2)}, LEAST)["nod"]
    assert len(twice) == 1
    assert twice[0][1] - twice[0][0] == pytest.approx(20, abs=2)
    assert found_in({0: bump(100, 12, 0.05)}, LEAST) == {}
    assert list(found_in({1: bump(100, 12, 0.2)}, LEAST)) == ["shake"]


def test_a_laugh_is_a_smile_with_an_open_jaw_of_who_does_not_talk() -> None:
    smile, jaw = bump(100, 60, 2.0), bump(125, 10, 1.0)
    assert set(found_in({7: smile, 8: smile}, LEAST)) == {"smile"}
    laughs = found_in({7: smile, 8: smile, 6: jaw}, LEAST)
    assert laughs["laugh"] == laughs["smile"]
    assert set(found_in({7: smile, 8: smile, 6: jaw}, LEAST, speaks=~SILENT)) == {"smile"}


def test_what_is_not_seen_is_no_event() -> None:
    hidden = SEEN.copy()
    hidden[104] = False
    assert found_in({0: bump(100, 12, 0.2)}, LEAST, valid=hidden) == {}
    assert found_in({0: np.zeros(300)}, LEAST) == {}
    for frames in (0, 1, 2, 3):
        short = events(np.zeros((frames, DIM)), np.ones(frames, bool), np.zeros(frames, bool), SIGNALS, LEAST)
        assert all(len(spans) == 0 for spans in short.values())


def test_thresholds_lie_between_drift_and_events() -> None:
    rng = np.random.default_rng(0)
    motion = np.zeros((3000, DIM))
    for at in range(50, 2900, 60):
        motion[:, 0] += bump(at, 12, 0.2 * rng.uniform(0.8, 1.2), 3000)
        motion[:, 0] += bump(at + 25, 10, 0.03 * rng.uniform(0.5, 1.5), 3000)
    least = thresholds([(motion, np.ones(3000, bool))], SIGNALS)
    assert 0.05 < least["nod"] < 0.16
    assert least["shake"] == math.inf  # nothing moves: no event, whatever is generated


def test_codecs_say_what_they_can_tell(dataset_manifest) -> None:
    bare = readouts(dataset_manifest)
    assert sorted(bare) == ["pitch", "yaw"]
    assert not_told(bare) == ("smile", "brow", "blink", "laugh")
    names = [
        "pitch",
        "yaw",
        "roll",
        "x",
        "y",
        "log_size",
        "mouthSmileLeft",
        "mouthSmileRight",
        "jawOpen",
        "a",
        "b",
        "c",
    ]
    named = dataset_manifest.model_copy(update={"columns": tuple(MotionColumn(name=n, unit="") for n in names)})
    assert readouts(named)["smile"].tolist() == [0] * 6 + [0.5, 0.5] + [0] * 4
    assert not_told(readouts(named)) == ("brow", "blink")
    basis = np.zeros((6, LANDMARKS, 3), np.float32)
    basis[2, 291, 0], basis[2, 61, 0] = 1, -1  # the third number of the code widens the mouth
    assert readouts(dataset_manifest, basis.reshape(6, -1))["smile"].tolist() == [0] * 8 + [2] + [0] * 3
    assert not_told(readouts(dataset_manifest, basis.reshape(6, -1))) == ()


@pytest.fixture
def dataset_manifest():
    from tests.training.synthetic import SPEC
    from visavis.schemas.manifest import BalancePlan, Manifest

    plan = BalancePlan(mixture={}, keep={}, seconds_before={}, seconds_after={})
    return Manifest(
        kind="windows", fingerprint="f", fps=25, sample_rate=16000, window=50, motion=SPEC, conversations=1,
        participants=2, plan=plan, shards=(),
    )  # fmt: skip


def test_matching_and_delays() -> None:
    true = np.array([[10, 20], [50, 60], [100, 110]])
    assert match(np.array([[12, 22], [54, 70], [100, 110]]), true) == [(0, 0), (2, 2)]
    assert match(np.zeros((0, 2), int), true) == match(true, np.zeros((0, 2), int)) == []
    assert delays(np.array([15, 40, 70]), np.array([10, 30, 45, 90]), 3, 20).tolist() == [5, 10]
    counts = np.zeros(51)
    counts[10:16] = 8
    assert pile(counts, 1.0)[:2] == (10, 15)
    assert pile(counts * 0, 0.0).deviations == 0
    assert phrase_ends(np.array([2, 2, 0, 2, 3, 1], np.uint8)).tolist() == [2, 5]


def test_an_answer_just_before_a_sequence_ends_is_no_false_alarm() -> None:
    """Two sequences: in each a phrase ends, and a nod answers it, long before the end and just before it."""
    motion, state = np.zeros((300, DIM)), np.full(300, 2, np.uint8)
    for end in (100, 280):
        state[end] = 0
        motion[:, 0] += bump(end + 4, 12, 0.2)
    silence, still = np.zeros(0, np.float32), np.zeros(DIM)
    each = Recorded("a", Side("a", "a", "u"), motion, motion, state, SEEN, still, silence, silence)
    found = Reactions([each, each], SIGNALS).figures([motion, motion])["nod"]
    assert (found["recall"], found["alarms_min"], found["events_min"]) == (1, 0, 10)
    late = Reactions([each, each], SIGNALS).figures([np.roll(motion, 30, axis=0)] * 2)["nod"]
    assert late["alarms_min"] == late["events_min"] > 0


def test_wrong_times_are_never_nearly_right() -> None:
    for lengths in ([700], [50] * 120, [100, 60, 400]):
        assert all(REACH <= shift <= sum(lengths) - REACH for shift in wrong_times(lengths))
    assert wrong_times([2 * REACH]) == []


def noise(frames: int, person: str, valid: bool = True) -> Recorded:
    random, silence = np.random.default_rng(frames), np.zeros(0, np.float32)
    truth, user = random.standard_normal((2, frames, DIM))
    seen, state = np.full(frames, valid), np.zeros(frames, np.uint8)
    return Recorded(person, Side(person, person, "u"), truth, user, state, seen, np.zeros(DIM), silence, silence)


@pytest.mark.parametrize("other", [noise(20, "b"), noise(300, "b", valid=False)], ids=["short", "unseen"])
def test_who_has_no_past_does_not_count_for_r_dgg(other: Recorded) -> None:
    alone, third = noise(300, "a"), noise(310, "c")
    recorded = [alone, other]
    assert math.isnan(user_gain(recorded, [each.truth for each in recorded], Space.of(recorded)).value)
    recorded.append(third)
    found = user_gain(recorded, [each.truth for each in recorded], Space.of(recorded))
    assert math.isfinite(found.value)
    assert found.p > 0.01  # noise follows nobody


def test_what_lies_on_frames_that_are_not_seen_changes_nothing(dataset_manifest) -> None:
    """At the right time and, in `shifted`, at the wrong one."""
    found = []
    for garbage in (0.0, 50.0):
        recorded = conversations(2, seconds=20)
        for each in recorded:
            each.valid[100:200] = False
            each.truth[100:200] += garbage * bump(50, 12, 1.0)[:100, None]
            each.user[100:200] -= garbage
        found.append(reaction_rows(dataset_manifest, recorded, {}))
    assert found[0] == found[1]
    assert found[0]["follows"]["ground_truth"]["R-DGG_value"] is not None


@pytest.mark.slow
def test_the_rule_is_read_back_from_whole_conversations() -> None:
    recorded = conversations(12)
    ruler = Reactions(recorded, SIGNALS)
    truth = ruler.figures([each.truth for each in recorded])["nod"]
    assert truth["delay_s"] == pytest.approx((11.5 + 3) / FPS, abs=0.1)  # half way up, 3 frames after the onset
    assert truth["recall"] > 0.35
    assert truth["p"] < 0.01
    assert (truth["f1"], truth["onset_error_s"], truth["delay_distance_s"]) == (1, 0, 0)
    still = ruler.figures([np.zeros_like(each.truth) for each in recorded])["nod"]
    assert (still["recall"], still["events_min"]) == (0, 0)
    assert all(math.isnan(still[name]) for name in ("delay_s", "spread_s", "precision", "onset_error_s"))
    dull = conversations(12, nod_probability=0.0)
    none = ruler.figures([each.truth for each in dull])["nod"]
    assert abs(none["above_chance"]) < 0.08
    late = ruler.figures([np.roll(each.truth, 10, axis=0) for each in recorded])["nod"]
    assert late["delay_s"] == pytest.approx(truth["delay_s"] + 0.4, abs=0.06)
    assert late["delay_distance_s"] == pytest.approx(0.4, abs=0.06)
    assert late["recall"] < truth["recall"]
    user_faces = [replace(each, user=each.user[:, 6:]) for each in recorded]
    assert lagged(user_faces, [each.truth[:, 6:] for each in recorded]).delay_s == pytest.approx(8 / FPS, abs=0.04)


@pytest.mark.slow
def test_a_perfect_listener_is_told_from_strangers_at_sixty_windows() -> None:
    """A listener by the same rule with other noise, and one who listens to somebody else; windows of 4 s."""
    whole = conversations(60)
    places = np.random.default_rng(5).integers(0, 1400, 60)
    windows = [window(each, at) for each, at in zip(whole, places, strict=True)]
    perfect = [other_noise(number)[at : at + 100] for number, at in enumerate(places)]
    strangers = perfect[23:] + perfect[:23]
    ruler, space = Reactions(windows, SIGNALS), Space.of(windows)
    for kind in ("nod", "smile"):
        own, others = (ruler.figures(motions)[kind] for motions in (perfect, strangers))
        assert own["p"] < 0.01 <= others["p"], (kind, own, others)
        assert own["f1_p"] < 0.01 <= others["f1_p"], (kind, own, others)
        assert own["delay_distance_s"] < 0.1
    faces = [replace(each, user=each.user[:, 6:]) for each in windows]
    for figure in (lambda m: lagged(faces, [each[:, 6:] for each in m]), lambda m: user_gain(windows, m, space)):
        assert figure(perfect).p < 0.01 <= figure(strangers).p
    gain = user_gain(windows, perfect, space)
    assert 0 < gain.low < gain.value < gain.high
    assert math.isnan(user_gain(windows, [np.zeros((100, DIM))] * 60, space).value)
    assert math.isnan(user_gain(windows[:1], perfect[:1], space).value)
    assert math.isnan(lagged(faces, [np.ones((100, 6))] * 60).best)


@pytest.mark.slow
def test_sixty_windows_tell_who_listens_as_real_people_do() -> None:
    """Nods of 4° and faint smiles, of conversations that nothing was chosen on."""
    own, others = judged(REAL, seed=300, windows=60)
    assert own.p < 0.01 <= others.p
    assert own.ahead > 0.1 > abs(others.ahead)

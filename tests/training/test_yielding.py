"""Does the avatar yield? Listeners of a known rule do; the same motion at a wrong time, and a still face, do not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.listeners import BROW, Rule
from benchmarks.reactive import AVATAR, USER, Corpus, make_dyad, make_talk
from visavis.stages.windows import avatar_state
from visavis.training.events import column_readouts
from visavis.training.sequences import Recorded, Side
from visavis.training.yielding import Yielding, barge_ins

CORPUS = Corpus(train=8, val=0, seed=3, speaking=0.5, barge_ins=0.5)
NAMES = [column.name for column in Rule().columns]
SIGNALS = column_readouts(len(NAMES), range(3), range(6, len(NAMES)), NAMES)


def recorded(number: int) -> Recorded:
    dyad = make_dyad(CORPUS, Rule(), number)
    return Recorded(
        key=f"{number}",
        side=Side(f"{number}", "avatar", "user"),
        truth=dyad.motion[AVATAR],
        user=dyad.motion[USER],
        state=avatar_state(dyad.state, AVATAR),
        valid=np.ones(len(dyad.state), bool),
        reference=dyad.reference[AVATAR],
        avatar_audio=np.zeros(0, np.float32),
        user_audio=np.zeros(0, np.float32),
    )


@pytest.fixture(scope="module")
def talks() -> list[Recorded]:
    return [recorded(number) for number in range(CORPUS.train)]


def test_barge_ins_are_where_the_corpus_has_them(talks: list[Recorded]) -> None:
    found = {(moment.sequence, moment.onset) for moment in barge_ins(talks)}
    true = {(n, onset) for n in range(len(talks)) for onset, _ in make_talk(CORPUS, n).barge_ins}
    assert len(found) >= 10
    assert found <= true
    assert len(found) >= 0.8 * len(true)  # but for those at the ends


def test_who_reacts_to_a_barge_in_is_told_from_who_does_not(talks: list[Recorded]) -> None:
    ruler, truth = Yielding(talks, SIGNALS, draws=60), [each.truth for each in talks]
    true = ruler.figures(truth)
    assert true["reacts"] > 0.4
    assert true["reacts_p"] < 0.05
    late = ruler.figures([np.roll(motion, 700, axis=0) for motion in truth])
    assert late["reacts_p"] > 0.1
    deaf = [motion.copy() for motion in truth]
    for motion in deaf:
        motion[:, BROW] = np.roll(motion[:, BROW], 700)
    assert abs(ruler.figures(deaf)["reacts"]) < 0.5 * true["reacts"]  # its mouth moves as before
    assert ruler.figures(deaf)["mouth_stops"] == true["mouth_stops"]


def test_a_still_face_reacts_to_nothing_and_its_mouth_has_stopped(talks: list[Recorded]) -> None:
    found = Yielding(talks, SIGNALS, draws=20).figures([np.zeros_like(each.truth) for each in talks])
    assert (found["reacts"], found["mouth_stops"]) == (0, 1)


def test_where_nobody_barges_in_nothing_is_defined(talks: list[Recorded]) -> None:
    calm = [recorded(0)]
    calm[0].state[:] = 1
    found = Yielding(calm, SIGNALS, draws=3).figures([calm[0].truth])
    assert found["barge_ins"] == 0
    assert all(np.isnan(value) for name, value in found.items() if name != "barge_ins")

"""How alike one person's faces are, as a corpus tells of a network that nobody measured; who is who, and whose name."""

from __future__ import annotations

import numpy as np
import pytest

from visavis.stages.crowd.likeness import FEWEST, of_faces
from visavis.stages.crowd.linking import linked
from visavis.stages.doctor.findings import Findings
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.prints import Appearance, Print, Prints


def corpus(talks: int, people: int, noise: float, seed: int, shared: float = 0.0) -> tuple[np.ndarray, ...]:
    """Made prints [C, 2, E] of people who meet by chance, agreement of halves [C, 2], and who they are [C, 2]."""
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((people, 128)) / np.sqrt(128) + shared * rng.standard_normal(128) / np.sqrt(128)
    who = np.stack([rng.choice(people, 2, replace=False) for _ in range(talks)])
    halves = base[who, None] + noise * rng.standard_normal((talks, 2, 2, 128)) / np.sqrt(128)
    halves /= np.linalg.norm(halves, axis=3, keepdims=True)
    mean = halves.mean(axis=2)
    agreement = np.einsum("cpe,cpe->cp", halves[:, :, 0], halves[:, :, 1])
    return mean / np.linalg.norm(mean, axis=2, keepdims=True), agreement, who


@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_a_corpus_tells_how_alike_one_persons_faces_are(shared: float) -> None:
    """shared: what all faces have in common, as networks of another kind leave it."""
    prints, agreement, who = corpus(60, 30, 0.35, seed=4, shared=shared)
    pictures = np.full(who.shape, 12.0)
    likeness, said = of_faces(prints, agreement)
    assert likeness is not None
    assert "one person from a cosine of" in said
    talk = np.repeat(np.arange(len(who)), 2)
    found = linked(prints.reshape(-1, 128).astype(np.float32), pictures.ravel(), talk, likeness=likeness)
    ties = {*zip(who.ravel().tolist(), found.tolist(), strict=True)}
    assert len(ties) == len(np.unique(found)) == len(np.unique(who))


@pytest.mark.parametrize(("alike", "doubted"), [(0.05, True), (0.4, False)])
def test_a_name_is_doubted_only_where_faces_are_as_unlike_as_strangers(alike: float, doubted: bool) -> None:
    """alike: cosine of the one who is called p0 in another conversation; halves of one person are alike by 0.9."""
    prints, agreement, _ = corpus(30, 60, 0.3, seed=7)
    aside = prints[9, 0] - (prints[9, 0] @ prints[3, 0]) * prints[3, 0]
    prints[9, 0] = alike * prints[3, 0] + np.sqrt(1 - alike**2) * aside / np.linalg.norm(aside)
    crowd, found = Prints("face"), Findings()
    for talk in range(30):
        for place in (0, 1):
            name = "p0" if place == 0 and talk in (3, 9) else f"t{talk}-{place}"
            print_ = Print(prints[talk, place].astype(np.float32), 12, agreement[talk, place])
            crowd.add(Appearance(f"t{talk}", f"t{talk}.mp4", name, "train"), print_)
    crowd.judge(found)
    told = {each.kind: each for each in found.all(30)}
    assert (Kind.SEVERAL_PEOPLE in told) == doubted
    if doubted:
        assert told[Kind.SEVERAL_PEOPLE].items[0].detail.startswith("2 faces: t")


def test_who_tells_nobody_apart_links_nobody() -> None:
    prints, agreement, _ = corpus(60, 30, 20.0, seed=5)
    assert of_faces(prints, agreement)[0] is None
    prints, agreement, _ = corpus(FEWEST - 1, 30, 0.3, seed=6)
    likeness, said = of_faces(prints, agreement)
    assert likeness is None
    assert said.startswith(f"{FEWEST - 1} conversations")


def test_a_given_threshold_is_the_bound_whatever_the_number_of_people() -> None:
    likeness, said = of_faces(np.zeros((0, 2, 8)), np.zeros((0, 2)), 0.4)
    assert likeness is not None
    assert (likeness.cosine(2), likeness.cosine(100_000)) == pytest.approx((0.4, 0.4))
    assert said == "one person from a cosine of 0.40 on, as set"
    turned = [np.array([np.cos(a), np.sin(a)], np.float32) for a in (0.0, np.arccos(0.42), -np.pi / 2)]
    assert linked(np.stack(turned), np.full(3, 12.0), np.arange(3), likeness=likeness).tolist() == [0, 0, 2]

"""Splits by voice and face: nobody is in two, whatever names say.

Prints are gathered by tasks, a few hundred conversations each, and the driver links them: that takes time by the square
of how many there are (`benchmarks.people --scale`). The same prints give the same people.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np

from visavis.pipeline.engine.run import Run, made_of
from visavis.pipeline.plan.dataset import buckets_of, read_made
from visavis.pipeline.plan.graph import Graph
from visavis.pipeline.plan.workflow import MakeTask
from visavis.pipeline.state.tasks import Artifact
from visavis.schemas.artifact import load_row
from visavis.schemas.errors import RunFailed
from visavis.schemas.people_config import SplitConfig
from visavis.schemas.print_rows import Crowd, Prints
from visavis.schemas.words import counted
from visavis.stages.balance import name_number
from visavis.stages.crowd.likeness import OF_VOICES, Likeness, of_faces
from visavis.stages.crowd.linking import linked
from visavis.stages.people import PeopleStage
from visavis.training.components import groups_of

_CHUNK = 256  # conversations that one task gathers

PrintsOf = Mapping[int, Mapping[str, Artifact]]
"""Of each conversation's id, its prints by stage."""


def people_by_prints(
    run: Run, rows: np.ndarray, prints: PrintsOf, config: SplitConfig, task: MakeTask, graph: Graph
) -> np.ndarray:
    """Who the participants of each dyad are, as `stages.balance.held_out` takes it: uint64 [N, 2].

    Args:
        rows: the dyads, by id.

    Raises:
        RunFailed: some prints could not be gathered.
    """
    step = graph.steps[PeopleStage.name]
    tasks = [
        task(
            step.name,
            name,
            counted(len(part), "conversation"),
            step.inputs({source: [prints[id_][source] for id_ in part.tolist()] for source in step.takes.values()}),
        )
        for name, part in buckets_of(rows["id"], _CHUNK).items()
    ]
    done = run.execute(step.name, tasks, len(tasks))
    if None in done.values():
        raise RunFailed(f"voices and faces could not be compared; see `visavis status {run.root}`")
    crowd = [load_row(read_made(run.store, made), Crowd) for made in made_of(done)]
    ids = np.array([int(id_, 16) for part in crowd for id_ in part.conversations], np.uint64)
    order = np.argsort(ids)
    numberings = [rows["names"]] if config.people == "both" else []
    voices, faces = ([getattr(part, kind) for part in crowd] for kind in ("voices", "faces"))
    if config.people != "faces" and voices[0] is not None:
        numberings.append(person_numbers(ids[order], *_joined(voices, order)[:2]))
    if config.people != "voices" and faces[0] is not None:
        prints_N2E, pictures_N2, agreement_N2 = _joined(faces, order)
        likeness, said = of_faces(prints_N2E, agreement_N2, config.face_threshold)
        run.reporter.line(f"faces: {said}{'' if likeness else '; names say who is one person'}")
        numberings.append(person_numbers(ids[order], prints_N2E, pictures_N2, likeness) if likeness else rows["names"])
    return reduce(tied, numberings)


def _joined(parts: list[Prints], order: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prints, weights and agreement of all conversations, in an order: [N, 2, E], [N, 2], [N, 2]."""
    weight_N2 = np.concatenate([part.weight for part in parts])
    known = [part.agreement for part in parts if part.agreement is not None]
    agreement_N2 = np.concatenate(known) if known else np.full_like(weight_N2, np.nan)
    return np.concatenate([part.prints for part in parts])[order], weight_N2[order], agreement_N2[order]


def person_numbers(
    id_N: np.ndarray, prints_N2E: np.ndarray, weight_N2: np.ndarray, likeness: Likeness = OF_VOICES
) -> np.ndarray:
    """A number for each person by voice or face: uint64 [N, 2], the least of the person's participants'.

    So a corpus that grows moves those alone who turn out to be one with somebody else.
    """
    flat_PE = prints_N2E.reshape(-1, prints_N2E.shape[2]).astype(np.float32)
    weight_P, talk_P = weight_N2.ravel().astype(np.float64), np.repeat(np.arange(len(id_N)), 2)
    person_P = linked(flat_PE, weight_P, talk_P, likeness=likeness)
    own = [name_number(f"{number:016x}/{place}") for number in id_N.tolist() for place in (0, 1)]
    number_P = np.array(own, np.uint64)
    least_P = np.full(len(number_P), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least_P, person_P, number_P)
    return least_P[person_P].reshape(-1, 2)


def tied(one_N2: np.ndarray, other_N2: np.ndarray) -> np.ndarray:
    """Who is one person by either of two numberings: uint64 [N, 2]."""
    numbers, one_P = np.unique(one_N2, return_inverse=True)
    others, other_P = np.unique(other_N2, return_inverse=True)
    size = len(numbers) + len(others)
    group = groups_of(np.stack([one_P.ravel(), len(numbers) + other_P.ravel()], axis=1), size)
    _, first = np.unique(group[: len(numbers)], return_index=True)  # each group has a name, and its least stands for it
    named: np.ndarray = numbers[first][group[one_P.ravel()]]
    return named.reshape(one_N2.shape)

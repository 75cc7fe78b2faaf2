"""Splits by voice: nobody is in two, whatever names say.

Voiceprints are gathered by tasks, a few hundred conversations each, and the driver links them: that takes time by the
square of how many there are (`benchmarks.people --scale`). The same voiceprints give the same people.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from visavis.pipeline.engine.run import Run, made_of
from visavis.pipeline.plan.dataset import buckets_of, read_made
from visavis.pipeline.plan.graph import Graph
from visavis.pipeline.plan.workflow import MakeTask
from visavis.pipeline.state.tasks import Artifact
from visavis.schemas.artifact import load_row
from visavis.schemas.errors import RunFailed
from visavis.schemas.rows import Crowd
from visavis.schemas.windows_config import SplitConfig
from visavis.schemas.words import counted
from visavis.stages.balance import name_number
from visavis.stages.people import PeopleStage
from visavis.stages.voice.linking import linked
from visavis.stages.voiceprints import VoiceprintsStage
from visavis.training.components import groups_of

_CHUNK = 256  # conversations that one task gathers


def people_by_voice(
    run: Run, rows: np.ndarray, prints: Mapping[int, Artifact], config: SplitConfig, task: MakeTask, graph: Graph
) -> np.ndarray:
    """Who the participants of each dyad are, as `stages.balance.held_out` takes it: uint64 [N, 2].

    Args:
        rows: the dyads, by id. prints: of each id, its voiceprints.

    Raises:
        RunFailed: some could not be gathered.
    """
    step = graph.steps[PeopleStage.name]
    tasks = [
        task(
            step.name,
            name,
            counted(len(part), "conversation"),
            step.inputs({VoiceprintsStage.name: [prints[number] for number in part.tolist()]}),
        )
        for name, part in buckets_of(rows["id"], _CHUNK).items()
    ]
    done = run.execute(step.name, tasks, len(tasks))
    if None in done.values():
        raise RunFailed(f"voices could not be compared; see `visavis status {run.root}`")
    crowd = [load_row(read_made(run.store, made), Crowd) for made in made_of(done)]
    ids = np.array([int(id_, 16) for part in crowd for id_ in part.conversations], np.uint64)
    order = np.argsort(ids)
    prints_N2E = np.concatenate([part.prints for part in crowd])[order]
    seconds_N2 = np.concatenate([part.seconds for part in crowd])[order]
    voices_N2 = person_numbers(ids[order], prints_N2E, seconds_N2)
    return voices_N2 if config.people == "voices" else tied(rows["names"], voices_N2)


def person_numbers(id_N: np.ndarray, prints_N2E: np.ndarray, seconds_N2: np.ndarray) -> np.ndarray:
    """A number for each person by voice: uint64 [N, 2], the least of the person's participants'.

    So a corpus that grows moves those alone who turn out to be one with somebody else.
    """
    flat_PE = prints_N2E.reshape(-1, prints_N2E.shape[2]).astype(np.float32)
    person_P = linked(flat_PE, seconds_N2.ravel().astype(np.float64), np.repeat(np.arange(len(id_N)), 2))
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

"""What `visavis pairs --votes` makes pairs of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.preferences import votes_of
from visavis.pipeline.plan.pairs_order import PairsRequest
from visavis.training.dataset import Dataset


def voted_request(request: PairsRequest, study: Path, votes: Sequence[Path], reporter: Reporter) -> PairsRequest:
    """The request with what people decided. Their judgement takes the place of reactivity's: what they preferred need
    not react more.

    Raises:
        UsageError: as `votes_of`.
    """
    ballots, said = votes_of(study, votes, request.config.votes)
    for line in said:
        reporter.line(line)
    held_out = {entry.path for entry in Dataset(request.dataset).manifest.of("val")}
    if held_out & set(ballots.pairs):
        reporter.line(
            "people saw held-out windows; once a model is tuned on them, `visavis evaluate` has seen these windows."
            " A study of others: visavis study --split train"
        )
    sampler = request.config.sampler.model_copy(update={"seed": ballots.seed})
    gate = request.config.gate
    if "min_reactivity_margin" not in gate.model_fields_set:
        gate = gate.model_copy(update={"min_reactivity_margin": None})
    return replace(
        request, config=request.config.model_copy(update={"sampler": sampler, "gate": gate}), ballots=ballots
    )

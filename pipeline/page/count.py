"""Votes counted: shares with intervals, agreement, sides, attention, and what measurements say of the same clips."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm, spearmanr

from visavis.pipeline.page import shares
from visavis.pipeline.page.votes import Ballot, Key, Trial, checks_failed, one_of_each, scores

_FEWEST = 4  # clips of which a correlation is said


def count_votes(key: Key, ballots: Sequence[Ballot], most_failed: int | None = None) -> dict[str, Any]:
    """All that votes say; plain JSON values, None for what is not defined.

    Args:
        most_failed: attention checks a person may fail and still count; none: a quarter of those answered.

    Returns: "people" (files, kept, and every file that is left out with its reason), "sides", and for each question
        "shares" (each two systems), "agreement", "bradley_terry", "measurements" and "trials" (the preferred system of
        each pair of clips).
    """
    kept, _ = one_of_each(ballots)
    attentive, said = attentive_of(key, ballots, most_failed)
    expected = len(key.trials) * len(key.questions)
    unfinished = [
        f"{b.file}: {len(b.votes.votes)} of {expected} votes, counted" for b in attentive
        if len(b.votes.votes) < expected
    ]  # fmt: skip
    return {
        "study": key.study,
        "systems": list(key.systems),
        "people": {
            "files": len(ballots),
            "counted": len(attentive),
            "left_out": said,
            "unfinished": unfinished,
            "checks_failed": {b.votes.person: list(checks_failed(b, key)) for b in kept},
        },
        "sides": _sides(key, attentive),
        "questions": {question.code: _question(key, attentive, question.code) for question in key.questions},
        "texts": {question.code: question.text for question in key.questions},
    }


def attentive_of(key: Key, ballots: Sequence[Ballot], most_failed: int | None = None) -> tuple[list[Ballot], list[str]]:
    """A ballot of each person who looked, and what is left out, in words. most_failed: as of `count_votes`."""
    kept, said = one_of_each(ballots)
    attentive = []
    for ballot in kept:
        failed, of = checks_failed(ballot, key)
        if failed > (of // 4 if most_failed is None else most_failed):
            said.append(f"{ballot.file}: {failed} of {of} attention checks failed, left out")
        else:
            attentive.append(ballot)
    return attentive, said


def _question(key: Key, ballots: Sequence[Ballot], code: str) -> dict[str, Any]:
    real = [trial for trial in key.trials if not trial.check]
    score_PC = scores(ballots, key, code)
    found: dict[str, Any] = {
        "shares": [],
        "bradley_terry": None,
        "measurements": [],
        "trials": _trials(real, score_PC),
    }
    for pair in combinations(key.systems, 2):
        columns = [n for n, trial in enumerate(real) if {clip.system for clip in trial.clips} == set(pair)]
        turned_PC = np.stack(
            [score_PC[:, n] if real[n].clips[0].system == pair[0] else 1 - score_PC[:, n] for n in columns], axis=1
        ) if columns else np.empty((len(ballots), 0))  # fmt: skip
        seen_PC = np.isfinite(turned_PC)
        turned_PC = turned_PC[np.ix_(seen_PC.any(axis=1), seen_PC.any(axis=0))]
        if turned_PC.size:
            found["shares"].append({"systems": list(pair), **_shares(turned_PC)})
            some = [real[columns[n]] for n in np.flatnonzero(seen_PC.any(axis=0))]
            found["measurements"] += _measurements(pair, some, np.nanmean(turned_PC, axis=0))
    answer_PC = np.where(np.isfinite(score_PC), 2 * score_PC, -1).astype(int)
    found["agreement"] = shares.krippendorff_alpha(answer_PC) if answer_PC.size else None
    if len(key.systems) > 2 and np.isfinite(score_PC).any():
        found["bradley_terry"] = _bradley_terry(key, real, score_PC)
    return found


def _shares(score_PC: np.ndarray) -> dict[str, Any]:
    votes = int(np.isfinite(score_PC).sum())
    return {
        "share": shares.share(score_PC),
        "interval": _plain(shares.interval(score_PC)),
        "interval_these_clips": _plain(shares.interval(score_PC, clips=False)),
        "wilson": _plain(shares.wilson(float(np.nansum(score_PC)), votes)),
        "bootstrap": _plain(shares.bootstrap(score_PC)),
        "effective_votes": shares.effective_votes(score_PC),
        "votes": votes,
        "first": int((score_PC == 1).sum()),
        "same": int((score_PC == 0.5).sum()),
        "second": int((score_PC == 0).sum()),
        "people": int(np.isfinite(score_PC).any(axis=1).sum()),
        "clips": int(np.isfinite(score_PC).any(axis=0).sum()),
    }


def _plain(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _trials(real: Sequence[Trial], score_PC: np.ndarray) -> list[dict[str, Any]]:
    """Each pair of clips as a preference: who was preferred by more people, and how many there were."""
    made = []
    for n, trial in enumerate(real):
        column = score_PC[:, n] if score_PC.size else np.empty(0)
        first, second = (clip.system for clip in trial.clips)
        wins = [int((column == value).sum()) for value in (1, 0.5, 0)]
        preferred = first if wins[0] > wins[2] else second if wins[2] > wins[0] else None
        made.append(
            {"trial": trial.code, "window": trial.window, "systems": [first, second], "preferred": preferred,
             "rejected": None if preferred is None else second if preferred == first else first,
             "first": wins[0], "same": wins[1], "second": wins[2]}
        )  # fmt: skip
    return made


def _sides(key: Key, ballots: Sequence[Ballot]) -> dict[str, Any]:
    """How often the left clip was preferred, of all votes on real trials that preferred one. Every clip is as often on
    the left as on the right, so a half is expected whatever people prefer."""
    real = {trial.code for trial in key.trials if not trial.check}
    answers = [v.answer for b in ballots for v in b.votes.votes if v.trial in real and v.answer != "same"]
    left = answers.count("left")
    if not answers:
        return {"left": 0, "votes": 0, "share": None, "wilson": None, "p": None}
    p = float(binomtest(left, len(answers)).pvalue)
    votes = len(answers)
    return {"left": left, "votes": votes, "share": left / votes, "wilson": list(shares.wilson(left, votes)), "p": p}


def _bradley_terry(key: Key, real: Sequence[Trial], score_PC: np.ndarray) -> list[dict[str, Any]]:
    person, clip = np.nonzero(np.isfinite(score_PC))
    number = {system: n for n, system in enumerate(key.systems)}
    of_trial = np.array([[number[c.system] for c in trial.clips] for trial in real])
    votes = shares.Comparisons(of_trial[clip, 0], of_trial[clip, 1], score_PC[person, clip], person, clip)
    found = shares.bradley_terry(votes, len(key.systems))
    rows = [
        {"system": system, "score": float(score), "interval": [float(low), float(high)]}
        for system, score, low, high in zip(key.systems, *found, strict=True)
        if np.isfinite(score)  # else nothing compares it with the others
    ]
    return sorted(rows, key=lambda row: -row["score"])


def _measurements(pair: tuple[str, str], trials: Sequence[Trial], share_C: np.ndarray) -> list[dict[str, Any]]:
    """Of each measurement: rank correlation over clips of the share of votes with the difference (first less second),
    and in how many clips both prefer the same side."""
    names = sorted({name for trial in trials for clip in trial.clips for name in clip.figures})
    rows = [(name, np.array([_difference(pair, trial, name) for trial in trials])) for name in names]
    gate = sorted({name for trial in trials for name in trial.margins})
    turn = 1 if pair[0] == "chosen" else -1
    for name in gate:
        given = [trial.margins.get(name) for trial in trials]
        values = np.array([np.nan if value is None else value for value in given])
        rows.append((f"gate: {name}", values if name == "distance" else turn * values))
    return [{"systems": list(pair), "measurement": name, **_correlated(values, share_C)} for name, values in rows]


def _difference(pair: tuple[str, str], trial: Trial, name: str) -> float:
    figures = {clip.system: clip.figures.get(name) for clip in trial.clips}
    first, second = (figures[system] for system in pair)
    return np.nan if first is None or second is None else first - second


def _correlated(value_C: np.ndarray, share_C: np.ndarray) -> dict[str, Any]:
    seen_C = np.isfinite(value_C)
    value_C, share_C = value_C[seen_C], share_C[seen_C]
    decided = (share_C != 0.5) & (value_C != 0)
    same = int(((share_C > 0.5) == (value_C > 0))[decided].sum())
    found: dict[str, Any] = {"clips": len(value_C), "same_side": same, "decided": int(decided.sum())}
    if len(value_C) < _FEWEST or not np.ptp(value_C) or not np.ptp(share_C):
        return found | {"correlation": None, "interval": None}
    rho = float(spearmanr(value_C, share_C).statistic)
    # Fisher's z with the variance of rank correlations of Bonett and Wright (2000)
    half = float(norm.isf(0.025)) * float(np.sqrt((1 + rho * rho / 2) / (len(value_C) - 3)))
    middle = float(np.arctanh(np.clip(rho, -0.9999, 0.9999)))
    return found | {"correlation": rho, "interval": [float(np.tanh(middle - half)), float(np.tanh(middle + half))]}

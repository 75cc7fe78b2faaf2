"""What people preferred in a study, as pairs: votes counted, and the motion of both clips as it was shown.

`visavis study` keeps the motion of its clips in `motions.safetensors` beside its key: a tensor [T, D] float32 in codec
units for each clip, by its code. It is no part of the page.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from visavis.pipeline.page.count import attentive_of
from visavis.pipeline.page.votes import KEY_NAME, Ballot, Key, Trial, read_key, read_votes, scores
from visavis.schemas.errors import UsageError
from visavis.schemas.pairs import VotesConfig
from visavis.schemas.plain import to_json
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import candidates
from visavis.stages.pairing.voted import Ballots, VotedPairs

MOTIONS_NAME = "motions.safetensors"
_MOTIONS_BYTES = 1 << 30
_VOTES_FILES = 10_000


def dump_motions(motions: Mapping[str, np.ndarray]) -> bytes:
    """The motion [T, D] of clips, by their codes."""
    found: bytes = save({code: np.ascontiguousarray(motion, np.float32) for code, motion in sorted(motions.items())})
    return found


def votes_of(study: Path, given: Sequence[Path], config: VotesConfig) -> tuple[Ballots, list[str]]:
    """Pairs of the comparisons that people decided.

    Args:
        study: folder of the study's key and motions.
        given: files of votes, or folders of them.

    Returns: the pairs, and in words which files of votes are left out, and why.

    Raises:
        UsageError: not a study, or one without its motions; files that are none of its votes; no such question. One
            line.
    """
    key = read_key(study / KEY_NAME)
    motions, digest = _read_motions(study / MOTIONS_NAME, key)
    question = config.question or key.questions[0].code
    codes = [each.code for each in key.questions]
    if question not in codes:
        raise UsageError(f"{study} does not ask {question}; {candidates(question, codes, 'question')}")
    kept, said = attentive_of(key, read_votes(_files(given), key), config.failed_checks)
    pairs, left_out = _decided(key, kept, question, config, motions)
    by_person = sorted(kept, key=lambda ballot: ballot.votes.person)  # files may come in any order
    asked = to_json([digest, question, config.model_dump(), [ballot.votes.model_dump() for ballot in by_person]])
    found = hashlib.sha256(asked.encode()).hexdigest()
    return Ballots(pairs, left_out, found, key.origin.get("dataset", ""), key.seed), said


def _decided(
    key: Key, kept: Sequence[Ballot], question: str, config: VotesConfig, motions: Mapping[str, np.ndarray]
) -> tuple[dict[str, VotedPairs], dict[str, int]]:
    real = [trial for trial in key.trials if not trial.check]
    score_PC = scores(kept, key, question)
    left_out = Counter[str]()
    decided: dict[str, list[tuple[Trial, int, float]]] = {}
    for n, trial in enumerate(real):
        votes = score_PC[np.isfinite(score_PC[:, n]), n] if len(kept) else np.empty(0)
        share = float(votes.mean()) if len(votes) else 0.5
        if len(votes) < config.min_votes:
            left_out["too_few_votes"] += 1
        elif max(share, 1 - share) < config.min_share:
            left_out["no_agreement"] += 1
        else:
            decided.setdefault(trial.shard, []).append((trial, int(share < 0.5), max(share, 1 - share)))
    times = Counter(trial.window for trial in real)
    return {shard: _pairs(some, times, motions) for shard, some in decided.items()}, dict(left_out)


def _pairs(
    decided: Sequence[tuple[Trial, int, float]], times: Mapping[str, int], motions: Mapping[str, np.ndarray]
) -> VotedPairs:
    seen = Counter[str]()
    keys = []
    for trial, _, _ in decided:
        keys.append(trial.window if times[trial.window] == 1 else f"{trial.window}-v{seen[trial.window]}")
        seen[trial.window] += 1
    return VotedPairs(
        keys=tuple(keys),
        windows=tuple(trial.window for trial, _, _ in decided),
        chosen=np.stack([motions[trial.clips[best].code] for trial, best, _ in decided]),
        rejected=np.stack([motions[trial.clips[1 - best].code] for trial, best, _ in decided]),
        shares=np.array([(share, 1 - share) for _, _, share in decided], np.float64),
    )


def _read_motions(path: Path, key: Key) -> tuple[dict[str, np.ndarray], str]:
    """The motion of every clip of real trials, and the file's sha256."""
    if not path.is_file():
        raise UsageError(f"{path} is not there: only a study that keeps what it shows makes pairs; make it again")
    real = [trial for trial in key.trials if not trial.check]
    with parsing(lambda why: UsageError(f"{path}: not the motions of a study ({why})")):
        data = read_whole(*locate(str(path)), str(path), _MOTIONS_BYTES)
        try:
            motions = load(data)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        for code in (clip.code for trial in real for clip in trial.clips):
            motion = motions.get(code)
            if motion is None or motion.ndim != 2 or motion.dtype != np.float32 or not np.isfinite(motion).all():
                raise ValueError(f"clip {code} has no motion, or none that is float32 [T, D] and finite")
        if len({motions[clip.code].shape for trial in real for clip in trial.clips}) > 1:
            raise ValueError("motions of several shapes")
        if any(not trial.shard for trial in real):
            raise ValueError("the key does not say in which shards its windows are")
    return motions, hashlib.sha256(data).hexdigest()


def _files(given: Sequence[Path]) -> list[Path]:
    """Files of votes; of folders their .json files.

    Raises:
        UsageError: a folder without any, or more files than a study has.
    """
    found: list[Path] = []
    for path in given:
        some = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not some:
            raise UsageError(f"{path} has no .json file of votes")
        found += some
    if len(found) > _VOTES_FILES:
        raise UsageError(f"{len(found)} files of votes; {_VOTES_FILES} are counted at once")
    return found

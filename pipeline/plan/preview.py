"""What the quality thresholds leave out of what is measured already, without measuring or writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from visavis.pipeline.engine.terminal import table
from visavis.pipeline.plan.quality import LIMITS, MEASURED, worst_of
from visavis.pipeline.state.index import parse_facts
from visavis.pipeline.state.ledger import Ledger, latest_rows
from visavis.schemas.config import QualityConfig
from visavis.schemas.storage.store import Store
from visavis.schemas.words import counted

_SHARES = (5, 50, 95)  # percent of the conversations


def preview(root: str, fingerprints: Mapping[str, str], config: QualityConfig) -> dict[str, Any]:
    """How many conversations are measured, how many of them the thresholds leave out, and each threshold alone.

    Args:
        fingerprints: of the stages under the present settings.
    """
    worst_NL = _worst_values(root, fingerprints)
    limits, out_N = [], np.zeros(len(worst_NL), np.bool_)
    for limit, values_N in zip(LIMITS, worst_NL.T, strict=True):
        crossed_N = limit.crossed(values_N, config)
        out_N |= crossed_N
        known_N = values_N[~np.isnan(values_N)]
        shares = np.percentile(known_N, _SHARES).tolist() if len(known_N) else ()
        limits.append(
            {
                "setting": limit.setting,
                "bound": limit.bound(config),
                "reason": limit.reason.value,
                "drops": int(crossed_N.sum()),
                "percentiles": dict(zip(_SHARES, shares, strict=False)),
            }
        )
    return {"measured": len(worst_NL), "drops": int(out_N.sum()), "limits": limits}


def preview_table(found: dict[str, Any]) -> Table:
    """For people. The percentiles are of the worse of the two participants."""
    measured = counted(found["measured"], "conversation")
    title = f"of {measured} measured, thresholds leave out {found['drops']}"
    made = table(title, "setting", "bound", "leaves out", *(f"{share} %" for share in _SHARES))
    for limit in found["limits"]:
        if not limit["percentiles"]:
            continue  # nobody measured it
        shares = (f"{value:.4g}" for value in limit["percentiles"].values())
        made.add_row(f"quality.{limit['setting']}", f"{limit['bound']:g}", str(limit["drops"]), *shares)
    return made


def _worst_values(root: str, fingerprints: Mapping[str, str]) -> np.ndarray:
    """Of each conversation that was measured at all, `worst_of`: float64 [N, limits]."""
    parts = []
    for part in Ledger(Store(root)).tables(["uid", "stage", "key", "fingerprint", "facts"]):
        part = part.filter(pc.is_in(part["stage"], pa.array([name for name in MEASURED if name in fingerprints])))
        pairs = zip(part["stage"].to_pylist(), part["fingerprint"].to_pylist(), strict=True)
        parts.append(part.filter(pa.array([print_ == fingerprints[stage] for stage, print_ in pairs], pa.bool_())))
    if not parts:
        return np.zeros((0, len(LIMITS)))
    rows = pa.concat_tables(parts)
    rows = rows.take(pa.array(latest_rows(rows["uid"].to_numpy())))
    worst: dict[str, np.ndarray] = {}
    for stage, key, facts in zip(rows["stage"], rows["key"], rows["facts"], strict=True):
        if text := facts.as_py():
            found_L = np.array(worst_of(parse_facts(text, MEASURED[stage.as_py()])))
            worst[key.as_py()] = np.where(np.isnan(found_L), worst.get(key.as_py(), np.nan), found_L)
    return np.array(list(worst.values())).reshape(-1, len(LIMITS))

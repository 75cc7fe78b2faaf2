"""What the quality thresholds leave out of what is measured already, without measuring or writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from visavis.pipeline.engine.terminal import table
from visavis.pipeline.plan.quality import LIMITS, values_of
from visavis.pipeline.state.index import parse_facts
from visavis.pipeline.state.ledger import Ledger, latest_rows
from visavis.schemas.config import QualityConfig
from visavis.schemas.rows import CastFacts
from visavis.schemas.storage.store import Store
from visavis.schemas.words import counted

_SHARES = (5, 50, 95)  # percent of the conversations


def preview(root: str, fingerprint: str, config: QualityConfig) -> dict[str, Any]:
    """How many conversations are measured, how many of them the thresholds leave out, and each threshold alone.

    Args:
        fingerprint: of the stage `cast` under the present settings.
    """
    worst_NL = np.array(list(_worst_values(root, fingerprint)), np.float64).reshape(-1, len(LIMITS))
    limits, out_N = [], np.zeros(len(worst_NL), np.bool_)
    for limit, values_N in zip(LIMITS, worst_NL.T, strict=True):
        crossed_N = limit.crossed(values_N, config)
        out_N |= crossed_N
        shares = np.percentile(values_N, _SHARES).tolist() if len(values_N) else ()
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
        shares = (f"{value:.4g}" for value in limit["percentiles"].values())
        made.add_row(f"quality.{limit['setting']}", f"{limit['bound']:g}", str(limit["drops"]), *shares)
    return made


def _worst_values(root: str, fingerprint: str) -> Iterator[list[float]]:
    """Of each measured conversation, the value nearest to or furthest beyond each limit."""
    parts = []
    for part in Ledger(Store(root)).tables(["uid", "stage", "fingerprint", "facts"]):
        cast = pc.and_(pc.equal(part["stage"], "cast"), pc.equal(part["fingerprint"], fingerprint))
        parts.append(part.filter(cast))
    if not parts:
        return
    rows = pa.concat_tables(parts)
    rows = rows.take(pa.array(latest_rows(rows["uid"].to_numpy())))
    for facts in rows["facts"]:
        if text := facts.as_py():
            measured = parse_facts(text, CastFacts)
            yield [(min if limit.is_least else max)(values_of(measured, limit)) for limit in LIMITS]

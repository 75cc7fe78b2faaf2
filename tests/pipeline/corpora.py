"""Ledgers of large corpora that nobody built: outcomes and figures as a build writes them, without the artifacts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import DyadFacts
from visavis.schemas.errors import Reason
from visavis.schemas.face_rows import CastFacts
from visavis.schemas.plain import to_json
from visavis.schemas.rows import Outline
from visavis.schemas.storage.store import Store
from visavis.schemas.uris import printable
from visavis.schemas.voice_rows import VoicesFacts

STAGES = ("ingest", "diarize", "cast", "bind", "separate", "windows")
FINGERPRINTS = {name: hashlib.sha256(name.encode()).hexdigest()[:12] for name in STAGES}


def write_corpus(root: Path, count: int, seed: int = 0, *, name: str = "talk", detail: str = "") -> None:
    """A run's folder with so many conversations: some rejected by each of several stages, some failed, some kept.

    name, detail: what every conversation is called, and what is said of those that were left out, before its number.
    """
    root.mkdir(parents=True, exist_ok=True)
    settings = {"config": BuildConfig().model_dump(mode="json", exclude={"run"}), "fingerprints": FINGERPRINTS}
    (root / "run.json").write_text(to_json(settings, sort_keys=False))
    ledger, random = Ledger(Store(str(root))), np.random.default_rng(seed)
    for number in range(count):
        for outcome in _outcomes(random, number, name, detail):
            ledger.append(outcome)
    ledger.flush()


def _outcomes(random: np.random.Generator, number: int, name: str, detail: str) -> list[Outcome]:
    key = hashlib.sha256(f"source {number}".encode()).hexdigest()[:16]
    identity = hashlib.sha256(f"content {number}".encode()).hexdigest()[:16]
    item, seconds = f"{name} {number}.mp4", float(random.uniform(60, 1800))
    outline = Outline(id=identity, identity=key, frames=int(seconds * 25), keyframes=((),), early_keyframes=((),))
    cast = CastFacts(
        crowd=round(float(random.beta(1, 9)), 4),
        cuts=round(float(random.exponential(4)), 2),
        together=round(seconds * float(random.beta(9, 1)), 2),
        uncut=round(seconds * float(random.beta(6, 1)), 2),
        fresh=(round(float(random.beta(20, 1)), 3), round(float(random.beta(20, 1)), 3)),
        members=(_figures(random), _figures(random)),
    )
    facts = {
        "ingest": outline.model_dump_json(),
        "cast": cast.model_dump_json(),
        "separate": _heard(random).model_dump_json(),
        "windows": DyadFacts(
            participants=(printable(f"{item} a"), printable(f"{item} b")), windows=(9, 8, 2, 1)
        ).model_dump_json(),
    }
    wrong = {
        "ingest": Reason.TOO_SHORT, "diarize": Reason.ONE_SPEAKER, "bind": Reason.UNBOUND_VOICE,
        "separate": Reason.UNREADABLE, "windows": Reason.NO_WINDOW,
    }  # fmt: skip
    made = []
    for stage in STAGES:
        leaves = random.random() < 0.1
        reason = wrong.get(stage)
        failed = leaves and reason is None
        status = "failed" if failed else "rejected" if leaves else "ok"
        made.append(
            Outcome(
                stage, key if stage == "ingest" else identity, item, status,  # type: ignore[arg-type]
                reason="" if not leaves else "MemoryError" if failed else str(reason),
                detail=f"{detail}{number % 50}" if leaves else "",
                output="" if leaves else f"{number:016x}", inputs=f"{number:016x}",
                facts="" if leaves else facts.get(stage, ""),
                media=seconds, seconds=1.0, fingerprint=FINGERPRINTS[stage],
            )
        )  # fmt: skip
        if leaves:
            break
    return made


def _heard(random: np.random.Generator) -> VoicesFacts:
    snr = tuple(None if random.random() < 0.1 else round(float(random.normal(30, 10)), 1) for _ in range(2))
    return VoicesFacts(
        level_db=(round(float(random.normal(-22, 6))), round(float(random.normal(-22, 6)))),
        clipped=(0.0, round(float(random.beta(1, 200)), 6)),
        bandwidth_hz=(float(random.choice([3500, 6000, 8000])), 8000.0),
        snr_db=(snr[0], snr[1]),
        residual_db=(round(max(-60.0, float(random.normal(-40, 15))), 2), -60.0),
    )


def _figures(random: np.random.Generator) -> tuple[float, ...]:
    """visible, face size, sharpness, luminance, confidence, yaw, pitch, jitter."""
    return (
        round(float(random.beta(9, 1)), 4), round(float(random.lognormal(4.8, 0.5)), 1),
        round(float(random.lognormal(5, 1)), 1), round(min(255.0, max(0.0, float(random.normal(120, 40)))), 1),
        round(float(random.beta(20, 1)), 3), round(float(random.gamma(4, 6)), 1), round(float(random.gamma(4, 4)), 1),
        round(float(random.gamma(4, 0.15)), 3),
    )  # fmt: skip

"""The stages: one file each, each usable alone.

    ingest → diarize ─┐
           → faces  ──┴→ bind → motion (fit, encode) → windows → balance → shard → (train) → pairs

Every stage turns one item into rows (`stages.base`). Frames never travel between processes: a stage
that needs pixels decodes them itself.
"""

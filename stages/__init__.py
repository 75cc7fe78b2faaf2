"""The stages: one file each, each usable alone; `pipeline.plan.graph` says what takes what.

Every stage turns one item into rows (`stages.base`). Frames never travel between processes: a stage
that needs pixels decodes them itself. What stages are made of lies in rooms that know no stage: `media`,
`face`, `voice`, `pairing`, `models`.
"""

"""What crosses a boundary: rows between stages, samples in shards, manifests, configuration, errors.

Every other package imports this one; it imports none of ours, and nothing heavier than numpy,
pydantic, safetensors and soundfile, so that a worker or a notebook can load it in a blink.
"""

FPS = 25
"""Frames per second of every motion grid; frame n covers media time [n / 25, (n + 1) / 25) s."""

SAMPLE_RATE = 16_000
"""Samples per second of all audio, mono."""

SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
"""640 audio samples belong to one motion frame."""

"""Where a network runs."""

from __future__ import annotations

from typing import Literal


def pick_device(wish: Literal["auto", "cpu", "cuda"]) -> str:
    if wish != "auto":
        return wish
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

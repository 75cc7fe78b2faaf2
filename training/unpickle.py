"""Run by `training.convert` as a process of its own: a file of torch.save → tensors in safetensors, nothing else.

    python unpickle.py SOURCE TARGET BYTES

A pickle is a program, and torch's restricted reader of them has had holes. So this process has no environment of the
user's, may take BYTES of memory beside what it takes to start, and little time, and whoever started it believes nothing
but the file that it leaves behind. It imports nothing of Visavis. Exit 3 and one line on stderr: what is wrong.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SECONDS = 1800  # of one core
_FILES = 64
_SPARE = 64 << 20  # bytes of the new file beyond those of the old one
_DEEPEST = 12
_MOST = 1_000_000  # entries
_NEWEST_BROKEN = (2, 9)  # CVE-2026-24747


class Refused(Exception):
    """One line that says why."""


def main(source: str, target: str, memory: int) -> None:
    """Raises Refused, or whatever torch does."""
    import torch
    from safetensors.torch import save_file

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) <= _NEWEST_BROKEN:
        raise Refused(f"torch {torch.__version__} unpickles too much; install 2.10 or newer")
    torch.set_num_threads(1)
    size = Path(source).stat().st_size
    _limit(memory, 2 * size + _SPARE)
    _check_zip(source, size)
    loaded = torch.load(source, map_location="cpu", weights_only=True)
    tensors: dict[str, torch.Tensor] = {}
    tree = _plain(loaded, tensors, iter(range(_MOST)), 0)
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * size + _SPARE:
        raise Refused("its tensors claim more than the file holds")
    whole = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    save_file(whole or {"": torch.zeros(1)}, target, {"tree": json.dumps(tree)})


def _limit(memory: int, file: int) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if _linux() else 0
    limits = {"CPU": _SECONDS, "FSIZE": file, "NOFILE": _FILES, "CORE": 0}
    for name, most in (limits | ({"AS": taken + memory} if _linux() else {})).items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (least, least))


def _linux() -> bool:
    return sys.platform == "linux"


def _check_zip(source: str, size: int) -> None:
    """torch stores its parts as they are; one that is compressed could be any size."""
    if not zipfile.is_zipfile(source):
        return
    with zipfile.ZipFile(source) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(p.file_size for p in parts) > size:
        raise Refused("its parts claim more than the file holds")


def _plain(value: Any, tensors: dict[str, Any], left: Iterator[int], depth: int) -> Any:
    """The tree of what was read, as JSON; each tensor by the name under which it is saved."""
    import torch

    if depth > _DEEPEST or next(left, None) is None:
        raise Refused("is nested too deeply, or has too many entries")
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise Refused("has a tensor that is not a plain one")
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_scalar(key), _plain(each, tensors, left, depth + 1)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_plain(each, tensors, left, depth + 1) for each in value]}
    return {"value": _scalar(value)}


def _scalar(value: Any) -> bool | int | float | str | None:
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise Refused(f"holds a {type(value).__name__}, which is neither a tensor nor a plain value")


def _told(error: BaseException) -> str:
    """torch says it in a page; what matters in it is what the file asked for."""
    asked = re.search(r"(?:GLOBAL|global|function|class) ([\w.]+\.[\w.]+)", str(error))
    if type(error).__name__ == "UnpicklingError":
        return f"holds more than tensors and plain values{f': it asks for {asked[1]}' if asked else ''}"
    if isinstance(error, MemoryError) or "alloc" in str(error).lower():
        return "claims more memory than a file of its size takes"
    return f"is no whole file of torch.save ({(str(error).strip() or type(error).__name__).splitlines()[0][:200]})"


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except Refused as error:
        sys.exit(print(error, file=sys.stderr) or 3)
    except Exception as error:  # noqa: BLE001 - whatever it is: this process was made for it
        sys.exit(print(_told(error), file=sys.stderr) or 3)

"""Words that messages share: counts, times, lists of names, and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

_COMPARED = 10_000  # names that are looked through for one that was meant
_LISTED = 10
_UNITS = (("days", 86400), ("h", 3600), ("min", 60))


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 conversation`, `2 conversations`; plural: where it is not the noun with an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """`0.4 s`, `40 s`, `12 min`, `3.5 h`, `2.1 days`: two digits or more."""
    size, unit = next(((s, u) for u, s in _UNITS if seconds >= 2 * s), (1, "s"))
    number = seconds / size
    return f"{number:.{1 if number < 9.95 else 0}f} {unit}"


def in_words(counts: Mapping[str, int]) -> str:
    """Counts by reason, the most frequent first: `12 too short, 3 too still`."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in ordered)


def size(count: float) -> str:
    """Bytes, for people: `17 kB`, `1.2 GB`."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    power = min(max(0, len(str(round(count * 1.0005))) - 1) // 3, len(units) - 1)  # 999.6 kB are 1.0 MB
    number = count / 1000**power
    return f"{number:.{1 if power and number < 9.95 else 0}f} {units[power]}"


def candidates(wanted: str, names: Iterable[str], what: str, total: int | None = None) -> str:
    """What could have been meant by a name that is not there: `there are 24 items: b.mp4, a.mp4 …`, the closest first.

    Args:
        what: what the names are of, in the singular.
        total: how many there are, if `names` are but some of them.
    """
    known = list(dict.fromkeys(islice(names, _COMPARED)))
    total = max(len(known), total or 0)
    if not total:
        return f"there is no {what} at all"
    near = closest(wanted, known, _LISTED)
    shown = [*near, *(name for name in known if name not in near)][:_LISTED]
    more = f" and {total - len(shown)} more" if total > len(shown) else ""
    return f"there {'is' if total == 1 else 'are'} {counted(total, what)}: {', '.join(shown)}{more}"


def closest(wanted: str, names: Sequence[str], most: int = 3) -> list[str]:
    """Names that look like another, the most alike first."""
    lower: dict[str, str] = {}
    for name in names:
        lower.setdefault(name.lower(), name)
    return [lower[name] for name in get_close_matches(wanted.lower(), lower, n=most, cutoff=0.6)]


def first_difference(old: Any, new: Any, path: str = "") -> str:
    """The first setting in which two nested ones differ, `windows.length=50 and now has 100`; empty if in none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return ""
    return "" if old == new else f"{path}={old} and now has {new}"

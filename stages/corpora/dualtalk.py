"""DualTalk (arXiv 2505.18096): NAME_speaker1.{npz,wav} and NAME_speaker2.{npz,wav}, 25 frames a second.

An npz holds FLAME's coefficients: `exp` [T, 50], `pose` [T, 6] (the head 0–2, the jaw 3–5, axis-angle); `shape`, `cam`,
`tex` and `light`, which are no motion, are left out. A wav holds one voice.
"""

from __future__ import annotations

from visavis.schemas.uris import file_name
from visavis.stages.corpora.coefficients import LARGEST_ARRAY, Taken, expression_of, table_of
from visavis.stages.media.npz import read_members
from visavis.stages.media.opening import judged, open_bytes

EXPRESSION = 50


def read_flame(uri: str, exp: int) -> Taken:
    """Motion of one person.

    Raises:
        Rejected: UNREADABLE.
    """
    with open_bytes(uri) as file, judged(uri, file):
        found = read_members(file, ("exp", "pose"), LARGEST_ARRAY)
        if found is None:
            raise ValueError("no `exp` in it")
    name = file_name(uri)
    pose = table_of(found[1], "pose", name, 6, 6)
    return Taken({"exp": expression_of(found[0], exp, name), "jaw": pose[:, 3:], "pose": pose[:, :3]})

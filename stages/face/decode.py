"""Motion back to landmarks with what lies in the dataset: its codec, and the neutral faces beside each shard.

    store, manifest = Store(folder), parse_manifest(…)
    codec, faces = read_codec(store, manifest), read_faces(store, entry)      # of the shard the sample is from
    decode_motion(codec, sample.avatar_motion, faces[conversation].neutral[avatar])       # [T, 478, 3]

A sample's key is CONVERSATION-AVATAR-FRAME; in a set of pairs `-rN` may follow.
"""

from __future__ import annotations

import hashlib
import re

from visavis.schemas.artifact import load_row, load_rows
from visavis.schemas.coefficients import is_coefficients, kind_of
from visavis.schemas.dyads import Codec, NeutralFaces
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.manifest import FileEntry, Manifest, ShardEntry
from visavis.schemas.storage.faults import Blame, blame_of
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import TooLarge
from visavis.stages.face.heads import POSE_DIMS

_KEY = re.compile(r"([A-Za-z0-9_]+)-([01])-[0-9]+(-r[0-9]+)?")


def read_codec(store: Store, manifest: Manifest) -> Codec | None:
    """The codec of a dataset's motion; None where it has none: see `why_not_drawn`.

    Raises:
        DatasetError: missing, not the file that the manifest names, or no codec of motion of this size.
    """
    data = read_file(store, manifest.codec)
    if data is None:
        return None
    codec, dim = load_row(data, Codec), manifest.motion.dim
    if POSE_DIMS + len(codec.basis) != dim:
        raise DatasetError(f"codec {codec.id} decodes {POSE_DIMS + len(codec.basis)} dimensions, the motion has {dim}")
    return codec


def why_not_drawn(manifest: Manifest) -> str:
    """Why nothing here turns a dataset's motion into faces; empty where its codec does."""
    if manifest.codec is not None:
        return ""
    if is_coefficients(manifest.motion.codec):
        model = str(kind_of(manifest.motion.codec)).upper()
        drawn = "curves are drawn of it"
        if kind_of(manifest.motion.codec) == "flame":
            drawn = "name yours with --flame MODEL.npz to `visavis render`, `study`, or `report KEY.generated.npy`"
        return f"it is coefficients of {model}, whose model is not part of this program; {drawn}"
    return "it was built before datasets held their codec; `visavis build` in its run's folder adds it"


def check_flame(location: str, codec: str) -> None:
    """Refuse a FLAME model for a dataset whose motion is none of FLAME's.

    Raises:
        UsageError: it is of another codec.
    """
    if kind_of(codec) != "flame":
        raise UsageError(f"--flame is for motion that is FLAME's coefficients; that of {location} is {codec}")


def read_faces(store: Store, entry: ShardEntry) -> dict[str, NeutralFaces]:
    """The faces of a shard by conversation; none where it has no file of them.

    Raises:
        DatasetError: as `read_codec`.
    """
    data = read_file(store, entry.faces)
    return {} if data is None else {row.conversation: row for row in load_rows(data, NeutralFaces)}


def read_file(store: Store, entry: FileEntry | None) -> bytes | None:
    """The bytes of a file that the manifest names.

    Raises:
        DatasetError: missing, or others.
    """
    if entry is None:
        return None
    try:
        data = store.read(entry.path, entry.bytes)
    except FileNotFoundError as error:
        raise DatasetError(f"{entry.path} is missing; copy the dataset's folder whole, or build it again") from error
    except TooLarge as error:
        raise DatasetError(f"{entry.path} is not the one the manifest lists ({error})") from error
    except OSError as error:
        if blame_of(error) is not Blame.DATA:
            raise
        raise DatasetError(f"{entry.path} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise DatasetError(f"{entry.path} is not the one the manifest lists (sha256 differs)")
    return data


def conversation_of(key: str) -> str:
    """The conversation that a sample's key names."""
    return key.partition("-")[0]


def is_key(text: str) -> bool:
    """Whether a text looks like a sample's key."""
    return _KEY.fullmatch(text) is not None


def avatar_of(key: str) -> int:
    """Which of the two participants is the avatar, by a sample's key.

    Raises:
        DatasetError: not such a key.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise DatasetError(f"sample {key[:80]!r} does not say who its avatar is (CONVERSATION-AVATAR-FRAME)")
    return int(found[2])

"""Faces of a build cut out of its films, for those who train renderers: see `crop_folders` for the layout.

Of every conversation of the dataset, both participants. Films are read where the run found them, each once, and
nothing is tracked again. Conversations that the dataset left out are left out here, too: they have no split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from visavis.pipeline.cli.crop_folders import SIDE, CropFolder
from visavis.pipeline.cli.draw import name_of, with_addresses
from visavis.pipeline.cli.folders import dataset_folder
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.outputs import Outputs, splits_in
from visavis.pipeline.state.lock import locked
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import DatasetError, Reason, Rejected, UsageError
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.manifest import Split
from visavis.schemas.rows import Binding, Conversation, Media, Row
from visavis.schemas.sample import decode_audio
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import is_local, shown
from visavis.schemas.voice_rows import Voices
from visavis.stages.base import Stage
from visavis.stages.bind import BindStage, Seen, seen_in
from visavis.stages.face.fixed_crops import FaceClip, Followed, face_clips
from visavis.stages.faces import FacesStage
from visavis.stages.ingest import IngestStage
from visavis.stages.media.video import frames_on_grid
from visavis.stages.separate import SeparateStage
from visavis.training.dataset import Dataset

Made = TypeVar("Made", bound=Row)


@dataclass
class Exported:
    """What came of an export.

    videos: by split; cached: how many of these were there. frames: of all. enlarged: videos whose square has less than
    half of a picture's side. left_out: stretches by reason. unsplit: bound conversations that the dataset has not.
    failed: conversations that could not be read to their end, and why.
    """

    videos: Counter[str] = field(default_factory=Counter)
    cached: int = 0
    frames: int = 0
    enlarged: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    unsplit: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Video(NamedTuple):
    """A clip of one participant, 0 or 1, under its name."""

    name: str
    person: int
    clip: FaceClip


def export_crops(
    run: str, out: str, reporter: Reporter, *, limit: int | None, smallest: int, addresses: Sequence[str]
) -> Exported:
    """Write the crops of a run.

    Args:
        limit: of conversations. smallest: side of a square in pixels, below which a stretch is left out.
        addresses: whole ones of films of which the run keeps only a part.

    Raises:
        UsageError: not the run of a build, it has no dataset, an address is missing, or the folder holds something
            else; before anything is written.
        DatasetError: the dataset is unreadable.
    """
    if not is_local(out):
        raise UsageError(f"{out}: crops are written to a disk of this machine")
    made = Outputs(run)
    if BindStage.name not in made.stages:
        raise UsageError(f"{run} is no run of `visavis build`: it knows of no films and faces")
    data = Dataset(dataset_folder(run))
    splits = dict(splits_in(data))
    cv2.setNumThreads(1)

    def talks() -> Iterator[Conversation]:
        kept = (talk for _, talk in made.read(IngestStage) if talk.id in splits)
        return (with_addresses(talk, addresses) for talk in islice(kept, limit))

    # Also for an address that is missing to be known before anything is written.
    pieces = sum(1 for talk in talks() for _ in made.keys(FacesStage, talk.id))
    found, listed = Exported(), list[dict[str, Any]]()
    with locked(out, reporter.line):
        folder = CropFolder(out, data.hash, smallest)
        with folder.unfinished(), reporter.items("pieces", pieces) as advance:
            for talk in talks():
                split = splits[talk.id]
                try:
                    for video in _written(made, talk, split, folder, found, advance):
                        _count(found, split, video)
                        listed.append(_line(talk, split, video))
                except (Rejected, DatasetError) as error:
                    found.failed[talk.id] = str(error)
                    reporter.line(f"{talk.id} ({name_of(talk)}): {error}")
        folder.write_list(listed)
    found.unsplit = sum(key not in splits for key in made.keys(BindStage))
    return found


def _count(found: Exported, split: Split, video: Video) -> None:
    found.videos[split] += 1
    found.frames += len(video.clip.points_TP2)
    found.enlarged += 2 * video.clip.square.side < SIDE


def _line(talk: Conversation, split: Split, video: Video) -> dict[str, Any]:
    """What `clips.jsonl` says of a video: x, y and side of its square in pixels of the film, frames at 25 a second."""
    clip = video.clip
    person = talk.participants[video.person]
    about = {"video": video.name, "split": split, "conversation": talk.id, "participant": person}
    return about | {"first": clip.first, "frames": len(clip.points_TP2), "square": list(clip.square)}


def _written(
    made: Outputs, talk: Conversation, split: Split, folder: CropFolder, found: Exported, advance: Callable[[], None]
) -> Iterator[Video]:
    """The videos of both people, each when it is there whole; of one piece of film after the other."""
    voices: Voices | None = None
    with parsing(lambda why: DatasetError(f"what is there of it does not fit together ({why})")):
        binding = _only(_read(made, BindStage, talk.id), "tells who is who")
        for number, faces in enumerate(_read(made, FacesStage, talk.id)):
            videos = list(_videos(talk.id, binding, number, faces, folder.smallest, found.left_out))
            missing = [video for video in videos if not folder.has(split, video.name)]
            there = {video.name for video in videos} - {video.name for video in missing}
            found.cached += len(there)
            yield from (video for video in videos if video.name in there)
            if missing and voices is None:
                voices = _only(_read(made, SeparateStage, talk.id), "holds the voices")
            for name, person, clip in _filmed(missing, talk.media[faces.piece.media], faces, folder):
                assert voices is not None
                first, count = clip.first * SAMPLES_PER_FRAME, len(clip.points_TP2) * SAMPLES_PER_FRAME
                folder.put(split, name, clip, decode_audio(voices.audio[person].tobytes(), first, count))
                yield Video(name, person, clip)
            advance()


def _videos(
    id_: str, binding: Binding, number: int, faces: FaceTracks, smallest: int, left_out: Counter[str]
) -> Iterator[Video]:
    """What of a conversation's piece number `number` shows its participants."""
    for person, participant in enumerate(binding.participants):
        if participant.media != faces.piece.media:
            continue
        seen = seen_in(faces, number, participant.segments)
        for clip in face_clips(_followed(seen), smallest, left_out) if seen.places else ():
            yield Video(f"{id_}_{person}_{clip.first:07d}", person, clip)


def _followed(seen: Seen) -> Followed:
    """
    Raises:
        ValueError: numbers that are not finite.
    """
    points_VL3 = seen.landmarks()
    box_V4 = np.stack([track.box[i] for track, i in seen.places])
    if not (np.isfinite(points_VL3).all() and np.isfinite(box_V4).all()):
        raise ValueError("landmarks that are not finite")
    tracks = [id(track) for track, _ in seen.places]
    begins_V = np.isin(seen.where_V, seen.row.cuts)
    begins_V[1:] |= np.array(tracks[1:]) != np.array(tracks[:-1])
    return Followed(seen.where_V, points_VL3, box_V4, begins_V, (seen.row.width, seen.row.height))


def _filmed(videos: Sequence[Video], media: Media, faces: FaceTracks, folder: CropFolder) -> Iterator[Video]:
    """Put the pictures of these videos into the folder; each when its last one is there. The film is read once."""
    if not videos:
        return
    first, last = min(video.clip.first for video in videos), max(video.clip.last for video in videos)
    for n, rgb_HW3 in _pictures(media, first, last):
        if rgb_HW3.shape[:2] != (faces.height, faces.width):
            raise ValueError(f"a picture of {rgb_HW3.shape[1]} × {rgb_HW3.shape[0]}, faces of another size")
        for video in videos:
            if video.clip.first <= n < video.clip.last:
                folder.add(video.name, n - video.clip.first, rgb_HW3, video.clip.square)
                if n == video.clip.last - 1:
                    yield video


def _pictures(media: Media, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
    """
    Raises:
        Rejected: the film is not there, or no longer what it was; or its disk or network fails.
    """
    try:
        yield from frames_on_grid(media.uri, first, last, witness=media.witness)
    except OSError as error:
        raise Rejected(Reason.UNREADABLE, f"{shown(media.uri)}: {error.strerror or error}") from error


def _read(made: Outputs, stage: type[Stage[Any, Made]], id_: str) -> Iterator[Made]:
    """
    Raises:
        DatasetError: an artifact that cannot be read.
    """
    try:
        for _, row in made.read(stage, id_):
            yield row
    except OSError as error:
        raise DatasetError(f"what {stage.name} made of it cannot be read ({error.strerror or error})") from error


def _only(rows: Iterator[Made], what: str) -> Made:
    found = next(rows, None)
    if found is None:
        raise DatasetError(f"the artifact that {what} is not there")
    return found

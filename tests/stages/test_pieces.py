"""Pieces: where a long video is cut, and that what reads their faces holds one at a time."""

from __future__ import annotations

import functools
import itertools
import math
import weakref
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.test_bind import ALTERNATING, MEDIA
from tests.stages.test_faces import FakeTracker, real_conversation
from tests.stages.test_motion import face, filmed
from tests.stages.tracks import track_of
from visavis.schemas import SAMPLE_RATE
from visavis.schemas.artifact import dump_rows, load_rows
from visavis.schemas.config import BindConfig, FacesConfig, MotionConfig
from visavis.schemas.dyads import CodecStatistics, Motion
from visavis.schemas.face_rows import FaceTracks, Piece, Track
from visavis.schemas.rows import Binding, Conversation, Diarization, Layout, Media
from visavis.stages.bind import BindInput, BindStage, voice_contrast
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.face.codec import fit_codec
from visavis.stages.faces import FacesStage, pieces_of
from visavis.stages.ingest import outline_of
from visavis.stages.media import video as video_module
from visavis.stages.motion import FitInput, FitStage, MotionInput, MotionStage


def conversation_of(frames: int, *keyframes: tuple[list[int], list[int]]) -> Conversation:
    """One file for each pair of (regular, early) key frames."""
    media = tuple(
        Media(
            uri=f"{i}.mp4", sha256="0" * 64, bytes=0, width=1, height=1, fps=25, video_start=0, video_duration=1,
            audio_start=0, audio_duration=1, audio_rate=1, audio_channels=1, keyframes=tuple(regular),
            early_keyframes=tuple(early),
        )
        for i, (regular, early) in enumerate(keyframes)
    )  # fmt: skip
    layout = Layout.ONE_FRAME if len(media) == 1 else Layout.PER_PARTICIPANT
    return Conversation(id="c" * 16, layout=layout, media=media, participants=("a", "b"), frames=frames)


def all_pieces(conversation: Conversation, **config: float) -> tuple[Piece, ...]:
    return pieces_of(outline_of(conversation), [media.uri for media in conversation.media], FacesConfig(**config))


def edges_of(conversation: Conversation, media: int = 0, **config: float) -> list[int]:
    mine = [p for p in all_pieces(conversation, **config) if p.media == media]
    assert [p.last for p in mine[:-1]] == [p.first for p in mine[1:]]
    return [p.first for p in mine] + [p.last for p in mine[-1:]]


@given(frames=st.integers(0, 100_000), seconds=st.floats(1.5, 600))
def test_without_key_frames_pieces_are_even(frames: int, seconds: float) -> None:
    edges = edges_of(conversation_of(frames, ([], [])), piece_seconds=seconds)
    assert (edges[0], edges[-1]) == (0, frames) if frames else not edges
    lengths = np.diff(edges)
    assert not len(lengths) or lengths.max() - lengths.min() <= 1
    assert len(lengths) == math.ceil(frames / int(seconds * 25))


KEYFRAMES = st.tuples(*[st.lists(st.integers(1, 12_000), max_size=60, unique=True).map(sorted)] * 2)


@pytest.mark.slow
@settings(max_examples=300)
@given(frames=st.integers(1, 10_000), seconds=st.floats(1.5, 60), keyframes=st.tuples(KEYFRAMES, KEYFRAMES))
def test_pieces_cover_each_media_wherever_its_key_frames_are(
    frames: int, seconds: float, keyframes: tuple[tuple[list[int], list[int]], ...]
) -> None:
    conversation, longest = conversation_of(frames, *keyframes), int(seconds * 25)
    for media, (_, early) in enumerate(keyframes):
        edges = edges_of(conversation, media, piece_seconds=seconds)
        assert (edges[0], edges[-1]) == (0, frames)
        lengths = np.diff(edges)
        assert lengths.max() <= longest
        assert lengths.min() >= min(frames, longest // 2)
        if frames > longest:  # an early key frame is only passed over for another one nearby
            passed = [n for n in early if longest <= n <= frames - longest and n not in edges]
            used = np.array(sorted({*edges} & {*early, 0, frames}))
            assert all(np.abs(used - n).min() <= longest for n in passed)
    pieces = all_pieces(conversation, piece_seconds=seconds)
    assert len({(p.conversation, p.media, p.first) for p in pieces}) == len(pieces)


def test_an_edge_falls_on_a_scene_change_if_there_is_one() -> None:
    regular = list(range(250, 5_000, 250))
    assert edges_of(conversation_of(5_000, (regular, []))) == [0, 1500, 3000, 4250, 5000]
    assert edges_of(conversation_of(5_000, (regular, [1201, 1333, 1777]))) == [0, 1333, 2750, 4250, 5000]
    # 2411 is out of reach at first; an early piece is kept short so that an edge can fall there, and evenly.
    assert edges_of(conversation_of(5_000, (regular, [2411]))) == [0, 1500, 2411, 3750, 5000]
    assert edges_of(conversation_of(5_000, ([], [2411]))) == [0, 1206, 2411, 3706, 5000]
    assert edges_of(conversation_of(1_500, (regular, [700]))) == [0, 1500]
    assert edges_of(conversation_of(1_600, ([], [200, 1500]))) == [0, 800, 1600]


def write_shots(path: Path, shots: list[int], frames: int, **options: str) -> Path:
    """A silent film of still pictures; a new one at each of `shots`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt, video.options = 64, 48, "yuv420p", {"preset": "veryfast", **options}
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        edges = [0, *shots, frames]
        for shot, (first, last) in enumerate(itertools.pairwise(edges)):
            noise = np.random.default_rng(shot).integers(0, 255, (48, 64, 3)).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
            for n in range(first, last):
                picture.pts, picture.time_base = n, Fraction(1, 25)
                container.mux(video.encode(picture))
        container.mux(video.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, frames * 640), np.int16), format="s16", layout="mono")
        silence.sample_rate, silence.pts = 16000, 0
        container.mux([*audio.encode(silence), *audio.encode(None)])
    return path


@pytest.mark.slow
def test_a_long_film_is_cut_into_pieces_at_its_scene_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shots = [33, 1137, 2491, 2700]
    film, other = write_shots(tmp_path / "a.mkv", shots, 3750), write_shots(tmp_path / "b.mkv", [1404], 3750)
    conversation = real_conversation(film, other)
    assert conversation.media[0].early_keyframes == tuple(shots)
    assert edges_of(conversation) == [0, 1137, 2491, 3750]
    assert edges_of(conversation, media=1) == [0, 1404, 2654, 3750]  # 250 pictures a group: 1404 + 5 · 250

    decoded, pictures = 0, video_module.decoded

    def counted(*source: Any) -> Iterator[tuple[float, av.VideoFrame]]:
        nonlocal decoded
        for picture in pictures(*source):
            decoded += 1
            yield picture

    monkeypatch.setattr(video_module, "decoded", counted)
    pieces = all_pieces(conversation)[:3]
    rows = [row for piece in pieces for row in FacesStage(FacesConfig(), FakeTracker(lambda n: [])).process(piece)]
    assert [row.cuts for row in rows] == [(33, 1137), (2491,), (2700,)]
    # The picture's size, the stream's first picture, the frame after the piece, and what ends that frame.
    assert decoded <= 3750 + 5 * len(pieces)


class OnDemand(Sequence[FaceTracks]):
    """Pieces that are decoded when they are asked for, and counts how many of them are in memory at most."""

    def __init__(self, rows: Sequence[FaceTracks]) -> None:
        self._data = [dump_rows([row]) for row in rows]
        self._held: list[weakref.ref[np.ndarray]] = []
        self.most = 0

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            assert which == slice(0, len(self), None)
            return self
        [row] = load_rows(self._data[which], FaceTracks)
        self._held = [ref for ref in self._held if ref() is not None] + [weakref.ref(row.tracks[0].landmarks)]
        self.most = max(self.most, len(self._held))
        return row


@functools.cache
def speaker(voice: int) -> Track:
    """500 frames of a face that looks ahead and speaks in the turns of `voice`."""
    faces = np.repeat(face()[None], 500, axis=0)
    faces += np.random.default_rng(voice).normal(0, 0.02, faces.shape)
    speaks = voice_contrast(ALTERNATING, 500) == (1 if voice == 0 else -1)
    faces[:, 14, 1] -= speaks * (1 + np.sin(np.arange(500) * 1.6)) / 2
    landmarks = filmed(faces, np.zeros((500, 3))) + np.array([600 * voice, 0, 0], np.float32)
    return track_of(landmarks, looks=voice)


def cut_at(edges: Sequence[int], *voices: int, media: int = 0) -> list[FaceTracks]:
    """The faces of `voices` in pieces."""
    pieces = []
    for first, last in itertools.pairwise(edges):
        span, whole = slice(first, last), [speaker(voice) for voice in voices]
        tracks = tuple(track_of(t.landmarks[span], first=first, looks=i) for i, t in zip(voices, whole, strict=True))
        piece = Piece(conversation="c" * 16, media=media, uri="x", first=first, last=last)
        pieces.append(FaceTracks(piece=piece, width=1280, height=720, cuts=(), tracks=tracks))
    return pieces


def bound_and_encoded(layout: Layout, faces: Any, sound: Path | None = None) -> tuple[Binding, CodecStatistics, Motion]:
    """What bind, fit and motion (of the second person) make of faces."""
    media = (MEDIA.model_copy(update={"uri": str(sound)}),) if layout is Layout.ONE_FRAME else (MEDIA, MEDIA)
    conversation = Conversation(id="c" * 16, layout=layout, media=media, participants=("a", "b"), frames=500)
    diarization = Diarization(conversation="c" * 16, method="embedded", speakers=2, turns=ALTERNATING)
    [cast] = CastStage().process(CastInput(conversation=conversation, faces=faces))
    given = BindInput(conversation=conversation, diarization=diarization, cast=cast)
    [binding] = BindStage(BindConfig(max_offset=0)).process(given)
    [statistics] = FitStage(MotionConfig()).process(FitInput(bindings=(binding,), faces=faces))
    codec = fit_codec(statistics, MotionConfig(expression_dims=4))
    [motion] = MotionStage().process(MotionInput(codec=codec, binding=binding, faces=faces, participant=1))
    return binding, statistics, motion


@pytest.mark.slow
def test_the_faces_of_a_long_video_are_never_in_memory_all_at_once(tmp_path: Path) -> None:
    sound = tmp_path / "hum.wav"
    soundfile.write(sound, np.random.default_rng(0).normal(0, 0.1, 20 * SAMPLE_RATE), SAMPLE_RATE)
    rows = cut_at(range(0, 501, 50), 0, 1)
    faces = OnDemand(rows)
    made, expected = (bound_and_encoded(Layout.ONE_FRAME, given, sound) for given in (faces, tuple(rows)))
    assert [dump_rows([row]) for row in made] == [dump_rows([row]) for row in expected]
    assert faces.most <= 2  # of ten: the one at work, and the next one


@pytest.mark.slow
def test_where_the_pieces_of_each_file_begin_makes_no_difference() -> None:
    whole = (*cut_at([0, 500], 0), *cut_at([0, 500], 1, media=1))
    parts = (*cut_at([0, 130, 137, 400, 500], 0), *cut_at([0, 210, 500], 1, media=1))
    one, other = (bound_and_encoded(Layout.PER_PARTICIPANT, faces) for faces in (whole, parts))
    assert [p.visible for p in other[0].participants] == [1.0, 1.0]
    assert [len(p.segments) for p in other[0].participants] == [4, 2]
    assert [p.score for p in one[0].participants] == pytest.approx([p.score for p in other[0].participants])
    assert np.array_equal(one[1].outer, other[1].outer)
    np.testing.assert_allclose(one[2].motion, other[2].motion, atol=1e-5)
    assert one[2].valid.all()
    assert other[2].valid.all()

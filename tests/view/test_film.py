"""Films as they are found in the file: in step, whole or not there, of the size and length that was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from visavis.pipeline.view.encoding import LONGEST_ANIMATION
from visavis.pipeline.view.film import Panel, Scene, write_film
from visavis.pipeline.view.reactions import nods, spans, within
from visavis.pipeline.view.timeline import Lane, Span, Timeline, TimelineDrawing, clock, timeline_height, write
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.errors import UsageError
from visavis.stages.media.audio import read_audio
from visavis.stages.media.video import frames_on_grid

DARK, LIGHT = (np.full((64, 64, 3), grey, np.uint8) for grey in (16, 235))
ORANGE, GREEN = (200, 90, 0), (30, 130, 30)


def flashes(frames: int, every: int) -> Iterator[np.ndarray]:
    """Pictures that are light for three frames, again and again, from frame 5 on."""
    for n in range(frames):
        yield LIGHT if (n - 5) % every < 3 and n >= 5 else DARK


def beeps(frames: int, every: int, pieces: int = 12_345) -> Iterator[np.ndarray]:
    """What is heard with them, in pieces that end nowhere in particular."""
    sample = np.arange(frames * SAMPLES_PER_FRAME)
    loud = ((sample // SAMPLES_PER_FRAME - 5) % every < 3) & (sample >= 5 * SAMPLES_PER_FRAME)
    tone = (0.5 * np.sin(2 * np.pi * 1000 * sample / SAMPLE_RATE) * loud).astype(np.float32)
    for begin in range(0, len(tone), pieces):
        yield np.tile(tone[begin : begin + pieces], (2, 1))


def of_flashes(frames: int, every: int = 50) -> Scene:
    return Scene((Panel("", flashes(frames, every)),), frames, beeps(frames, every))


def starts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds at which the middle of the picture gets light, and at which it gets loud, by the file's time stamps."""
    seen: list[float] = []
    heard: list[float] = []
    with av.open(str(path)) as container:
        light = False
        for frame in container.decode(video=0):
            was, light = light, bool(frame.to_ndarray(format="gray")[20:40, 20:40].mean() > 128)
            seen += [float(frame.time)] if light and not was else []
    with av.open(str(path)) as container:
        last = -1.0
        for sound in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(sound.to_ndarray()[0]) > 0.1) / sound.sample_rate + float(sound.time)
            for time in loud.tolist():
                heard += [time] if time - last > 0.5 else []
                last = time
    return np.array(seen), np.array(heard)


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_sound_is_in_step_with_the_pictures(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"film{ending}"
    assert write_film(path, [of_flashes(200)], side=64) == 200
    seen, heard = starts(path)
    assert np.allclose(seen, [0.2, 2.2, 4.2, 6.2], atol=1e-3)
    assert np.abs(heard - seen).max() < 0.01


def test_our_own_reader_finds_sound_and_picture_where_they_were_put(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_film(path, [of_flashes(100)], side=64)
    light = [picture[20:40, 20:40].mean() > 128 for _, picture in frames_on_grid(str(path), 0, 100)]
    loud = np.abs(read_audio(str(path), 100)).reshape(100, -1).max(axis=1) > 0.1
    assert np.flatnonzero(light).tolist() == [5, 6, 7, 55, 56, 57]
    assert set(range(5, 8)) <= set(np.flatnonzero(loud).tolist()) <= {*range(4, 9), *range(54, 59)}


@pytest.mark.slow
def test_a_long_film_does_not_drift(tmp_path: Path) -> None:
    path, frames = tmp_path / "film.mp4", 2 * 60 * FPS
    write_film(path, [of_flashes(frames, every=500)], side=64)
    seen, heard = starts(path)
    assert len(seen) == frames / 500
    assert np.abs(heard - seen).max() < 0.01


def test_pictures_are_asked_for_one_at_a_time(tmp_path: Path) -> None:
    asked, shown, ahead = 0, 0, 0

    def pictures() -> Iterator[np.ndarray]:
        nonlocal asked
        for _ in range(60):
            asked += 1
            yield DARK

    def advance() -> None:
        nonlocal shown, ahead
        shown, ahead = shown + 1, max(ahead, asked - shown)

    write_film(tmp_path / "film.mp4", [Scene((Panel("", pictures()),), 60)], side=64, advance=advance)
    assert (shown, ahead) == (60, 1)


@pytest.mark.parametrize("ending", [".mp4", ".webp", ".gif"])
def test_a_film_that_breaks_off_leaves_what_was_there(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"film{ending}"
    path.write_bytes(b"an older film")

    def pictures() -> Iterator[np.ndarray]:
        yield from [DARK] * 10
        raise OSError(5, "the disk went away")

    with pytest.raises(OSError, match="disk"):
        write_film(path, [Scene((Panel("", pictures()),), 60)], side=64)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"an older film"


def test_too_few_pictures_are_an_error_and_no_shorter_film(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="10 pictures for 11 frames"):
        write_film(tmp_path / "film.mp4", [Scene((Panel("", [DARK] * 10),), 11)], side=64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["film.avi", "film", "film.mp4.txt", "nowhere/film.mp4"])
def test_what_cannot_be_written_is_refused_before_a_picture_is_drawn(tmp_path: Path, name: str) -> None:
    def pictures() -> Iterator[np.ndarray]:
        raise AssertionError("was asked for")
        yield DARK

    with pytest.raises(UsageError) as refused:
        write_film(tmp_path / name, [Scene((Panel("", pictures()),), 10)])
    assert "\n" not in str(refused.value)
    assert str(tmp_path / name) in str(refused.value)


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_film(Path("a:b é.mp4"), [of_flashes(10)], side=64)
    assert [each.name for each in tmp_path.iterdir()] == ["a:b é.mp4"]


@pytest.mark.parametrize("ending", [".webp", ".gif"])
def test_an_animation_has_every_second_picture_and_goes_round(tmp_path: Path, ending: str) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads animations, and is not installed")
    path = tmp_path / f"film{ending}"
    # Far apart: WebP leaves out what is nearly as before.
    shades = [np.full((64, 64, 3), 40 + 40 * (n // 2 % 5), np.uint8) for n in range(50)]
    write_film(path, [Scene((Panel("", shades),), 50)], side=64)
    film = image.open(path)
    assert (film.n_frames, film.info["loop"]) == (25, 0)
    for n in (0, 12, 24):
        film.seek(n)
        film.load()
        assert film.info["duration"] == 80
        assert abs(np.asarray(film.convert("RGB"))[32, 32].mean() - (40 + 40 * (n % 5))) < 6


def test_an_animation_of_minutes_is_refused(tmp_path: Path) -> None:
    frames = LONGEST_ANIMATION + 1
    with pytest.raises(UsageError, match=r"30 s at most: name an \.mp4"):
        write_film(tmp_path / "film.gif", [Scene((Panel("", [DARK[:8, :8]] * frames),), frames)], side=8)
    assert not list(tmp_path.iterdir())


def test_the_same_film_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_film(tmp_path / f"{name}.mp4", [of_flashes(60)], side=64)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_a_film_plays_before_it_is_loaded_whole(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mp4", [of_flashes(60)], side=64)
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_pictures_of_any_size_lie_beside_each_other(tmp_path: Path) -> None:
    shapes = [(31, 77), (480, 101), (2000, 200), (5, 5)]
    panels = tuple(Panel(f"{h} x {w}", [np.full((h, w, 3), 90, np.uint8)] * 5) for h, w in shapes)
    lanes = (Lane("user", ORANGE), Lane("a name that is far too long for its lane 🙂 中文", GREEN))
    write_film(tmp_path / "film.mp4", [Scene(panels, 5, timeline=Timeline(lanes))], side=101)
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == stream.height % 2 == 0
        assert stream.width - 1 <= 202 + 50 + 50 + 101 + 3 * 8 <= stream.width
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    titled = 24
    assert abs(int(picture[titled + 50, 101, 0]) - 90) < 6  # the middle of the first panel
    assert picture[titled + 2, 101, 0] < 8  # above it: the panel is higher than the picture in it


def test_scenes_follow_each_other_with_a_card_each(tmp_path: Path) -> None:
    scenes = [Scene((Panel("", [picture] * 10),), 10, title="window") for picture in (DARK, LIGHT)]
    assert write_film(tmp_path / "film.mp4", scenes, side=64) == 2 * (FPS + 10)
    with av.open(str(tmp_path / "film.mp4")) as container:
        grey = [frame.to_ndarray(format="gray")[40:60, 40:60].mean() for frame in container.decode(video=0)]
    assert max(grey[FPS : FPS + 10]) < 40  # the first scene
    assert min(grey[-10:]) > 200
    assert len(grey) == 70


def at(picture: np.ndarray, x: int, y: int) -> tuple[int, ...]:
    return tuple(picture[y, x].tolist())


def test_turns_are_where_they_are_spoken_and_the_cursor_moves_on() -> None:
    lanes = (Lane("user", ORANGE, (Span("turn", 0, 25), Span("backchannel", 30, 40))), Lane("avatar", GREEN))
    drawing = TimelineDrawing(Timeline(lanes, start=100), 50, 614)  # 500 pixels of room
    picture = drawing.draw(45)
    assert picture.shape == (timeline_height(2), 614, 3)
    x = [104 + 10 * frame for frame in (12, 27, 35)]
    assert [at(picture, each, 18 - 4) == ORANGE for each in x] == [True, False, False]
    assert [at(picture, each, 18) == ORANGE for each in x] == [True, False, True]  # a back-channel is thinner
    dark = [int(np.flatnonzero(drawing.draw(n)[5, 104:].max(axis=1) < 60).mean()) for n in (0, 20, 49)]
    assert dark == sorted(dark)
    assert np.allclose(dark, [5, 205, 495], atol=2)


def test_a_long_timeline_scrolls_past_the_cursor() -> None:
    minutes = TimelineDrawing(Timeline((Lane("user", ORANGE, (Span("turn", 60_000, 60_025),)),)), 180_000, 614)
    seen = {n: bool((minutes.draw(n) == ORANGE).all(axis=2)[:, 104:].any()) for n in (0, 59_000, 60_010, 61_000)}
    assert seen == {0: False, 59_000: False, 60_010: True, 61_000: False}


def test_a_timeline_has_room_for_any_name_and_size() -> None:
    for width in (64, 100, 333):
        lane = Lane("x" * 300 + "\x1b[31m\n", GREEN, (Span("nod", 0, 1), Span("smile", 1, 2), Span("unseen", 0, 3)))
        assert TimelineDrawing(Timeline((lane,), (1, 2)), 3, width).draw(2).shape == (timeline_height(1), width, 3)
    picture = np.full((20, 60, 3), 255, np.uint8)
    write(picture, "a long text that ends early", (0, 15), room=30)
    assert (picture[:, 34:] == 255).all()


def test_the_clock() -> None:
    assert [clock(n) for n in (0, 24, 25, 1500, 90_000 + 61 * 25)] == [
        "0:00.0",
        "0:00.9",
        "0:01.0",
        "1:00.0",
        "1:01:01.0",
    ]


def test_a_nod_is_a_dip_of_a_second_at_most_and_of_some_depth() -> None:
    motion = np.zeros((300, 6), np.float32)
    shape = np.hanning(16)
    for first, depth in ((40, 10.0), (120, 2.0), (200, 6.0)):
        motion[first : first + 16, 0] += np.deg2rad(depth) * shape
    motion[250:, 0] += np.deg2rad(10)  # looks down and stays there
    found = list(nods(motion, np.ones(300, bool)))
    assert [(span.first + span.last) / 2 for span in found] == pytest.approx([47.5, 207.5], abs=2)
    unseen = np.ones(300, bool)
    unseen[40:60] = False
    assert len(list(nods(motion, unseen))) == 1
    assert not list(nods(motion[:2], unseen[:2]))


def test_spans_are_cut_at_the_ends() -> None:
    found = spans("turn", np.array([1, 1, 0, 0, 1, 0, 1, 1], bool))
    assert [(span.first, span.last) for span in found] == [(0, 2), (4, 5), (6, 8)]
    assert within(found, 1, 7) == (Span("turn", 0, 1), Span("turn", 3, 4), Span("turn", 5, 6))

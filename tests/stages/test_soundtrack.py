"""Which of a file's streams are heard, and sound whose form changes half-way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.stages.clapper import ffmpeg
from tests.stages.test_awkward import take_in
from tests.stages.test_clock import EVENTS, PRIMING, assert_one_clock, plain  # noqa: F401  # a fixture
from visavis.schemas import SAMPLE_RATE
from visavis.schemas.rows import Conversation
from visavis.stages.media.audio import read_audio, sound_of
from visavis.stages.media.soundtrack import heard_streams

TONES = (400, 700, 1100, 1600)  # Hz, one for each stream


def write_tracks(
    path: Path,
    tracks: list[str],
    *options: str | Path,
    codec: str = "pcm_s16le",
) -> Path:
    """Four seconds of pictures with some streams of sound: each `silent`, or filters of its own tone after `tone`."""
    inputs: list[str] = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=4"]
    for tone, track in zip(TONES, tracks, strict=False):
        silent = f"anullsrc=r=48000:cl={'stereo' if 'stereo' in track else 'mono'}:d=4"
        source = f"sine=f={tone}:d=4:r=48000,volume=2" + ("," + track.split(",", 1)[1] if "," in track else "")
        inputs += ["-f", "lavfi", "-i", silent if track.startswith("silent") else source]
    maps = [part for i in range(len(tracks) + 1) for part in ("-map", str(i))]
    ffmpeg(*inputs, *maps, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", codec, *options, path)
    return path


STEREO = "tone,aformat=channel_layouts=stereo"


def tones_in(sound: np.ndarray) -> list[int]:
    """Which of the tones are heard."""
    spectrum = np.abs(np.fft.rfft(sound[: 3 * SAMPLE_RATE])) / (1.5 * SAMPLE_RATE)
    return [tone for tone in TONES if spectrum[round(tone * 3)] > 0.02]


def heard(path: Path) -> list[int]:
    """The same to whoever asks: a stage that was told by ingest, or one that reads the file alone."""
    conversation = take_in(path)
    assert isinstance(conversation, Conversation), conversation
    [media] = conversation.media
    told = tones_in(sound_of(media, conversation.frames))
    assert told == tones_in(read_audio(str(path)))
    assert (media.audio_streams, media.audio_left_out) == heard_streams(str(path))
    return told


@pytest.mark.slow
def test_of_several_streams_the_default_one_is_heard(tmp_path: Path) -> None:
    both = [STEREO, STEREO]
    assert heard(write_tracks(tmp_path / "first.mkv", both)) == [400]
    second = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    assert heard(write_tracks(tmp_path / "second.mkv", both, *second)) == [700]


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["comment", "visual_impaired", "hearing_impaired", "dub", "descriptions", "karaoke"])
def test_what_is_made_for_few_is_not_heard_by_all(tmp_path: Path, mark: str) -> None:
    form = "mp4" if mark in ("descriptions", "karaoke") else "mkv"
    marks = ("-disposition:a:0", f"default+{mark}", "-disposition:a:1", "0")
    codec = "aac" if form == "mp4" else "flac"
    clip = write_tracks(tmp_path / f"clip.{form}", [STEREO, STEREO], *marks, codec=codec)
    expected = [400] if mark == "karaoke" else [700]  # mp4 has no such mark
    assert heard(clip) == expected
    alone = write_tracks(tmp_path / f"alone.{form}", [STEREO], "-disposition:a:0", mark, codec=codec)
    assert heard(alone) == [400]


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["pcm_s16le", "aac", "ac3"])
def test_a_silent_stream_is_not_heard_if_another_carries_sound(tmp_path: Path, codec: str) -> None:
    clip = write_tracks(tmp_path / "clip.mkv", ["silent,stereo", "silent,stereo", STEREO], codec=codec)
    assert heard(clip) == [1100]
    nothing = write_tracks(tmp_path / "nothing.mkv", ["silent,stereo", "silent,stereo"], codec=codec)
    assert heard(nothing) == []


def test_a_stream_that_covers_a_part_is_not_heard_if_another_covers_all(tmp_path: Path) -> None:
    assert heard(write_tracks(tmp_path / "clip.mkv", [f"{STEREO},atrim=end=1", STEREO])) == [700]


def test_a_stream_without_packets_is_passed_over(tmp_path: Path) -> None:
    assert heard(write_tracks(tmp_path / "clip.mkv", [f"{STEREO},atrim=end=0", STEREO])) == [700]


@pytest.mark.slow
def test_mono_streams_of_one_recording_are_heard_together(tmp_path: Path) -> None:
    assert heard(write_tracks(tmp_path / "two.mov", ["tone", "tone"])) == [400, 700]
    assert heard(write_tracks(tmp_path / "four.mkv", ["tone", "silent", "tone", "tone"])) == [400, 1100, 1600]
    mxf = ("-c:v", "mpeg2video", "-ar", "48000")
    assert heard(write_tracks(tmp_path / "field.mxf", ["tone", "tone"], *mxf)) == [400, 700]


def test_mono_streams_in_two_languages_are_not_one_recording(tmp_path: Path) -> None:
    languages = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=deu")
    assert heard(write_tracks(tmp_path / "clip.mkv", ["tone", "tone"], *languages)) == [400]
    assert heard(write_tracks(tmp_path / "unlike.mkv", ["tone", STEREO])) == [400]


def test_a_second_microphone_wired_the_other_way_round_does_not_cancel_the_first(tmp_path: Path) -> None:
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=4", "-f", "lavfi", "-i", "sine=f=400:d=4:r=48000"),
        *("-filter_complex", "[1]asplit[a][b];[b]volume=-1[c]", "-map", "0", "-map", "[a]", "-map", "[c]"),
        *("-c:a", "pcm_s16le", tmp_path / "clip.mov"),
    )
    assert heard(tmp_path / "clip.mov") == [400]


def test_a_real_file_with_several_streams(shared_media: Path) -> None:
    clip = str(shared_media / "awkward" / "mediabunny_multiple-aac-tracks.mp4")
    assert len(heard_streams(clip)[0]) == 1
    assert read_audio(clip).any()


def test_one_side_inverted_is_heard(plain: Path, tmp_path: Path) -> None:  # noqa: F811
    pan = "pan=stereo|c0=c0|c1=-1*c0"
    ffmpeg("-i", plain, "-c:v", "copy", "-af", pan, clip := tmp_path / "inverted.mkv")
    assert_one_clock(clip, EVENTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("-ar", "48000"), ("-ar", "44100")),
        (("-ar", "32000"), ("-ar", "48000")),
        (("-ac", "1"), ("-ac", "2")),
        (("-ac", "2"), ("-ac", "1", "-ar", "44100")),
        (("-ac", "2", "-c:a", "ac3"), ("-ac", "6", "-c:a", "ac3", "-af", "volume=2")),
    ],
)
def test_rate_and_layout_may_change_within_a_broadcast(
    plain: Path,  # noqa: F811
    tmp_path: Path,
    one: tuple[str, ...],
    other: tuple[str, ...],
) -> None:
    data = b""
    for i, form in enumerate((one, other)):
        offset = ("-output_ts_offset", f"{1 + 12 * i}")
        ffmpeg("-i", plain, "-c:v", "copy", "-c:a", "mp2", *form, *offset, part := tmp_path / f"{i}.ts")
        data += part.read_bytes()
    (clip := tmp_path / "splice.ts").write_bytes(data)
    assert_one_clock(clip, [at + 12 * i + PRIMING for i in (0, 1) for at in EVENTS], frames=600)


@pytest.mark.parametrize(
    ("codec", "channels"),
    [
        *zip(["pcm_u8", "pcm_s24le", "pcm_s64le", "pcm_f32le", "pcm_f64le", "pcm_mulaw"], [1, 2, 8] * 2, strict=True),
        ("pcm_s24le", 8),
    ],
)
def test_the_same_is_heard_however_samples_are_stored(tmp_path: Path, codec: str, channels: int) -> None:
    same = f"tone,pan={channels}c|" + "|".join(f"c{i}=c0" for i in range(channels))
    clip = write_tracks(tmp_path / "clip.mkv", [same], codec=codec)
    sound = read_audio(str(clip))[SAMPLE_RATE : 3 * SAMPLE_RATE]
    assert sound.std() == pytest.approx(0.25 / 2**0.5, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["aac", "libopus", "wavpack", "libvorbis"])
def test_eight_channels_and_more_in_planes(tmp_path: Path, codec: str) -> None:
    clip = write_tracks(tmp_path / "clip.mkv", ["tone,pan=7.1|FL=c0|FR=c0|FC=c0"], codec=codec)
    assert heard(clip) == [400]


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.002, 0.08])
def test_an_offset_in_the_sound_changes_no_turn(shared_media: Path, tmp_path: Path, offset: float) -> None:
    from visavis.schemas.config import DiarizeConfig
    from visavis.stages.diarize import load_diarizer, tidy
    from visavis.stages.media.audio import speech_state

    diarizer, states = load_diarizer(DiarizeConfig()), []
    for shift in (0.0, offset):
        source = shared_media / "conversation" / "two_in_frame.mp4"
        ffmpeg("-i", source, "-vn", "-af", f"dcshift={shift}", "-c:a", "pcm_s16le", clip := tmp_path / "clip.wav")
        turns = tidy(diarizer(read_audio(str(clip), 213)), 213 / 25, DiarizeConfig())
        states.append(speech_state(turns, 213))
    assert (states[0] != states[1]).sum() <= 1  # of 213; the steps of 16 bits fall elsewhere


def sounds_beside(voice: Path, path: Path, graph: str, outputs: str = "a", *options: str) -> Path:
    """A real voice [v], music-like chords [m] as loud, in streams made by a graph."""
    music = "aevalsrc=exprs='0.3*sin(2*PI*t*(220+110*mod(floor(3*t)\\,5)))*exp(-3*mod(t\\,0.33))':s=16000:d=12[m]"
    maps = [part for name in outputs for part in ("-map", f"[{name}]")]
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=12", "-i", voice),
        *("-filter_complex", f"{music};[1]atrim=end=12,aformat=sample_rates=16000[v];{graph}"),
        *("-map", "0:v", *maps, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "flac", *options, path),
    )
    return path


def like(path: Path, voice: Path) -> float:
    said, sound = (read_audio(str(p))[SAMPLE_RATE : 11 * SAMPLE_RATE] for p in (voice, path))
    return float(np.corrcoef(said, sound)[0, 1])


@pytest.mark.parametrize("graph", ["[v][m]amerge=inputs=2[a]", "[m][v]amerge=inputs=2[a]"])
def test_music_on_one_side_does_not_drown_who_speaks_on_the_other(
    shared_media: Path, tmp_path: Path, graph: str
) -> None:
    voice = shared_media / "diarization" / "dev00.wav"
    clip = sounds_beside(voice, tmp_path / "clip.mkv", graph)
    assert like(clip, voice) > 0.99
    [media] = take_in(clip).media  # type: ignore[union-attr]
    assert media.audio_left_out == (1 if graph.startswith("[v]") else 0,)


def test_of_two_streams_the_one_with_speech_is_heard_even_if_music_is_the_default(
    shared_media: Path, tmp_path: Path
) -> None:
    voice = shared_media / "diarization" / "dev00.wav"
    marks = ("-disposition:a:0", "default", "-disposition:a:1", "0")
    for name, options in (("marked.mkv", marks), ("plain.mkv", ())):
        graph = "[m]aformat=channel_layouts=stereo[a];[v]aformat=channel_layouts=stereo[b]"
        assert like(sounds_beside(voice, tmp_path / name, graph, "ab", *options), voice) > 0.99


def test_a_quiet_listeners_microphone_stays(shared_media: Path, tmp_path: Path) -> None:
    voice = shared_media / "diarization" / "dev00.wav"
    clip = sounds_beside(voice, tmp_path / "clip.mkv", "[m]volume=-50dB[q];[v][q]amerge=inputs=2[a]")
    assert heard_streams(str(clip))[1] == ()

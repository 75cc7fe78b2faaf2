"""What becomes of one conversation under other conditions of its sound: a table of conditions × outcome.

    python -m benchmarks.conditions [--media ../shared/media] [channels] [shifts] [pairs]

channels   the sound of a real clip on several channels and streams, beside music, noise, copies: which streams were
           heard, which channels left out, how like the plain sound it is, and in which share of the frames the same
           people are heard
shifts     the sound of a real clip moved, cut at an end, or with a hole: what `bind` makes of it, and by how much it
           finds the sound late
pairs      voices of two real dialogues with a track each, together and crosswise, and longer ones joined of them
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe  # type: ignore[import-untyped]

from benchmarks.binding import SIBLING, Stages
from visavis.schemas.errors import Rejected
from visavis.schemas.rows import Conversation, Source
from visavis.stages.bind import BindInput
from visavis.stages.cast import CastInput
from visavis.stages.faces import pieces_of
from visavis.stages.ingest import outline_of
from visavis.stages.media.audio import sound_of, speech_state

_MUSIC = "aevalsrc=exprs='0.25*sin(2*PI*t*(220+110*mod(floor(3*t)\\,5)))*exp(-3*mod(t\\,0.33))':s=48000"
_HISS = "anoisesrc=r=48000:a=0.2:c=pink,tremolo=f=0.5:d=0.9"

# [v] is the clip's sound, mono at 48 kHz, twice; [m] music, [n] noise that comes and goes.
CHANNELS: dict[str, str] = {
    "mono": "[v]anull[a]",
    "dual mono": "[v][w]amerge[a]",
    "one side 30 dB fainter": "[w]volume=-30dB[q];[v][q]amerge[a]",
    "one side silent": "[w]volume=0[q];[v][q]amerge[a]",
    "inverted": "[w]volume=-1[q];[v][q]amerge[a]",
    "inverted, 1 ms late": "[w]volume=-1,adelay=1[q];[v][q]amerge[a]",
    "a copy 1 ms late": "[w]adelay=1[q];[v][q]amerge[a]",
    "a copy 7 ms late": "[w]adelay=7[q];[v][q]amerge[a]",
    "a copy 30 ms late": "[w]adelay=30[q];[v][q]amerge[a]",
    "one side clipped": "[w]volume=30dB,asoftclip=hard[q];[v][q]amerge[a]",
    "music on the other side": "[v][m]amerge=inputs=2[a]",
    "noise on the other side": "[v][n]amerge=inputs=2[a]",
    "hum on the other side": "sine=f=50:r=48000,volume=4[q];[v][q]amerge=inputs=2[a]",
    "5.1, speech in the centre": "[v]pan=5.1|FC=c0[a]",
    "5.1, speech behind, music ahead": "[m]asplit[x][y];[v]asplit[p][q];anullsrc=r=48000:cl=mono,asplit[s][l];"
    "[x][y][s][l][p][q]join=inputs=6:channel_layout=5.1[a]",
}
STREAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "first silent": ("[w]volume=0[a];[v]anull[b]", ()),
    "first music": ("[m]anull[a];[v]anull[b]", ()),
    "music is the default": ("[m]anull[a];[v]anull[b]", ("-disposition:a:0", "default", "-disposition:a:1", "0")),
    "second is a commentary": ("[v]anull[a];[n]anull[b]", ("-disposition:a:1", "comment")),
    "second is noise": ("[v]anull[a];[n]anull[b]", ()),
}
SHIFTS = (-1.0, -0.5, -0.2, -0.12, -0.08, 0.0, 0.08, 0.12, 0.2, 0.5, 1.0)


def render(clip: Path, out: Path, graph: str, outputs: str = "a", options: tuple[str, ...] = ()) -> Path:
    """A clip's pictures as they are with sound of a filter graph, as long as they are."""
    parts = [f"[0:a]aformat=channel_layouts=mono:sample_rates=48000{',asplit[v][w]' if '[w]' in graph else '[v]'}"]
    parts += [f"{source}[{name}]" for name, source in (("m", _MUSIC), ("n", _HISS)) if f"[{name}]" in graph]
    maps = [part for name in outputs for part in ("-map", f"[{name}]")]
    command = [get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(clip), "-filter_complex", ";".join([*parts, graph])]
    command += ["-map", "0:v", *maps, "-c:v", "copy", "-c:a", "flac", *options, "-shortest", str(out)]
    subprocess.run(command, check=True, timeout=120)
    return out


class Table:
    """Runs the stages on variants of clips, and prints a row for each."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.stages = scratch, Stages()

    def ingest(self, *files: Path) -> Conversation:
        [conversation] = self.stages.ingest.process(Source(uris=tuple(map(str, files))))
        return conversation

    def heard(self, conversation: Conversation) -> tuple[np.ndarray, np.ndarray]:
        """(sound, who speaks, by the diarizer alone; nobody where the diarizer refuses)."""
        sound_N = sound_of(conversation.media[0], conversation.frames)
        try:
            [heard] = self.stages.diarize.process(conversation)
        except Rejected:
            return sound_N, np.zeros(conversation.frames, np.uint8)
        return sound_N, speech_state(heard.turns, conversation.frames)

    def channels(self, clip: Path) -> None:
        plain_N, plain_T = self.heard(self.ingest(render(clip, self.scratch / "plain.mkv", CHANNELS["mono"])))
        for name, graph in CHANNELS.items():
            self._sound(name, render(clip, self.scratch / "variant.mkv", graph), plain_N, plain_T)
        for name, (graph, options) in STREAMS.items():
            variant = render(clip, self.scratch / "variant.mkv", graph, "ab", options)
            self._sound(f"two streams: {name}", variant, plain_N, plain_T)

    def _sound(self, name: str, variant: Path, plain_N: np.ndarray, plain_T: np.ndarray) -> None:
        conversation = self.ingest(variant)
        sound_N, state_T = self.heard(conversation)
        size, frames = min(len(sound_N), len(plain_N)), min(len(state_T), len(plain_T))
        spectrum = np.fft.rfft(sound_N[:size], 2 * size) * np.conj(np.fft.rfft(plain_N[:size], 2 * size))
        power = float(np.linalg.norm(sound_N[:size]) * np.linalg.norm(plain_N[:size]))
        alike = np.abs(np.fft.irfft(spectrum)).max() / max(power, 1e-9)
        same = max(np.mean(turned[:frames] == plain_T[:frames]) for turned in (state_T, _turned(state_T)))
        media = conversation.media[0]
        heard = f"streams {media.audio_streams}, without channels {media.audio_left_out or '-'}"
        print(f"  {name:40} like the plain {alike:.3f}, same speakers {100 * same:5.1f} %  {heard}", flush=True)

    def shifts(self, clip: Path) -> None:
        plain = self.ingest(clip)
        pieces = pieces_of(outline_of(plain), (str(clip),), self.stages.faces.config)
        faces = tuple(row for piece in pieces for row in self.stages.faces.process(piece))
        [cast] = self.stages.cast.process(CastInput(conversation=plain, faces=faces))
        cases = {
            f"sound {s:+.2f} s": f"[v]{f'adelay={1000 * s:.0f}:all=1' if s > 0 else f'atrim={-s},asetpts=PTS-STARTPTS'}"
            ",apad[a]"
            for s in SHIFTS
        }
        seconds = plain.frames / 25
        cases |= {
            f"sound ends {cut} s early": f"[v]atrim=end={seconds - cut},asetpts=PTS-STARTPTS[a]"
            for cut in (0.5, 0.9, 2.0)
        }
        cases["a hole of 1 s, its time stamps kept"] = "[v]aselect='not(between(t,3,4))'[a]"
        cases["sound 1 % fast"] = "[v]asetrate=48480,aresample=48000[a]"
        for name, graph in cases.items():
            print(f"  {name:40} {self._bound(clip, graph, plain, cast)}", flush=True)

    def _bound(self, clip: Path, graph: str, plain: Conversation, cast: object) -> str:
        ends = () if "end=" not in graph else ("-shortest",)
        try:
            moved = self.ingest(_whole(clip, self.scratch / "moved.mkv", graph, ends))
            [heard] = self.stages.diarize.process(moved)
            moved = moved.model_copy(update={"id": plain.id, "frames": plain.frames})
            heard = heard.model_copy(update={"conversation": plain.id})
            [bound] = self.stages.bind.process(BindInput(conversation=moved, diarization=heard, cast=cast))
        except Rejected as rejected:
            return str(rejected).replace(str(self.scratch), "")[:110]
        late = bound.participants[0].offset_ms
        return f"ok, {'lips do not tell' if late is None else f'{late:+.0f} ms late'}"

    def pairs(self, media: Path) -> None:
        voices = {p.name[:4] + p.stem[-1]: p for p in sorted((media / "flame").glob("*_speaker?.wav"))}
        face = media / "conversation" / "pair_user.mp4"
        joined = {name: self._joined(voices, name) for name in voices}
        for kind, tracks in (("30 s", voices), ("joined", joined)):
            for one, other in combinations(tracks, 2):
                what = "dialogue" if one[:4] == other[:4] else "strangers"
                files = [self._filmed(face, tracks[name], i) for i, name in enumerate((one, other))]
                print(f"  {kind:8} {what:10} {one} {other:8} {self._paired(*files)}", flush=True)

    def _joined(self, voices: dict[str, Path], name: str) -> Path:
        """All that the people of one side say, from this one on: as long as both dialogues, twice."""
        order = sorted(voices, key=lambda other: (other[-1] != name[-1], other[:4] != name[:4]))
        files = [voices[other] for other in order if other[-1] == name[-1]] * 2
        inputs = [part for file in files for part in ("-i", str(file))]
        out = self.scratch / f"joined_{name}.wav"
        graph = "".join(f"[{i}:a]" for i in range(len(files))) + f"concat=n={len(files)}:v=0:a=1[a]"
        command = [get_ffmpeg_exe(), "-v", "error", "-y", *inputs, "-filter_complex", graph, "-map", "[a]", str(out)]
        subprocess.run(command, check=True, timeout=60)
        return out

    def _filmed(self, face: Path, voice: Path, number: int) -> Path:
        out = self.scratch / f"person{number}.mkv"
        command = [get_ffmpeg_exe(), "-v", "error", "-y", "-stream_loop", "-1", "-i", str(face), "-i", str(voice)]
        command += ["-map", "0:v", "-map", "1:a", "-c", "copy", "-shortest", "-metadata", f"title={number}", str(out)]
        subprocess.run(command, check=True, timeout=60)
        return out

    def _paired(self, *files: Path) -> str:
        try:
            conversation = self.ingest(*files)
            [heard] = self.stages.diarize.process(conversation)
        except Rejected as rejected:
            return str(rejected)[:110]
        state_T = speech_state(heard.turns, conversation.frames)
        return f"ok, both speak in {100 * np.mean(state_T == 3):.0f} % of {len(state_T) / 25:.0f} s"


def _turned(state_T: np.ndarray) -> np.ndarray:
    """The two speakers exchanged."""
    turned: np.ndarray = (state_T & 1) << 1 | (state_T >> 1 & 1)
    return turned


def _whole(clip: Path, out: Path, graph: str, ends: tuple[str, ...]) -> Path:
    """All pictures, whatever the length of the sound."""
    command = [get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(clip), "-filter_complex"]
    command += [graph.replace("[v]", "[0:a]"), "-map", "0:v", "-map", "[a]", "-c:v", "copy", "-c:a", "flac"]
    length = () if ends else ("-shortest",) if "apad" in graph else ()
    subprocess.run([*command, *length, str(out)], check=True, timeout=120)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["channels", "shifts", "pairs"])
    parser.add_argument("--media", type=Path, default=SIBLING)
    parser.add_argument("--clips", nargs="+", default=["two_in_frame", "interview"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visavis-conditions-") as scratch:
        table = Table(Path(scratch))
        for part in options.parts:
            for name in options.clips if part != "pairs" else [""]:
                print(f"\n{part} {name}")
                if part == "pairs":
                    table.pairs(options.media)
                else:
                    getattr(table, part)(options.media / "conversation" / f"{name}.mp4")


if __name__ == "__main__":
    main()

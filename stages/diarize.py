"""Who speaks when, overlap kept.

`per_participant`: each track is one person's, so voice activity on each is the answer: the corpus' own where it comes
with one ("vad"), else a network's ("channels"); sound that leaks over from the other's microphone is dropped.
`one_frame`: the turns that are given for the file ("given", `stages.media.given`); else a `Diarizer` hears the mixed
track: the embedded one (`stages.voice.diarizer`, nothing to download), or any pyannote.audio pipeline. It alone decides
nothing there: it gives its best guess and how many voices it believes in, and `stages.glance` and `stages.bind` hold
that against the faces. So two people whose voices are alike are not lost before anybody has looked at their lips.

Both ways the same rules make turns of it (`tidy`).
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.config import DiarizeConfig
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.rows import Conversation, Diarization, DiarizationFacts, Layout, Media, Turn
from visavis.schemas.uris import file_name
from visavis.stages.base import Resources, Stage
from visavis.stages.media.audio import sound_of, speech_state
from visavis.stages.models.devices import pick_device
from visavis.stages.voice.diarized import Diarized, as_given
from visavis.stages.voice.turntaking import check_dialogue

_LEAK_PIECE = 8_000  # samples judged at a time: 0.5 s
_LEAK_LAG = 800  # samples by which leaked sound may be early or late: 50 ms
_LEAK_LOUDER = 4.0  # the other track's energy over this one's: 6 dB
_LEAK_CORRELATION = 0.3


class Diarizer(Protocol):
    """Turns of any number of speakers, sorted by (start, speaker), in float32 [N] mono audio at 16 kHz."""

    def __call__(self, audio_N: np.ndarray, /) -> list[Turn]: ...

    def listen(self, audio_N: np.ndarray, /) -> Diarized: ...


class DiarizeStage(Stage[Conversation, Diarization]):
    """A conversation to its turns: of its two people where each has a file, else of voices, and how sure that is."""

    name: ClassVar[str] = "diarize"
    version: ClassVar[int] = 6
    config: DiarizeConfig

    def __init__(self, config: DiarizeConfig) -> None:
        super().__init__(config)

    @property
    def resources(self) -> Resources:
        return Resources(gpus=1.0 if self.config.device == "cuda" else 0.0)

    def setup(self) -> None:
        """Load the networks.

        Raises:
            UsageError: one of them is not installed or cannot be loaded.
        """
        if self.config.backend == "given":  # nothing is heard
            return
        from visavis.stages.models.networks import load_voice_activity

        self._activity = load_voice_activity()
        self._diarizer = load_diarizer(self.config)

    def process(self, item: Conversation) -> Iterator[Diarization]:
        """One row.

        Raises:
            Rejected: NO_TURNS where they were to be given; NO_SPEECH; ONE_SPEAKER, NOT_A_DIALOGUE where each has a
                file; NO_AUDIO, UNREADABLE.
        """
        one_each = item.layout is Layout.PER_PARTICIPANT
        if self.config.backend == "given":
            for media in item.media:
                _check_given(media, media.vad is not None if one_each else bool(media.turns))
        yield self._by_file(item) if one_each else self._of_voices(item)

    def facts(self, rows: Sequence[Diarization]) -> str:
        """`DiarizationFacts`."""
        return DiarizationFacts(speakers=rows[0].speakers).model_dump_json()

    def _by_file(self, item: Conversation) -> Diarization:
        given = [media.vad for media in item.media]
        activity = None if self.config.backend == "given" else self._activity
        turns = channel_turns([sound_of(media, item.frames) for media in item.media], activity, given)
        turns_of_both = tidy(turns, item.frames / FPS, self.config)
        check_both_speak(turns_of_both)
        check_dialogue(speech_state(turns_of_both, item.frames), self.config.strangers)
        method: Literal["vad", "channels"] = "vad" if all(spans is not None for spans in given) else "channels"
        return Diarization(conversation=item.id, method=method, speakers=2, turns=turns_of_both)

    def _of_voices(self, item: Conversation) -> Diarization:
        (media,) = item.media
        heard = as_given(media.turns) if media.turns else self._diarizer.listen(sound_of(media, item.frames))
        turns = renumbered(tidy(heard.turns, item.frames / FPS, self.config))
        if not turns:
            raise Rejected(Reason.NO_SPEECH)
        counted = sum(share >= self.config.min_share for share in shares(turns).values())
        return Diarization(
            conversation=item.id,
            method="given" if media.turns else self.config.backend,
            speakers=max(1, min(heard.believed, counted)),
            turns=turns,
            voices=heard.voices if heard.voices.size else None,
            odds=heard.odds if counted > 1 else min(heard.odds, 0.0),
        )


def _check_given(media: Media, is_given: bool) -> None:
    if not is_given:
        name = file_name(media.uri)
        stem = name.rpartition(".")[0] or name
        raise Rejected(
            Reason.NO_TURNS,
            f"{name}: diarize.backend is given, and there is no {stem}.rttm or {stem}.turns.json beside it,"
            " nor a list's column `turns`",
        )


def check_models(config: DiarizeConfig) -> None:
    """Tell about a missing model before any work starts.

    Raises:
        UsageError: it is not installed, or the pipeline is neither a folder here nor a hub name.
    """
    from visavis.stages.models.hub import fetched
    from visavis.stages.models.wheels import check_wheels

    if config.backend == "given":
        return
    check_wheels(segmentation=config.backend == "embedded")
    if config.backend == "pyannote":
        looks_local = config.pipeline.startswith((".", "/", "~"))
        if looks_local and not Path(config.pipeline).expanduser().exists():
            raise UsageError(f"diarize.pipeline: {config.pipeline}: no such folder")
        if not looks_local and not Path(config.pipeline).exists() and fetched(config.pipeline) is None:
            raise UsageError(
                f"diarize.pipeline: {config.pipeline} is not on this machine; accept its terms on its hub page, set"
                f" HF_TOKEN, and run `visavis assets fetch {config.pipeline}`, or set diarize.backend=embedded"
            )


def load_diarizer(config: DiarizeConfig) -> Diarizer:
    """The configured backend, its networks loaded.

    Raises:
        UsageError: not installed, no such pipeline, or no permission to fetch it.
    """
    device = pick_device(config.device)
    if config.backend == "pyannote":
        return PyannoteDiarizer(config.pipeline, device)
    from visavis.stages.voice.diarizer import EmbeddedDiarizer

    return EmbeddedDiarizer(config.clustering_threshold, device)


class PyannoteDiarizer:
    """Any pyannote.audio diarization pipeline: a local folder, or a hub name fetched with the token in HF_TOKEN.

    A pipeline is a program: its config.yaml names the classes that are imported. So name only pipelines that you trust.
    pyannote asks torch to unpickle their checkpoints whole; torch is told not to, so what lies in those cannot run.
    """

    def __init__(self, pipeline: str, device: str = "cpu") -> None:
        import torch

        from visavis.stages.models.networks import checkpoint_classes, quiet_pyannote
        from visavis.stages.models.torch_archives import tensors_only

        with quiet_pyannote():
            from pyannote.audio import Pipeline

            safe = torch.serialization.safe_globals(checkpoint_classes())
            try:
                with tensors_only(), safe:
                    loaded = Pipeline.from_pretrained(pipeline, token=os.environ.get("HF_TOKEN"))
            except (OSError, ValueError, ImportError, AttributeError, pickle.UnpicklingError) as error:
                raise UsageError(f"cannot load diarization pipeline {pipeline}: {_first_line(error)}") from error
        if loaded is None:
            raise UsageError(
                f"cannot fetch diarization pipeline {pipeline}: accept its terms on its hub page and set HF_TOKEN,"
                " or set diarize.backend=embedded"
            )
        self._pipeline = loaded.to(torch.device(device))

    def __call__(self, audio_N: np.ndarray) -> list[Turn]:
        import torch

        output = self._pipeline({"waveform": torch.from_numpy(audio_N)[None], "sample_rate": SAMPLE_RATE})
        annotation = getattr(output, "speaker_diarization", output)  # pyannote 4 wraps it, other pipelines do not
        number = {label: i for i, label in enumerate(sorted(annotation.labels(), key=str))}
        turns = [
            Turn(speaker=number[label], start=float(segment.start), end=float(segment.end))
            for segment, _, label in annotation.itertracks(yield_label=True)
        ]
        return sorted(turns, key=_order)

    def listen(self, audio_N: np.ndarray) -> Diarized:
        return as_given(self(audio_N))


def channel_turns(
    tracks: Sequence[np.ndarray],
    activity: Callable[[np.ndarray], np.ndarray] | None,
    given: Sequence[Sequence[tuple[float, float]] | None] | None = None,
) -> list[Turn]:
    """Turns from one track per person, float32 [N] each; speaker i is heard on track i.

    Args:
        activity: not needed where all spans are given.
        given: for each track the spans in which its person speaks, where they are known already.
    """
    from visavis.stages.voice.activity import heard_spans

    def spans_of(own: np.ndarray, spans: Sequence[tuple[float, float]] | None) -> Iterable[tuple[float, float]]:
        if spans is None:
            assert activity is not None, "neither spans nor what finds them"
            return ((float(start), float(end)) for start, end in heard_spans(activity(own), own))
        return spans

    turns = []
    for speaker, (own, spans) in enumerate(zip(tracks, given or [None] * len(tracks), strict=True)):
        for start, end in spans_of(own, spans):
            first, last = max(0, round(start * SAMPLE_RATE)), min(round(end * SAMPLE_RATE), len(own))
            for begin, stop in _pieces(first, last):
                others = [track[begin:stop] for i, track in enumerate(tracks) if i != speaker]
                if not any(is_leak(own[begin:stop], other) for other in others):
                    turns.append(Turn(speaker=speaker, start=begin / SAMPLE_RATE, end=stop / SAMPLE_RATE))
    return sorted(turns, key=_order)


def is_leak(own_N: np.ndarray, other_N: np.ndarray) -> bool:
    """True if what this track holds is the other one's sound, leaked: much fainter here, and correlated."""
    own, other = (x.astype(np.float64) for x in (own_N, other_N))
    energy, louder = float(own @ own), float(other @ other)
    if louder < _LEAK_LOUDER * energy or not energy:
        return False
    size = 2 * len(own)
    cross = np.fft.irfft(np.fft.rfft(own, size) * np.conj(np.fft.rfft(other, size)), size)
    near = np.abs(np.concatenate([cross[: _LEAK_LAG + 1], cross[-_LEAK_LAG:]]))
    return bool(near.max() >= _LEAK_CORRELATION * (energy * louder) ** 0.5)


def tidy(turns: Iterable[Turn], duration: float, config: DiarizeConfig) -> tuple[Turn, ...]:
    """Turns cut to 0 … duration, joined over a speaker's short pauses, without those that are too short."""
    joined: list[Turn] = []
    latest: dict[int, int] = {}  # where in `joined` a speaker's last turn is
    for turn in sorted(turns, key=_order):
        start, end = max(0.0, turn.start), min(duration, turn.end)
        if end <= start:
            continue
        last = latest.get(turn.speaker)
        if last is not None and start - joined[last].end <= config.max_pause + 1e-9:
            joined[last] = joined[last].model_copy(update={"end": max(end, joined[last].end)})
        else:
            latest[turn.speaker] = len(joined)
            joined.append(Turn(speaker=turn.speaker, start=start, end=end))
    return tuple(sorted((turn for turn in joined if turn.end - turn.start >= config.min_turn), key=_order))


def shares(turns: Sequence[Turn]) -> dict[int, float]:
    """Each speaker's share of all that is said, in order of appearance."""
    seconds: dict[int, float] = {}
    for turn in turns:
        seconds[turn.speaker] = seconds.get(turn.speaker, 0.0) + turn.end - turn.start
    total = sum(seconds.values())
    return {speaker: spoken / total for speaker, spoken in seconds.items()}


def renumbered(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Speakers called 0, 1, … in order of appearance."""
    number = {speaker: i for i, speaker in enumerate(shares(turns))}
    return tuple(sorted((t.model_copy(update={"speaker": number[t.speaker]}) for t in turns), key=_order))


def check_both_speak(turns: Sequence[Turn]) -> None:
    """Of two people with a file each; one of them may listen nearly all the time.

    Raises:
        Rejected: NO_SPEECH, ONE_SPEAKER.
    """
    if not turns:
        raise Rejected(Reason.NO_SPEECH)
    if len(shares(turns)) < 2:
        seconds = sum(turn.end - turn.start for turn in turns)
        raise Rejected(Reason.ONE_SPEAKER, f"all {seconds:.1f} s of speech are in one of the two files")


def _pieces(first: int, last: int) -> Iterator[tuple[int, int]]:
    for begin in range(first, last, _LEAK_PIECE):
        yield begin, min(begin + _LEAK_PIECE, last)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _order(turn: Turn) -> tuple[float, int]:
    return turn.start, turn.speaker

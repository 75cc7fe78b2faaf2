"""What a frame of 40 ms sounds like: log-mel by default, or a frozen wav2vec 2.0 encoder, chunk by chunk.

Both kinds compute the same numbers for a stream as for a whole: they are given the sound from frame `start` on, and
say which frames are ready. What they may hear is stated (`audio_spec`), not hoped for.

`LogMel`: frame n is made of four hops of 10 ms. Each hop looks back over 25 ms that *end* with it, so frame n depends
on samples 640·n − 240 … 640·(n + 1) − 1: the look-ahead is 0 ms. Normalisation is by two fixed constants of
`FeatureConfig`, the same for every band, hop and corpus: nothing to fit, nothing to carry in a stream, and digital
silence, which a turn mask leaves where the other person speaks, stays a value of its own well below speech. They were
chosen on twelve recordings of speech, whose ln(energy) spans −11.5 (silence) to about 5 with means of −9.3 to 0.4:
normalised, that is −1.6 to 2.5.

`Wav2Vec2` (arXiv 2006.11477, as the paper's Avatar Forcing uses it) attends to all it is given, so a model trained on
features of whole files hears a future that a stream does not have. Here each chunk is encoded for itself from `history`
frames before it to `look_ahead` frames after it, and every sum over time in the encoder (attention, group norm, the
normalisation of sound) runs over that piece alone. What lies outside the recording is not heard at all rather than
heard as silence. The price: sound is encoded (history + chunk + look_ahead) / chunk times over, and the first chunks of
a training window have less history than those of a long stream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchaudio
from jaxtyping import Float
from torch import Tensor, nn

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.manifest import AudioSpec
from visavis.schemas.train import FeatureConfig, ModelConfig
from visavis.training.encoder import Encoder
from visavis.training.masks import ahead
from visavis.training.shapes import BN, BTF, CN

HOP = 160
SPAN = 400
FFT = 512
BEFORE = SPAN - HOP
"""Samples before a frame that its first hop hears."""

LEAD = 80
"""The encoder's receptive field is 400 samples: so many before a frame let its outputs end with their 20 ms."""
CLIPS = 64
"""Pieces of sound encoded at once, so that a long file needs no more memory than a short one."""

_FRAME_MS = 1000 // FPS


class LogMel(nn.Module):
    """Audio to features; see the module's text for alignment and scale."""

    window: Tensor
    bank: Tensor
    history = 1
    """Frames before the first wanted one that a call needs, where the recording has them."""
    look_ahead = 0
    """Frames after the last wanted one that a call needs, likewise."""

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.size = config.n_mels * (SAMPLES_PER_FRAME // HOP)
        with torch.device("cpu"):  # torchaudio looks at the values, also where the model is built without any
            bank = torchaudio.functional.melscale_fbanks(
                FFT // 2 + 1, 20.0, SAMPLE_RATE / 2, config.n_mels, SAMPLE_RATE, norm=None, mel_scale="htk"
            )
        self.register_buffer("window", torch.hann_window(SPAN), persistent=False)
        self.register_buffer("bank", bank, persistent=False)

    def ready(self, heard: int, *, last: bool = True) -> int:
        """How many frames have features when so many were heard: all."""
        return heard

    def last_heard(self, frame: int) -> int:
        """The last frame of sound that a frame's features hear: itself."""
        return frame

    @torch.no_grad()
    def forward(self, audio_BN: BN, start: int = 0, first: int = 0, *, last: bool = True) -> BTF:
        """Features of frames `first` … ready − 1.

        Args:
            audio_BN: float32 in −1…1 at 16 kHz, whole frames, the first of which is frame `start`.
            first: start + `history` or later, or 0.
            last: no sound follows.

        Returns: float32 [B, T, `size`].

        Raises:
            ValueError: not a whole number of frames, or too little before `first`.
        """
        _check_sound(self, audio_BN, start, first)
        heard_BN = F.pad(audio_BN, (BEFORE, 0))[:, (first - start) * SAMPLES_PER_FRAME :]
        hops_BJS = heard_BN.unfold(1, SPAN, HOP) * self.window
        spectrum_BJW = torch.fft.rfft(hops_BJS, FFT)
        power_BJW = spectrum_BJW.real.square() + spectrum_BJW.imag.square()
        with torch.autocast(audio_BN.device.type, enabled=False):  # energies span more than bfloat16 resolves
            mel_BJM = (power_BJW @ self.bank + self.config.floor).log()
        features_BJM: Float[Tensor, "B J M"] = (mel_BJM - self.config.mean) / self.config.std
        return features_BJM.reshape(len(audio_BN), -1, self.size)


@dataclass(frozen=True)
class _Chunk:
    """Frames [first, end) and the sound [low, high) that is heard for them, all in frames."""

    first: int
    end: int
    low: int
    high: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.first - self.low, self.end - self.first, self.high - self.end


class Wav2Vec2:
    """A frozen encoder, chunk by chunk; called like `LogMel`.

    Chunks end `ahead` frames after each of the model's blocks (the look-ahead of its conditions), so a stream never
    waits for one; the first chunk is as much longer. A frame is the two outputs in it, side by side: a linear layer
    that wants their mean can learn it, and 20 ms are what tells a closed mouth. Each output is brought to mean 0 and
    deviation 1 over its channels, because layers of pre-norm networks differ in scale.

    No module of the model: its weights are neither trained nor saved, one instance serves every model of a run.
    """

    def __init__(self, config: FeatureConfig, model: ModelConfig, encoder: Encoder) -> None:
        self.config, self.encoder = config, encoder
        self.size = 2 * encoder.width * len(config.layers)
        self.history = config.history + 1  # one for the LEAD
        self.look_ahead = config.look_ahead
        self.offset = ahead(model) % config.chunk

    def ready(self, heard: int, *, last: bool = True) -> int:
        """How many frames have features when so many were heard: whole chunks with their look-ahead."""
        if last:
            return heard
        end = self._last_border(heard - self.config.look_ahead)
        return end if end > self.offset else 0

    def last_heard(self, frame: int) -> int:
        """The last frame of sound that a frame's features may hear."""
        return self._end_of_chunk(frame) + self.config.look_ahead - 1

    @torch.no_grad()
    def __call__(self, audio_BN: BN, start: int = 0, first: int = 0, *, last: bool = True) -> BTF:
        """As `LogMel.forward`; `first` is where a chunk begins."""
        _check_sound(self, audio_BN, start, first)
        heard = start + audio_BN.shape[1] // SAMPLES_PER_FRAME
        chunks = list(self._chunks(first, self.ready(heard, last=last), heard))
        if not chunks:
            return audio_BN.new_zeros(len(audio_BN), 0, self.size)
        alike: dict[tuple[int, int, int], list[_Chunk]] = defaultdict(list)
        for chunk in chunks:
            alike[chunk.shape].append(chunk)
        done: dict[_Chunk, Tensor] = {}
        at_once = max(1, CLIPS // len(audio_BN))
        for (before, frames, _), same in alike.items():
            for i in range(0, len(same), at_once):
                some = same[i : i + at_once]
                clips = [_cut(audio_BN, start, chunk) for chunk in some]
                parts = self._encode(torch.cat(clips), before, frames).chunk(len(some))
                done |= dict(zip(some, parts, strict=True))
        return torch.cat([done[chunk] for chunk in chunks], dim=1)

    def _encode(self, clips_CN: CN, before: int, frames: int) -> Tensor:
        """Features of the `frames` frames of each clip that come after `before`, [C, T, F]."""
        middle = slice(2 * before, 2 * (before + frames))
        outputs = self.encoder.layers(clips_CN, self.config.layers)
        scaled = [F.layer_norm(output_CJW[:, middle].float(), output_CJW.shape[2:]) for output_CJW in outputs]
        return torch.cat(scaled, dim=2).reshape(len(clips_CN), frames, self.size)

    def _chunks(self, first: int, end: int, heard: int) -> Iterator[_Chunk]:
        while first < end:
            border = min(end, self._end_of_chunk(first))
            high = min(heard, border + self.config.look_ahead)
            yield _Chunk(first, border, max(0, first - self.config.history), high)
            first = border

    def _last_border(self, frame: int) -> int:
        """The last place up to `frame` where a chunk may end."""
        return frame - (frame - self.offset) % self.config.chunk

    def _end_of_chunk(self, frame: int) -> int:
        return max(self._last_border(frame), self.offset) + self.config.chunk


Features = LogMel | Wav2Vec2


def build_features(config: FeatureConfig, model: ModelConfig, encoder: Encoder | None = None) -> Features:
    """What turns sound into features; `encoder` is for the kinds that have one."""
    if config.kind == "log_mel":
        return LogMel(config)
    if encoder is None:
        raise ValueError(f"features of kind {config.kind} need their encoder")
    return Wav2Vec2(config, model, encoder)


def audio_spec(config: FeatureConfig, model: ModelConfig) -> AudioSpec:
    """How far features of this configuration hear, for records and manifests."""
    chunked = config.kind == "wav2vec2"
    chunk, after = (config.chunk, config.look_ahead) if chunked else (1, 0)
    longest = chunk + ahead(model) % chunk  # the first chunk of a stream
    before = config.history * SAMPLES_PER_FRAME + LEAD if chunked else BEFORE
    return AudioSpec(
        kind=config.kind,
        weights_sha256=config.weights_sha256 if chunked else None,
        layers=config.layers if chunked else (),
        history_ms=1000 * before / SAMPLE_RATE,
        chunk_ms=chunk * _FRAME_MS,
        look_ahead_ms=after * _FRAME_MS,
        horizon_ms=(longest - 1 + after) * _FRAME_MS,
        stream_wait_ms=None if model.mask == "full" else (model.block + ahead(model) + after) * _FRAME_MS,
    )


def _check_sound(features: Features, audio_BN: BN, start: int, first: int) -> None:
    """Whole frames, and enough of them before `first`? Raises ValueError."""
    if audio_BN.shape[1] % SAMPLES_PER_FRAME:
        raise ValueError(f"{audio_BN.shape[1]} samples are not a whole number of frames of {SAMPLES_PER_FRAME}")
    if start > max(0, first - features.history):
        raise ValueError(f"frame {first} needs {features.history} frames before it; the sound begins at {start}")


def _cut(audio_BN: BN, start: int, chunk: _Chunk) -> Tensor:
    """The sound of a chunk and the LEAD before it, which is silence where the recording begins."""
    from_, to = (chunk.low - start) * SAMPLES_PER_FRAME - LEAD, (chunk.high - start) * SAMPLES_PER_FRAME
    return audio_BN[:, from_:to] if from_ >= 0 else F.pad(audio_BN[:, :to], (-from_, 0))

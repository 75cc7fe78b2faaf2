"""Tiny speech models in the formats of the real ones, built so that what they say of a tone is known.

Whisper (CTranslate2's format, vocabulary laid out as OpenAI's): its weights are set by hand. The encoder hands on the
energies around a low and a high tone; the decoder attends to where it is loud, and positions do the rest. It says
"yeah" of a low tone and "garden gate" of a high one, and takes the one for English, the other for German.

The alignment model (wav2vec2 CTC) has random weights and one layer fitted to them by least squares: letters where there
is sound, blanks where there is none.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np

LOW, HIGH = 300.0, 2000.0  # Hz
_MELS, _WIDTH, _TEXT = 80, 16, 50257
_BANDS = {LOW: 8, HIGH: 44}  # of Whisper's 80 mel bands
_PROMPT = 4  # start, language, task, no time stamps: text begins behind them
# Channels of the encoder, and of the decoder's positions, behind the pitch in 0. A row never has weights in two
# neighbours: int8 products of such a pair overflow on processors without AVX-512 VNNI.
_CHANNELS = {LOW: 0, HIGH: 2}
_POSITIONS = range(2, 2 * (_PROMPT + 3), 2)


def tone(seconds: float, pitch: float) -> np.ndarray:
    """Float32 [N] at 16 kHz, with a soft beginning and end."""
    n = np.arange(round(seconds * 16_000))
    fade = np.minimum(1, np.minimum(n, n[::-1]) / 160)
    return (0.3 * fade * np.sin(2 * np.pi * pitch * n / 16_000)).astype(np.float32)


def build_whisper(folder: Path) -> Path:
    """A folder that faster-whisper loads."""
    import torch
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in _languages())]
    special += [f"<|{name}|>" for name in ("translate", "transcribe", "startoflm", "startofprev", "nospeech")]
    special += ["<|notimestamps|>", *(f"<|{i * 0.02:.2f}|>" for i in range(1501))]
    words = ["yeah", "garden", "gate", *(f"w{i}" for i in range(_TEXT - 4)), ""]  # the last tells many languages
    ids = {token: i for i, token in enumerate([*words, *special])}
    config = WhisperConfig(
        vocab_size=len(ids), num_mel_bins=_MELS, d_model=_WIDTH, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
        max_target_positions=448, tie_word_embeddings=False,
        bos_token_id=_TEXT, eos_token_id=_TEXT, pad_token_id=_TEXT, decoder_start_token_id=_TEXT + 1,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if "layer_norm.weight" in name else 0.0)
        encoder, decoder = model.model.encoder, model.model.decoder
        for pitch, band in _BANDS.items():
            channel = _CHANNELS[pitch]
            encoder.conv1.weight[channel, band - 3 : band + 4, 1] = 1.0
            encoder.conv2.weight[channel, channel, 1] = 1.0
        cross = decoder.layers[0].encoder_attn
        cross.q_proj.bias[0] = 8.0  # looks where it is loud, however short that is in 30 s …
        for pitch, sign in ((LOW, 1.0), (HIGH, -1.0)):
            cross.k_proj.weight[0, _CHANNELS[pitch]] = 1.0
            cross.v_proj.weight[0, _CHANNELS[pitch]] = sign  # … and sees low less high, in channel 0
        cross.out_proj.weight[0, 0] = 2.0
        for position in range(448):
            decoder.embed_positions.weight[position, _POSITIONS[min(position, _PROMPT + 1)]] = 8.0

        def say(token: str, position: int, pitch: float | None = None) -> None:
            model.proj_out.weight[ids[token], _POSITIONS[position]] = 10.0
            model.proj_out.weight[ids[token], 0] = {None: 0.0, LOW: 5.0, HIGH: -5.0}[pitch]

        say("<|en|>", 0, LOW)
        say("<|de|>", 0, HIGH)
        say("yeah", _PROMPT - 1, LOW)
        say("garden", _PROMPT - 1, HIGH)
        say("gate", _PROMPT, HIGH)
        say("<|endoftext|>", _PROMPT)  # of a high tone less loudly than "gate"
        say("<|endoftext|>", _PROMPT + 1)
    model.generation_config.suppress_tokens = model.generation_config.begin_suppress_tokens = []
    model.generation_config.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in _languages()}
    source = folder / "source"
    model.save_pretrained(source)
    _save_tokenizer(source, ids, special)
    (source / "preprocessor_config.json").write_text(json.dumps({"feature_size": _MELS}))
    copied = ["tokenizer.json", "preprocessor_config.json"]
    TransformersConverter(str(source), copy_files=copied).convert(str(folder / "whisper"))
    return folder / "whisper"


def _languages() -> tuple[str, ...]:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    return ("en", "zh", "de", *(code for code in _LANGUAGE_CODES if code not in ("en", "zh", "de", "yue")))


def _save_tokenizer(folder: Path, ids: dict[str, int], special: list[str]) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(ids, unk_token="<|endoftext|>"))
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        bos_token=end,
        unk_token=end,
        additional_special_tokens=special[1:108],
    ).save_pretrained(folder)


def build_aligner(folder: Path) -> Path:
    """A folder that whisperx takes for an alignment model."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    folder.mkdir(parents=True)
    vocabulary = {
        token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"])
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(
        Wav2Vec2Config(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
            pad_token_id=0, feat_extract_norm="layer", do_stable_layer_norm=True,
        )
    ).eval()  # fmt: skip
    pieces = [tone(seconds, pitch) for seconds, pitch in itertools.product((0.3, 0.6, 1.0), (LOW, HIGH))]
    audio = np.concatenate([part for piece in pieces for part in (np.zeros(8_000, np.float32), piece)])
    with torch.no_grad():
        hidden_FD = model.wav2vec2(torch.from_numpy(audio)[None]).last_hidden_state[0].double()
        loudness = np.convolve(np.abs(audio), np.ones(100), "same")[200::320][: len(hidden_FD)]
        loud = torch.from_numpy(np.where(loudness > 1, 1.0, -1.0))
        with_one = torch.cat([hidden_FD, torch.ones(len(hidden_FD), 1, dtype=torch.float64)], 1)
        fit = torch.linalg.lstsq(with_one, loud[:, None]).solution[:, 0].float()
        sign = torch.full((len(vocabulary),), 30.0)
        sign[: vocabulary["|"]] = -30.0
        model.lm_head.weight.copy_(sign[:, None] * fit[None, :-1])
        model.lm_head.bias.copy_(sign * fit[-1])
    model.save_pretrained(folder)
    return folder

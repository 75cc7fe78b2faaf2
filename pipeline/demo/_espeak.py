"""Runs espeak-ng in a process of its own: JSON requests on stdin, int16 samples on stdout.

The library is not thread-safe and keeps the phase of its oscillator between calls, even over a restart, so
that a sentence sounds different the second time. A fresh process per batch makes the output a function of the
batch alone. (GPL code also stays out of our process.) Only the standard library is needed here.

Request: {"voices": [{"name", "pitch", "rate"}, ...], "texts": [str, ...]}: every voice says every text, in order.
Answer: for each, a uint32 count and as many int16 samples at 22.05 kHz, little endian.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys

SYNCHRONOUS, CHARS_UTF8, POS_CHARACTER = 2, 1, 1
PARAM_RATE, PARAM_PITCH = 1, 3
RATE = 22_050


def main() -> None:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    chunks: list[bytes] = []

    def collect(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    if library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0) != RATE:
        sys.exit("espeak-ng did not start")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # it seeds itself from the clock, which is heard in breathy voices
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    callback = kind(collect)  # a reference must live as long as the library may call it
    library.espeak_SetSynthCallback(callback)
    request = json.load(sys.stdin)
    for voice in request["voices"]:
        if library.espeak_SetVoiceByName(voice["name"].encode()):
            sys.exit(f"espeak-ng has no voice {voice['name']}")
        library.espeak_SetParameter(PARAM_RATE, voice["rate"], 0)
        library.espeak_SetParameter(PARAM_PITCH, voice["pitch"], 0)
        for text in request["texts"]:
            chunks.clear()
            data = text.encode()
            if library.espeak_Synth(data, len(data) + 1, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None):
                sys.exit(f"espeak-ng could not say {text!r}")
            library.espeak_Synchronize()
            pcm = b"".join(chunks)
            sys.stdout.buffer.write(struct.pack("<I", len(pcm) // 2) + pcm)


if __name__ == "__main__":
    main()

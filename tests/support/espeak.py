"""Says a text with eSpeak NG: `python espeak.py TEXT VOICE` writes its samples a second, a line feed, and the
samples, 16 bits each.

A process says one text: after others, the same text sounds a little different.
"""

import ctypes
import sys
from typing import Any

import espeakng_loader

#: Constants of eSpeak's: give samples to the callback, and wait for the end; text in UTF-8; the speed.
_SYNCHRONOUS, _UTF8, _SPEED = 2, 1, 1
#: At this speed, Whisper's smallest model mistakes few words.
_WORDS_A_MINUTE = 160
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def say(text: str, voice: str) -> tuple[int, bytes]:
    """Samples a second, and the samples."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0 or library.espeak_SetVoiceByName(voice.encode()):
        sys.exit(f"eSpeak NG has no voice {voice}")
    library.espeak_SetParameter(_SPEED, _WORDS_A_MINUTE, 0)
    parts: list[bytes] = []

    def take(samples: Any, count: int, events: Any) -> int:
        if samples and count:
            parts.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _CALLBACK(take)
    library.espeak_SetSynthCallback(callback)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None)
    return rate, b"".join(parts)


if __name__ == "__main__":
    rate, samples = say(*sys.argv[1:])
    sys.stdout.buffer.write(f"{rate}\n".encode() + samples)

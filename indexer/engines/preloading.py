"""Loads what a decoder would load when it needs it: a process that is confined to one file cannot."""

import importlib
import pkgutil
from contextlib import suppress
from typing import Literal

import av
from PIL import Image

from model.runtime.video import DecoderName

#: Parts of PyAV that fetch samples from the network, or are programs.
_NOT_DECODING = ("av.datasets", "av.__main__")
#: What Python loads to show a warning or to decode a text.
_OF_PYTHON = (
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.utf_16",
    "encodings.utf_8_sig",
    "linecache",
    "traceback",
    "tracemalloc",
)


def load_all() -> None:
    """Load all of PyAV, Pillow's common formats, and what Python loads on demand."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in _NOT_DECODING:
            importlib.import_module(module.name)
    Image.preinit()
    for name in _OF_PYTHON:
        importlib.import_module(name)


def load_text_reader(kind: Literal["subtitles", "tracks"]) -> None:
    """Load what reads subtitle files; of a run without any, nothing."""
    if kind == "subtitles":
        importlib.import_module("model.runtime.timed_text.subtitles").load_all()
    else:
        importlib.import_module("model.runtime.video.text_tracks")


def load_decoder(decoder: DecoderName) -> None:
    """Load a decoder that is loaded for those only who ask for it. Where it is missing, its use will tell."""
    if decoder == "decord":
        with suppress(ImportError):
            importlib.import_module("model.runtime.video.decord_decoder")

"""Loads what an indexing run's decoders would load when they need it, beside the decoders themselves."""

import importlib
from contextlib import suppress
from typing import Literal

from PIL import Image

from model.runtime.sandbox.preloading import load_decoders
from model.runtime.video import DecoderName


def load_all() -> None:
    """Load the decoders and Pillow's common formats."""
    load_decoders()
    Image.preinit()


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

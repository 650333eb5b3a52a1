"""Loads what a decoder would load when it needs it: a process that is confined to one file cannot."""

import importlib
import pkgutil

import av

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


def load_decoders() -> None:
    """Load all of PyAV, and what Python loads on demand."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in _NOT_DECODING:
            importlib.import_module(module.name)
    for name in _OF_PYTHON:
        importlib.import_module(name)

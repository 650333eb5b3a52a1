"""Lets a process that this one starts import the same code."""

import os
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])


def import_path() -> str:
    """The PYTHONPATH of a process of this code: first this code, then what this process has there."""
    return os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])

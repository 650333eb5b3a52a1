"""MSVD (Chen and Dolan, 2011): 1,200 / 100 / 670 clips with about 40 captions each.

Files: `train_list.txt`, `val_list.txt`, `test_list.txt` and `raw-captions.pkl`.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from model.data.datasets.records import Annotated, read_text
from model.runtime.errors import InputError

_CAPTIONS = "raw-captions.pkl"


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts and containers only, so that no code of a file can run."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_msvd(folder: Path, split: str) -> list[Annotated]:
    """One split, in the order of its list.

    Raises:
        InputError: a file is missing or malformed, or a clip has no captions.
    """
    captions, path = read_msvd_captions(folder / _CAPTIONS), folder / f"{split}_list.txt"
    clips = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name = line.strip()
        if not name:
            continue
        if name not in captions:
            raise InputError(f"{path}, line {number}: {name} has no captions in {_CAPTIONS}")
        clips.append(Annotated(name, captions[name]))
    return clips


def read_msvd_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of each clip in `raw-captions.pkl`.

    Raises:
        InputError: the file is missing, or does not hold a dict of lists of lists of words.
    """
    try:
        with path.open("rb") as file:
            # Pickles of Python 2 hold bytes.
            values: Any = _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except FileNotFoundError as error:
        raise InputError(f"no {path.name} in {path.parent}: set data.annotations to its folder") from error
    # A damaged pickle raises almost anything.
    except Exception as error:
        raise InputError(
            f"{path} cannot be read: {error}; it must hold a dict of lists of lists of words"
        ) from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a dict, not {type(values).__name__}")
    return {str(name): _joined(path, str(name), group) for name, group in values.items()}


def _joined(path: Path, name: str, group: Any) -> tuple[str, ...]:
    if not isinstance(group, list) or not group:
        raise InputError(f"{path}, clip {name}: must have a list of captions that is not empty")
    out = []
    for number, words in enumerate(group):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InputError(f"{path}, clip {name}, caption {number}: must be a list of words")
        text = " ".join(words).strip()
        if text:
            out.append(text)
    if not out:
        raise InputError(f"{path}, clip {name}: all its captions are blank")
    return tuple(out)

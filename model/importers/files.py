"""Checks that the files of a checkpoint's weights are here, whole, and of a kind that may be read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from model.backbones.huggingface import read_json_object
from model.runtime.errors import InputError

#: Files of weights, as patterns: those that are read, and those that are read with leave.
SAFE, PICKLED = "*.safetensors", "*pytorch_model*.bin"
_PARTIAL = ("*.incomplete", "*.part", "*.crdownload", "*.aria2")
_INDEX = "*.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"
_REMEDY = "download the whole repository again, for example with `hf download NAME --local-dir DIR`"


def check_weights(folder: Path, *, pickled: bool) -> None:
    """Check the files of weights by their names and heads; no tensor is read.

    Args:
        folder: the checkpoint's folder.
        pickled: whether weights may be pickled.

    Raises:
        InputError: a download has not finished, a file is missing or damaged, or all are pickled and may not
            be.
    """
    partial = sorted(path.name for pattern in _PARTIAL for path in folder.glob(pattern))
    if partial:
        raise InputError(f"{folder / partial[0]} is a download that has not finished: {_REMEDY}")
    for index in sorted(folder.glob(_INDEX)):
        _check_index(index)
    safe = sorted(folder.glob(SAFE))
    for path in safe:
        _check_safe(path)
    if safe:
        return
    unsafe = sorted(folder.glob(PICKLED))
    if not unsafe:
        raise InputError(
            f"no weights in {folder} (model.safetensors): the download has not finished, or they are of "
            f"another kind; {_REMEDY}"
        )
    if not pickled:
        raise InputError(
            f"{unsafe[0]} is pickled, which can hold code, and there is no safetensors file: convert it "
            "with transformers (save_pretrained), or read its tensors alone with --allow-pickle"
        )


def weights_path(folder: Path) -> Path:
    """The file that messages about weights name: the only one, the index of several, or the folder."""
    for pattern in (_INDEX, SAFE, PICKLED):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    return folder


def _check_index(index: Path) -> None:
    """Check that the files which an index lists are here.

    Raises:
        InputError: one is not, or the index is damaged.
    """
    parts = read_json_object(index).get("weight_map")
    if not isinstance(parts, dict) or not all(
        isinstance(p, str) and Path(p).name == p for p in parts.values()
    ):
        raise InputError(f"{index}: weight_map must name files of this folder; {_REMEDY}")
    for part in sorted(set(parts.values())):
        if not (index.parent / part).is_file():
            raise InputError(
                f"{index} names {part}, which is not there: the download has not finished; {_REMEDY}"
            )


def _check_safe(path: Path) -> None:
    """Check that a safetensors file is as long as its head says.

    Raises:
        InputError: it is not, or it is something else.
    """
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
        if not pointer:
            with safe_open(path, "numpy"):
                return
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is damaged ({error}): the download has not finished, or it is another file; {_REMEDY}"
        ) from error
    raise InputError(f"{path} is a pointer of Git LFS, not the weights: run `git lfs pull` in {path.parent}")

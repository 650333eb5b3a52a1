"""Weights in Hugging Face's layout: a folder with `config.json` and the weights, safe or pickled."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from model.runtime.errors import InputError
from model.runtime.messages import first_line

_SMALL = (
    "config.json",
    "preprocessor_config.json",
    "README.md",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
)
_SAFE, _PICKLE = "model.safetensors", "pytorch_model.bin"


def find_folder(source: str, setting: str) -> Path:
    """The folder of published weights: as given, or the local copy of a repository.

    Without a local copy, the repository is fetched only where HF_HUB_OFFLINE=0 asks for it.

    Args:
        source: a folder, or a name such as "google/vit-base-patch16-224", perhaps with "@" and a revision.
        setting: the name of the setting, for messages.

    Raises:
        InputError: there is no such folder, or the repository cannot be fetched.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    remedy = f"pass a folder that holds config.json and {_SAFE} as {setting}=DIR"
    if folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise InputError(f"{setting}={source}: no such folder; {remedy}")
    from huggingface_hub import constants, snapshot_download

    name, _, revision = source.partition("@")
    fetch = partial(snapshot_download, name, revision=revision or None)
    try:
        local = Path(fetch(allow_patterns=[*_SMALL, _SAFE, "model*.safetensors*"]))
        if not any(local.glob("model*.safetensors")):
            local = Path(fetch(allow_patterns=[*_SMALL, _PICKLE, "pytorch_model*.bin*"]))
    # It raises errors of its own, of its HTTP library and of the system.
    except Exception as error:
        reason = first_line(error)
        if constants.HF_HUB_OFFLINE:
            reason, remedy = "there is no local copy", f"set HF_HUB_OFFLINE=0 to fetch it, or {remedy}"
        raise InputError(f"{setting}={source}: cannot be fetched ({reason}); {remedy}") from error
    return local


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"no {path.name} in {path.parent}: it must hold a model saved by transformers"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): download it again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold an object, not {type(values).__name__}: download it again")
    return values


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """`config.json`.

    Raises:
        InputError: it describes a network of another kind, or one with another activation than GELU.
    """
    path = folder / "config.json"
    config = read_json_object(path)
    if config.get("model_type") != kind:
        raise InputError(f"{path}: model_type is {config.get('model_type')!r}; this encoder reads {kind}")
    if config.get("hidden_act", "gelu") != "gelu":
        raise InputError(f"{path}: hidden_act is {config['hidden_act']!r}; this encoder computes gelu")
    return config


def size_of(config: Mapping[str, Any], key: str, path: Path) -> int:
    """One size of a configuration.

    Raises:
        InputError: it is missing or not a positive whole number.
    """
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{path}: {key} is {value!r}: it must be a positive whole number")
    return value


def read_weights(source: Path, prefix: str) -> dict[str, Tensor]:
    """All tensors of a folder or of one file, as float32, named without the `prefix` of a wrapping model.

    Raises:
        InputError: there are no weights, or a file is damaged.
    """
    state: dict[str, Tensor] = {}
    for path in _weight_files(source) if source.is_dir() else [source]:
        try:
            if path.suffix == ".safetensors":
                part = load_file(path)
            else:
                part = torch.load(path, weights_only=True, map_location="cpu")
        except (
            OSError,
            RuntimeError,
            ValueError,
            EOFError,
            SafetensorError,
            pickle.UnpicklingError,
        ) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path} cannot be read as weights: {reason}") from error
        if not isinstance(part, dict) or not all(isinstance(t, Tensor) for t in part.values()):
            raise InputError(f"{path} must hold named tensors only: save the model's state_dict()")
        state |= part
    # Early checkpoints still have TensorFlow's names for the scale and shift of a norm.
    renamed = {}
    for key, tensor in state.items():
        name = key.removeprefix(prefix)
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            name = name.removesuffix(old) + new if name.endswith(old) else name
        renamed[name] = tensor.float() if tensor.is_floating_point() else tensor
    return renamed


def read_scalar(folder: Path, name: str) -> float:
    """One number among the weights, without reading all of them where they are in safetensors.

    Raises:
        InputError: there is no such number, or a file is damaged.
    """
    found: Tensor | None = None
    for path in _weight_files(folder):
        if path.suffix != ".safetensors":
            found = read_weights(path, "").get(name, found)
            continue
        try:
            with safe_open(path, framework="pt") as file:
                if name in file.keys():  # noqa: SIM118  it is no mapping
                    found = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} cannot be read as weights: {error}") from error
    if found is None or found.numel() != 1:
        raise InputError(f"the weights in {folder} have no number {name}: it must hold a model saved whole")
    return float(found)


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights. If they are split over several files, an index lists those."""
    for name in (_SAFE, _PICKLE):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = read_json_object(index).get("weight_map")
            if not isinstance(parts, dict) or not all(Path(str(p)).name == p for p in parts.values()):
                raise InputError(f"{index}: weight_map must name files of this folder")
            return [folder / part for part in sorted(set(parts.values()))]
    raise InputError(f"no {_SAFE} and no {_PICKLE} in {folder}: it must hold a model saved by transformers")

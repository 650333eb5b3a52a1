"""Loads a checkpoint's weights into the class of transformers that computes with them, all or none."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from model.importers.base import Checkpoint
from model.importers.files import SAFE, weights_path
from model.runtime.errors import InputError

# The tensors of one layer of many.
_LAYER = re.compile(r"\.(?:layers?|blocks|resblocks)\.\d+\.")
# Named in a message.
_MOST_NAMES = 3


def load_model(checkpoint: Checkpoint, architecture: Any) -> Any:
    """The model with its published weights, in float32, for inference.

    Args:
        checkpoint: the checkpoint.
        architecture: a class of transformers.

    Returns:
        an instance of `architecture`.

    Raises:
        InputError: the configuration is not valid, a file is damaged, or a tensor is missing or has another
            shape.
    """
    _check_config(checkpoint, architecture.__name__)
    _check_names(checkpoint)
    path = weights_path(checkpoint.folder)
    with quiet_transformers():
        try:
            model, loading = architecture.from_pretrained(
                checkpoint.folder,
                dtype=torch.float32,
                attn_implementation="eager",
                use_safetensors=None if checkpoint.pickled else True,
                weights_only=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{path} is damaged, or holds more than tensors, which is not read and was not run: ask its "
                "authors for safetensors"
            ) from error
        except (SafetensorError, EOFError) as error:
            raise InputError(f"{path} is damaged ({reason_of(error)}): download it again") from error
        # A configuration can hold anything, and each class checks it in its own way.
        except Exception as error:
            raise InputError(
                f"{checkpoint.config_path} or {path} cannot be read as {architecture.__name__} "
                f"({reason_of(error)}): one is damaged, or they do not belong together; download the "
                "checkpoint again"
            ) from error
    _check_loaded(checkpoint, architecture.__name__, loading)
    check_finite(checkpoint, model)
    return model.eval()


def _check_config(checkpoint: Checkpoint, architecture: str) -> None:
    """Refuse a configuration that says less or something else than the class needs.

    The library would take its defaults for what is missing.

    Raises:
        InputError: a section is missing, or the weights are those of another class.
    """
    for section in ("text_config", "vision_config"):
        checkpoint.part(section)
    named = checkpoint.config.get("architectures")
    if isinstance(named, list) and named and architecture not in named:
        raise InputError(
            f"{checkpoint.config_path}: {checkpoint.config.get('model_type')!r} is read as {architecture}, "
            f"but architectures is {named}: one of them is wrong, or a part of the model is not there; "
            "download the checkpoint again, or import another one"
        )


def _check_names(checkpoint: Checkpoint) -> None:
    """Check that there are weights with the names that the library reads.

    Raises:
        InputError: there are only others.
    """
    folder = checkpoint.folder
    names = ("model.safetensors", "model.safetensors.index.json")
    if checkpoint.pickled or any((folder / name).is_file() for name in names):
        return
    others = [path.name for path in sorted(folder.glob(SAFE))]
    raise InputError(
        f"{folder} has {_names(others)}, but neither {names[0]} nor {names[1]}: the download has not "
        "finished; download the whole repository again"
    )


def _check_loaded(checkpoint: Checkpoint, architecture: str, loading: dict[str, Any]) -> None:
    """Refuse a model of which a part would have random weights, or would be left out.

    Raises:
        InputError: a tensor is missing or has another shape, or there are layers that are not read.
    """
    path = weights_path(checkpoint.folder)
    missing, unexpected = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    if missing:
        others = f"; it has {_names(unexpected)} instead" if unexpected else ""
        raise InputError(
            f"{path} lacks {_names(missing)}, which {architecture} needs{others}: it is incomplete, or of "
            f"another architecture than {checkpoint.config_path.name} says; download the checkpoint again"
        )
    mismatched = sorted(loading["mismatched_keys"])
    if mismatched:
        name, stored, expected = mismatched[0]
        raise InputError(
            f"{path}: {name} has shape {list(stored)}, but {checkpoint.config_path.name} asks for "
            f"{list(expected)}: they do not belong together; download the checkpoint again"
        )
    layers = [name for name in unexpected if _LAYER.search(name)]
    if layers:
        raise InputError(
            f"{path} has {_names(layers)}, and {checkpoint.config_path.name} asks for fewer layers: they do "
            "not belong together; download the checkpoint again"
        )


def check_finite(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Refuse weights that are no numbers.

    Raises:
        InputError: a tensor holds NaN or infinity.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"{weights_path(checkpoint.folder)}: {name} holds NaN or infinity; download it again"
            )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the library's progress bars and warnings from the terminal: errors say what matters."""
    from transformers.utils import logging

    library: Any = logging
    before, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(library.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(before)
        if bars:
            library.enable_progress_bar()


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _MOST_NAMES
    return ", ".join(listed[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def reason_of(error: Exception) -> str:
    """What an error of a library says, on one line that is not too long."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]

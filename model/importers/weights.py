"""Loads a checkpoint's weights into the class of transformers that computes with them, all or none."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from model.importers.base import Checkpoint
from model.runtime.errors import InputError

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
        except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
            raise InputError(
                f"the weights in {checkpoint.folder} are damaged ({_first_line(error)}): download them again"
            ) from error
        # A configuration can hold anything, and each class checks it in its own way.
        except Exception as error:
            raise InputError(
                f"{checkpoint.folder} cannot be read as {architecture.__name__} ({_first_line(error)}): its "
                "config.json does not fit its weights, or they are damaged; download the checkpoint again"
            ) from error
    _check_loaded(checkpoint, architecture.__name__, loading)
    check_finite(checkpoint, model)
    return model.eval()


def _check_loaded(checkpoint: Checkpoint, architecture: str, loading: dict[str, Any]) -> None:
    """Refuse a model of which a part would have random weights."""
    missing = sorted(loading["missing_keys"])
    if missing:
        unexpected = sorted(loading["unexpected_keys"])
        others = f"; it has {_names(unexpected)} instead" if unexpected else ""
        raise InputError(
            f"the weights in {checkpoint.folder} lack {_names(missing)}, which {architecture} needs{others}: "
            "they are incomplete, or of another architecture than config.json says"
        )
    mismatched = sorted(loading["mismatched_keys"])
    if mismatched:
        name, stored, expected = mismatched[0]
        raise InputError(
            f"the weights in {checkpoint.folder}: {name} has shape {list(stored)}, but config.json asks for "
            f"{list(expected)}: they do not belong together; download the checkpoint again"
        )


def check_finite(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Refuse weights that are no numbers.

    Raises:
        InputError: a tensor holds NaN or infinity.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"the weights in {checkpoint.folder}: {name} holds NaN or infinity; download them again"
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

"""Trained models, read back for measuring and for export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import Config, from_mapping
from model.families.lgdn.network import LGDN


def read_state(path: Path) -> dict[str, Any]:
    """The state of a checkpoint, its weights under `model`; tensors stay in the file until they are used.

    Raises:
        ValueError: the file is missing, or no checkpoint.
    """
    if not path.is_file():
        raise ValueError(
            f"no checkpoint {path}: train first, then pass best.pt or last.pt of the run's folder"
        )
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        if "model" not in state:
            raise KeyError("model")
    # Whatever torch meets in a file that it did not write.
    except Exception as error:
        raise ValueError(
            f"{path} is no checkpoint ({type(error).__name__}): pass best.pt or last.pt of a run's folder"
        ) from error
    return state


def load_checkpoint(path: Path) -> tuple[Config, LGDN]:
    """The settings and the model of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        ValueError: the file is missing, no checkpoint, or of another version.
    """
    state = read_state(path)
    if "config" not in state:
        raise ValueError(f"{path} holds no settings: pass best.pt or last.pt of a run's folder")
    config: Config = from_mapping(Config, state["config"])
    model = LGDN(config.model)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"{path} holds another model than this version builds: train again") from error
    return config, model.eval()


def load_checkpoints(paths: Sequence[Path]) -> tuple[Config, LGDN]:
    """One checkpoint, or the mean of the weights of several that started from the same ones.

    Raises:
        ValueError: no checkpoint, or checkpoints of different models.
    """
    if not paths:
        raise ValueError("no checkpoint: pass best.pt or last.pt of a run's folder")
    loaded = [load_checkpoint(path) for path in paths]
    config, model = loaded[0]
    for path, (other, _) in zip(paths, loaded, strict=True):
        if other.model != config.model:
            raise ValueError(f"{path} holds another model than {paths[0]}: they cannot be averaged")
    states = [found.state_dict() for _, found in loaded]
    model.load_state_dict({key: _mean([state[key] for state in states]) for key in states[0]})
    return config, model


def _mean(values: list[Tensor]) -> Tensor:
    """Whole numbers (the banks' positions and owners) are the first one's: nothing measured reads them."""
    return torch.stack(values).mean(0) if values[0].is_floating_point() else values[0]

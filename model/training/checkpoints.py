"""Checkpoints of training runs: the one place that writes and reads them.

A checkpoint holds the settings, which name the model's family, and the weights. A run's folder has `start.pt`
and `best.pt` (the weights before training, and those best in validation), and `last.pt`, which also holds
what going on needs. Randomness needs no place in it: everything drawn follows from the seed, the step and the
process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import DEFAULT_FAMILY, Config, config_from_mapping, essentials
from model.data.record import DATA_KEY, resumed_data
from model.families import get_family
from model.runtime.errors import InputError
from model.runtime.files import replacing
from model.settings import to_mapping
from model.training.run import Run

_TOKENIZER = "tokenizer.json"


class _UnreadableError(Exception):
    """A file that is no checkpoint, with the reason in one line."""


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint's entries, on the CPU."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    # Whatever torch meets in a file that it did not write.
    except Exception as error:
        raise _UnreadableError(type(error).__name__) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise _UnreadableError("it holds no weights of a model")
    return state


def _reason(error: Exception) -> str:
    """The last line of an error of PyTorch's, which says what differs."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _family_of(state: Mapping[str, Any]) -> str:
    config = state.get("config")
    return str(config.get("family", DEFAULT_FAMILY)) if isinstance(config, dict) else DEFAULT_FAMILY


def read_state(path: Path) -> dict[str, Any]:
    """The entries of a checkpoint with settings (`config`) and weights (`model`), on the CPU.

    Raises:
        InputError: the file is missing, or no checkpoint.
    """
    if not path.is_file():
        raise InputError(
            f"no checkpoint {path}: train first, then pass best.pt or last.pt of the run's folder"
        )
    try:
        state = _read(path)
        if not isinstance(state.get("config"), dict):
            raise _UnreadableError("it holds no settings")
    except _UnreadableError as error:
        raise InputError(
            f"{path} is no checkpoint ({error}): pass best.pt or last.pt of a run's folder"
        ) from error
    return state


def load_checkpoint(path: Path) -> tuple[Config, nn.Module]:
    """The settings and the model of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        InputError: the file is missing, no checkpoint, or of another version.
    """
    state = read_state(path)
    config = config_from_mapping(state["config"])
    model: nn.Module = get_family(config.family).build(config.model)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise InputError(f"{path} holds another model than this version builds: train again") from error
    return config, model.eval()


def load_checkpoints(paths: Sequence[Path]) -> tuple[Config, nn.Module]:
    """One checkpoint, or the mean of the weights of several that started from the same ones.

    Raises:
        InputError: no checkpoint, or checkpoints of different models.
    """
    if not paths:
        raise InputError("no checkpoint: pass best.pt or last.pt of a run's folder")
    loaded = [load_checkpoint(path) for path in paths]
    config, model = loaded[0]
    for path, (other, _) in zip(paths, loaded, strict=True):
        if (other.family, other.model) != (config.family, config.model):
            raise InputError(f"{path} holds another model than {paths[0]}: they cannot be averaged")
    states = [each.state_dict() for _, each in loaded]
    model.load_state_dict({key: _mean([state[key] for state in states]) for key in states[0]})
    return config, model


def _mean(values: list[Tensor]) -> Tensor:
    """Whole numbers (the banks' positions and owners) are the first one's: nothing measured reads them."""
    return torch.stack(values).mean(0) if values[0].is_floating_point() else values[0]


def load_start(model: nn.Module, family: str, path: Path) -> None:
    """Load the weights of the checkpoint that `train.start_from` names.

    Raises:
        InputError: no checkpoint, or one of another model.
    """
    if not path.is_file():
        raise InputError(
            f"train.start_from={path}: no such checkpoint; pass best.pt or last.pt of a run's folder"
        )
    try:
        state = _read(path)
        if _family_of(state) != family:
            raise InputError(f"its family is {_family_of(state)}")
        get_family(family).load_start(model, state["model"])
    except (_UnreadableError, ValueError, RuntimeError) as error:
        raise InputError(
            f"train.start_from={path} holds another model than the settings name: {_reason(error)}"
        ) from error


def save_checkpoint(run: Run, name: str = "last.pt") -> None:
    """Write a checkpoint whole, in the first process alone."""
    if run.rank:
        return
    state: dict[str, Any] = {
        "config": to_mapping(run.config),
        "model": run.model.state_dict(),
        "step": run.step,
        "best": run.best,
        DATA_KEY: run.data,
    }
    if name == "last.pt":
        state |= {"optimizer": run.optimizer.state_dict(), "scaler": run.scaler.state_dict()}
    with replacing(run.folder / name) as temporary:
        torch.save(state, temporary)


def resume(run: Run, path: Path) -> None:
    """Restore weights, optimiser, scaler and step.

    Raises:
        InputError: when the checkpoint was written with other settings, with their names, or is damaged.
    """
    try:
        state = _read(path)
        differing = sorted(_differences(state["config"], to_mapping(run.config)))
        if not differing:
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
            run.scaler.load_state_dict(state["scaler"])
            run.step, run.best = state["step"], state["best"]
            run.data = resumed_data(state, run.data)
    except (_UnreadableError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be resumed ({_reason(error)}): delete it to start again") from error
    if differing:
        raise InputError(
            f"{path} belongs to other settings ({', '.join(differing)}): "
            "choose another output=DIR, or delete it"
        )
    run.report(f"resumed {path} at step {run.step}")


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[str]:
    """Names of settings that differ and decide a result, as `group.name`."""
    if saved.get("family", DEFAULT_FAMILY) != current["family"]:
        yield "family"
        return
    a, b = essentials(saved), essentials(current)
    for group in a:
        for name in {*a[group], *b[group]}:
            if name not in a[group] or name not in b[group] or a[group][name] != b[group][name]:
                yield f"{group}.{name}"


def tokenizer_path(config: Config, run: Path) -> Path:
    """A run's own copy of its `tokenizer.json`, else that of the published weights.

    Raises:
        InputError: from the family's `tokenizer_path`.
    """
    own = run / _TOKENIZER
    return own if own.is_file() else get_family(config.family).tokenizer_path(config.model)


def keep_tokenizer(path: Path, run: Path) -> None:
    """Copy the tokenizer to a training run, which can then be measured and exported on any machine."""
    if path.parent.resolve() != run.resolve():
        with replacing(run / _TOKENIZER) as temporary:
            temporary.write_bytes(path.read_bytes())

"""Checkpoints of training runs: the one place that writes and reads them.

A checkpoint holds the settings, which name the model's family, and the weights. A run's folder has `start.pt`
(before training), `best.pt` (the best in validation) and `last.pt`, which also holds what resuming needs. No
state of random generators is kept: every draw follows from the seed, the step and the process.
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
    """A file is not a checkpoint; gives the reason in one line."""


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint's entries, on the CPU."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    # PyTorch raises almost anything for a file that it did not write.
    except Exception as error:
        raise _UnreadableError(type(error).__name__) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise _UnreadableError("it holds no weights of a model")
    if isinstance(state.get("config"), dict):
        state["config"] = _completed(state["config"])
    return state


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's settings; those that are newer than it get the values that held for it."""
    train = {"beta2": 0.98, **config.get("train", {})}
    model = dict(config.get("model", {}))
    if config.get("family", DEFAULT_FAMILY) == "lgdn":
        former = {"inference_weights": "momentum", "projection_dropout": model.get("dropout", 0.1)}
        model = {**former, **model}
    return {**config, "train": train, "model": model}


def _reason(error: Exception) -> str:
    """The last line of an error; in PyTorch's it tells what differs."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _family_of(state: Mapping[str, Any]) -> str:
    config = state.get("config")
    return str(config.get("family", DEFAULT_FAMILY)) if isinstance(config, dict) else DEFAULT_FAMILY


def read_state(path: Path) -> dict[str, Any]:
    """The entries of a checkpoint with settings (`config`) and weights (`model`), on the CPU.

    Raises:
        InputError: the file is missing or is not a checkpoint.
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
            f"{path} is not a checkpoint ({error}): pass best.pt or last.pt of a run's folder"
        ) from error
    return state


def load_checkpoint(path: Path) -> tuple[Config, nn.Module]:
    """The settings and the model of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        InputError: the file is missing, is not a checkpoint, or is of another version.
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
        InputError: a file is not a checkpoint, or the checkpoints hold different models.
    """
    if not paths:
        raise InputError("no checkpoint: pass best.pt or last.pt of a run's folder")
    loaded = [load_checkpoint(path) for path in paths]
    config, model = loaded[0]
    for path, (other, _) in zip(paths, loaded, strict=True):
        if _network(other) != _network(config):
            raise InputError(f"{path} holds another model than {paths[0]}: they cannot be averaged")
    states = [each.state_dict() for _, each in loaded]
    kept = get_family(config.family).training_parts
    mean = {
        key: value if key.startswith(kept) else _mean([state[key] for state in states])
        for key, value in states[0].items()
    }
    model.load_state_dict(mean)
    return config, model


def _network(config: Config) -> tuple[str, dict[str, Any]]:
    """The settings that decide what a network computes."""
    training = get_family(config.family).training_settings
    model = to_mapping(config)["model"]
    return config.family, {name: value for name, value in model.items() if name not in training}


def _mean(values: list[Tensor]) -> Tensor:
    """The mean. Of whole numbers (the banks' positions and owners), which measure nothing, the first."""
    return torch.stack(values).mean(0) if values[0].is_floating_point() else values[0]


def load_start(model: nn.Module, family: str, path: Path) -> None:
    """Load the weights of the checkpoint that `train.start_from` names.

    Raises:
        InputError: the file is not a checkpoint, or holds another model.
    """
    if not path.is_file():
        raise InputError(
            f"train.start_from={path}: no such checkpoint; pass best.pt or last.pt of a run's folder"
        )
    try:
        state = _read(path)
        own = get_family(family)
        if _family_of(state) not in {own.name, *own.starts_from}:
            raise InputError(f"its family is {_family_of(state)}")
        own.load_start(model, state["model"])
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
    """Restore weights, optimiser, scaler and step from `last.pt`.

    Raises:
        InputError: the checkpoint is damaged, or its settings differ; the message names them.
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
    """The settings that decide a result and differ, as `group.name`."""
    if saved.get("family", DEFAULT_FAMILY) != current["family"]:
        yield "family"
        return
    # Settings that are newer than a checkpoint have the values that held for it, or their defaults.
    before, now = essentials(to_mapping(config_from_mapping(saved))), essentials(current)
    for group in before:
        old, new = before[group], now[group]
        for name in {*old, *new}:
            if name not in old or name not in new or old[name] != new[name]:
                yield f"{group}.{name}"


def tokenizer_path(config: Config, run: Path) -> Path:
    """The copy of `tokenizer.json` in a run's folder, or else that of the published weights.

    Raises:
        InputError: as the family's `tokenizer_path`.
    """
    copied = run / _TOKENIZER
    return copied if copied.is_file() else get_family(config.family).tokenizer_path(config.model)


def keep_tokenizer(path: Path, run: Path) -> None:
    """Copy the tokenizer to a run's folder, so that the run can be measured and exported on any machine."""
    if path.parent.resolve() != run.resolve():
        with replacing(run / _TOKENIZER) as temporary:
            temporary.write_bytes(path.read_bytes())

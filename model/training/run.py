"""A training run in memory, its optimiser, and its checkpoints.

A run's folder holds `config.yaml`, `log.jsonl` (a line every few steps and one an epoch), `tensorboard/`,
`last.pt` (all that going on needs), `start.pt` and `best.pt` (the weights before training, and those best in
validation).
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.config import Config, essentials, to_mapping
from model.data.loaders import CaptionedPhotos, Loader, VideoSource
from model.data.record import DATA_KEY, resumed_data
from model.families.lgdn.network import LGDN
from model.runtime.preprocessing import TextTokenizer

#: what follows from the precision's name; float32 needs no casting
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Run:
    """What a training run holds; `step` counts optimiser steps over all epochs."""

    config: Config
    model: LGDN
    #: the losses, wrapped for several processes where there are several
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    tokenizer: TextTokenizer
    loader: Loader
    validation: CaptionedPhotos | VideoSource | None
    device: torch.device
    folder: Path
    report: Callable[[str], None]
    #: what is trained on, by `describe_data`
    data: dict[str, Any]
    rank: int = 0
    world: int = 1
    step: int = 0
    best: float = -1.0
    #: optimiser steps in a row that the scaler left out
    skipped: int = field(default=0, repr=False)

    @property
    def steps(self) -> int:
        """Optimiser steps an epoch."""
        return self.loader.steps // self.config.train.accumulate

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.train.epochs * self.steps

    def autocast(self) -> torch.autocast:
        """The context that losses are computed in."""
        dtype = DTYPES[self.config.train.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)


def choose_device(name: str, rank: int = 0) -> torch.device:
    """`auto` is a GPU where there is one; each process has its own.

    Raises:
        ValueError: a GPU is asked for, and there is none for this process.
    """
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not found):
        return torch.device("cpu")
    if rank >= found:
        raise ValueError(
            f"process {rank + 1} finds no GPU of its own, there are {found}: lower train.processes, or set "
            "train.device=cpu"
        )
    return torch.device("cuda", rank)


def make_optimizer(model: LGDN, config: Config) -> torch.optim.AdamW:
    """AdamW with a learning rate for each part, 0 freezes it; biases and norms do not decay."""
    rates = config.train
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith(("online.image.", "online.classifier.")):
            lr = rates.lr_image
        elif name.startswith("online.text.") or (
            name.startswith("fusion.") and config.model.fusion_from_text
        ):
            lr = rates.lr_text
        else:
            lr = rates.lr_head
        if not lr:
            parameter.requires_grad_(False)
            continue
        groups.setdefault((lr, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": chosen, "lr": lr, "peak": lr, "weight_decay": rates.weight_decay if decays else 0.0}
            for (lr, decays), chosen in groups.items()
        ],
        betas=(0.9, 0.98),
    )


def learning_rate_share(step: int, total: int, warmup: float, final: float) -> float:
    """Linear warm-up, then a cosine from 1 to `final`."""
    ramp = max(1, round(total * warmup))
    if step < ramp:
        return (step + 1) / ramp
    progress = (step - ramp) / max(1, total - ramp)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def save(run: Run, name: str = "last.pt") -> None:
    """Write a checkpoint beside its final name, then rename it; only the first process does.

    Randomness needs no place in it: everything drawn follows from the seed, the step and the process.
    """
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
    partial = run.folder / f"{name}.partial"
    torch.save(state, partial)
    partial.replace(run.folder / name)


def resume(run: Run, path: Path) -> None:
    """Restore weights, banks, optimiser, scaler and step.

    Raises:
        ValueError: when the checkpoint was written with other settings, with their names, or is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        differing = sorted(_differences(essentials(state["config"]), essentials(to_mapping(run.config))))
        if not differing:
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
            run.scaler.load_state_dict(state["scaler"])
            run.step, run.best = state["step"], state["best"]
            run.data = resumed_data(state, run.data)
    except (RuntimeError, KeyError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be resumed ({reason}): delete it to start again") from error
    if differing:
        raise ValueError(
            f"{path} belongs to other settings ({', '.join(differing)}): "
            "choose another output=DIR, or delete it"
        )
    run.report(f"resumed {path} at step {run.step}")


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """Names of settings that differ, as `group.name`."""
    for group in a:
        for name in {*a[group], *b[group]}:
            if name not in a[group] or name not in b[group] or a[group][name] != b[group][name]:
                yield f"{group}.{name}"

"""A training run in memory, its optimiser and its learning rates.

A run's folder holds `config.yaml`, `tokenizer.json`, `log.jsonl` (a line every few steps and one an epoch),
`tensorboard/`, and checkpoints: see `model.training.checkpoints`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from model.config import Config
from model.data.loaders import Loader
from model.data.view_cache import FrozenStages
from model.families import get_family
from model.families.base import Batch, Family
from model.progress import Report
from model.runtime.errors import InputError
from model.runtime.preprocessing import TextTokenizer

#: the dtype of each precision; float32 needs no autocast
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


#: groups of texts of each item
Texts = Sequence[Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Validation:
    """What a validation measured: figures by name in groups; `score` decides which epoch is the best."""

    metrics: Mapping[str, Mapping[str, float]]
    score: float


class Study(Protocol):
    """What a run learns from, and how it is validated; see `model.training.study`."""

    @property
    def texts(self) -> Texts:
        """All that is read as text, the same in all processes of a run."""

    def network(self, config: Config) -> Any:
        """The network's settings, completed from the data.

        Raises:
            InputError: as `complete` of the family.
        """

    def loader(
        self,
        config: Config,
        tokenizer: TextTokenizer,
        stages: FrozenStages | None,
        cache: Path,
        report: Report,
    ) -> Loader[Batch]:
        """The batches to train on; `stages` never train, and their outputs are cached in the folder `cache`.

        Raises:
            InputError: as `make_loader`, or `make_feature_loader`.
        """

    def record(self, config: Config, start: Mapping[str, Any] | None) -> dict[str, Any]:
        """The record of the training data, see `describe_data`; `start` is the checkpoint to start from."""

    def validate(self, run: Run) -> Validation | None:
        """Validate the weights as they are. Called in all processes; the figures are the first's.

        Returns:
            None: nothing to validate on, or this is not the first process.
        """


@dataclass
class Run:
    """The state of a training run; `step` counts optimiser steps over all epochs."""

    config: Config
    model: nn.Module
    #: the losses, in DistributedDataParallel if several processes train
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    tokenizer: TextTokenizer
    loader: Loader[Batch]
    study: Study
    device: torch.device
    folder: Path
    report: Report
    #: the record of the training data, see `describe_data`
    data: dict[str, Any]
    rank: int = 0
    world: int = 1
    step: int = 0
    best: float = -1.0
    #: optimiser steps in a row that the scaler left out
    skipped: int = field(default=0, repr=False)

    @property
    def family(self) -> Family:
        """The family of the model."""
        return get_family(self.config.family)

    @property
    def steps(self) -> int:
        """Optimiser steps in an epoch."""
        return self.loader.steps // self.config.train.accumulate

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.train.epochs * self.steps

    def autocast(self) -> torch.autocast:
        """The context to compute losses in."""
        dtype = DTYPES[self.config.train.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """This process's device; `auto` is a GPU if there is one. Each process of a host has its own GPU.

    Args:
        name: `auto`, `cpu` or `cuda`.
        local_rank: the number of the process among those of its host, from 0.

    Raises:
        InputError: there is no GPU for this process.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    if local_rank >= gpus:
        raise InputError(
            f"process {local_rank + 1} of this host finds no GPU of its own, there are {gpus}: lower "
            "train.processes, or --nproc-per-node of torchrun, or set train.device=cpu"
        )
    return torch.device("cuda", local_rank)


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW with the family's learning rates; 0 freezes a parameter. Biases and norms do not decay.

    The rate of a parameter is that of its family times `train.layer_decay` for each layer above it.

    Raises:
        InputError: there is a decay, but no layer stands above another.
    """
    family, train = get_family(config.family), config.train
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    most_above = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = family.learning_rate(name, config.model, train)
        if not rate:
            parameter.requires_grad_(False)
            continue
        above = family.layers_above(name, model)
        most_above = max(most_above, above)
        rate *= train.layer_decay**above
        groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    if train.layer_decay < 1 and not most_above:
        raise InputError(
            f"train.layer_decay={train.layer_decay} lowers the rate of lower layers, and "
            f"family={config.family} tells none apart: set it to 1"
        )
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": rate,
                "peak": rate,
                "weight_decay": train.weight_decay if decays else 0.0,
            }
            for (rate, decays), parameters in groups.items()
        ],
        betas=(0.9, train.beta2),
    )


def learning_rate_share(step: int, total: int, warmup: float, final: float) -> float:
    """Share of the peak learning rate at a step: a linear warm-up, then a cosine from 1 to `final`."""
    ramp = max(1, round(total * warmup))
    if step < ramp:
        return (step + 1) / ramp
    progress = (step - ramp) / max(1, total - ramp)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

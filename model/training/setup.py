"""Sets a training run up from its settings, ready for its next step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model import distributed, processes
from model.config import Config
from model.data.view_cache import FrozenStages
from model.families import get_family
from model.progress import Report
from model.runtime.errors import InputError
from model.runtime.files import replace_text
from model.runtime.preprocessing import TextTokenizer
from model.settings import to_mapping
from model.training.alike import check_alike
from model.training.checkpoints import (
    keep_tokenizer,
    load_start,
    read_state,
    resume,
    save_checkpoint,
    tokenizer_path,
)
from model.training.run import Run, choose_device, make_optimizer
from model.training.study import open_study


def start(config: Config, report: Report, tokenizer_file: Path | None = None) -> Run:
    """Build everything, and resume from `last.pt` if there is one.

    Args:
        config: the settings.
        report: told about progress.
        tokenizer_file: a `tokenizer.json` instead of the run's own or the published one.

    Raises:
        InputError: data or packages are missing, or the checkpoint belongs to other settings.
    """
    rank, world = distributed.rank(), distributed.world()
    group = processes.current()
    device = _device(config, group.place.local_rank if group else 0)
    study = open_study(config, report)
    torch.set_num_threads(max(1, config.train.threads // (group.place.local_world if group else 1)))
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    family = get_family(config.family)
    config = replace(config, model=study.network(config))
    tokenizer_file = tokenizer_file or tokenizer_path(config, folder)
    tokenizer = TextTokenizer.from_file(tokenizer_file, config.model.context_length)
    model, stages = _build_model(config)
    start_state = read_state(Path(config.train.start_from)) if config.train.start_from else None
    loader = study.loader(config, tokenizer, stages, folder / "cache", report)
    last = folder / "last.pt"
    if not last.exists() and not rank:
        family.prepare_start(model, loader, tokenizer, config.train, report)
    processes.wait_for_all()  # the first works alone until here, and that may take long
    model.to(device)
    run = Run(
        config=config,
        model=model,
        objective=_parallel(family.objective(model, config.loss, config.train.seed), device, world),
        optimizer=make_optimizer(model, config),
        scaler=torch.amp.GradScaler(device.type, enabled=config.train.precision == "float16"),
        tokenizer=tokenizer,
        loader=loader,
        study=study,
        device=device,
        folder=folder,
        report=report,
        data=study.record(config, start_state),
        rank=rank,
        world=world,
    )
    if last.exists():
        resume(run, last)
    check_alike(run)
    if not rank and not run.step:
        _begin(run, tokenizer_file)
    return run


def _device(config: Config, local_rank: int) -> torch.device:
    """This process's device.

    Raises:
        InputError: there is none, or it cannot compute in the precision.
    """
    device = choose_device(config.train.device, local_rank)
    if config.train.precision == "float16" and device.type == "cpu":
        raise InputError("train.precision=float16 needs a GPU: use bfloat16 or float32 on a CPU")
    return device


def _build_model(config: Config) -> tuple[nn.Module, FrozenStages | None]:
    """The model with the weights that it starts from, and its stages that never train."""
    family = get_family(config.family)
    torch.manual_seed(config.train.seed)
    model: nn.Module = family.build(config.model)
    stages = family.load_published(model, config.loss)
    if config.train.start_from:
        load_start(model, config.family, Path(config.train.start_from))
    return model, stages


def _parallel(objective: nn.Module, device: torch.device, world: int) -> nn.Module:
    """The losses, in DistributedDataParallel if several processes train together."""
    if world == 1:
        return objective
    # Gradients have a process group of their own, since they are exchanged while the losses still exchange
    # tensors. Buffers, such as banks, stay equal by themselves. A loss that is off, or the warm-up, leaves
    # weights unused.
    return DistributedDataParallel(
        objective,
        device_ids=[device] if device.type == "cuda" else None,
        process_group=dist.new_group(),
        forward_sync_buffers=False,
        find_unused_parameters=True,
    )


def _begin(run: Run, tokenizer_file: Path) -> None:
    """Write the files of a new run before its first step."""
    keep_tokenizer(tokenizer_file, run.folder)
    replace_text(run.folder / "config.yaml", yaml.safe_dump(to_mapping(run.config)))
    save_checkpoint(run, "start.pt")

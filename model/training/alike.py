"""Checks that all processes of a run train the same: hosts may have other files, or other settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from model import distributed
from model.config import Config, essentials
from model.runtime.errors import InputError
from model.settings import to_mapping
from model.training.run import Run, Texts

_REMEDIES = (
    "has other settings than the first: pass the same recipe and settings on every host",
    "reads other data than the first: give every host the same files",
    "starts at another step than the first: share output={output} between the hosts, or copy last.pt to all",
)


def check_alike(run: Run) -> None:
    """Compare the settings, the training data and the step of all processes with those of the first.

    Raises:
        InputError: a process differs; without this check it would train something else, or wait for ever.
    """
    if run.world == 1:
        return
    own = torch.tensor([facts(run.config, run.study.texts, run.step)], device=run.device)
    message = difference(distributed.gather(own).tolist(), run.folder)
    if message:
        raise InputError(message)


def facts(config: Config, texts: Texts, step: int) -> list[int]:
    """What must be the same for all processes: digests of settings and texts, and the step."""
    read = [list(map(list, group)) for group in texts]
    return [_digest(essentials(to_mapping(config))), _digest(read), step]


def difference(rows: Sequence[Sequence[int]], output: Path) -> str | None:
    """How the facts of some process differ from those of the first; None: they do not."""
    for rank, row in enumerate(rows):
        for value, expected, remedy in zip(row, rows[0], _REMEDIES, strict=True):
            if value != expected:
                return f"process {rank + 1} of {len(rows)} {remedy.format(output=output)}"
    return None


def _digest(value: Any) -> int:
    """63 bits that differ where values differ."""
    content = json.dumps(value, sort_keys=True, default=str).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1

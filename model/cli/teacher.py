"""`reelfind-model teacher`: embeds training images with a larger encoder, for a smaller one to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.backbones.packaged_clip import CLIP_PACKAGE
from model.cli.terminal import report
from model.data.stills import read_images, read_stills
from model.data.teacher import write_teacher


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
            f"ViT-B/16 of the package {CLIP_PACKAGE}."
        ),
    ] = None,
    uncaptioned: Annotated[
        Path | None,
        typer.Option(help="Folder of images without captions, for data.uncaptioned."),
    ] = None,
    views: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Embed so many views of each captioned image, cropped and coloured as training shows them. "
            "The embedding of the image itself stands for its other views.",
        ),
    ] = 1,
) -> None:
    """Embed the training images of some folders with another image encoder.

    Train with data.teacher=OUTPUT, loss.teacher_mfcl and loss.distillation.
    """
    sets = [read_stills(folder, "train") for folder in data]
    if uncaptioned is not None:
        sets.append(read_images(uncaptioned, "train"))
    write_teacher(output, sets, graph, report, views=views)
    report(f"embeddings written to {output}")

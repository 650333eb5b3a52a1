"""`reelfind-model moment-head`: adds a moment head to a bundle, trained on films spliced from stills."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from model.cli.terminal import report
from model.data.stills import CaptionedStills, read_stills
from model.evaluation.moments.films import films_table, measure_films
from model.evaluation.moments.spliced import films_of_stills
from model.export.moment_head import add_moment_head
from model.families.moment_head.encodings import EncodedStills, encode_stills
from model.families.moment_head.films import SpliceConfig, Splicer
from model.families.moment_head.network import MomentHeadConfig
from model.families.moment_head.training import HeadTraining, train_head
from model.runtime.bundle import Bundle

_ITEMS_A_FILM = 5
# So many items of each folder are enough for the films that measure a head.
_MOST_MEASURED = 600


def moment_head_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle whose frame and text embeddings the head reads.")],
    data: Annotated[
        list[Path],
        typer.Option(help="Folder with captions.csv and images/, and frames.csv for frames of videos."),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the embeddings for next time.")
    ] = None,
    items: Annotated[
        int, typer.Option(min=0, help="Photos or videos of each folder that are used, at most; 0: all.")
    ] = 1200,
    every: Annotated[float, typer.Option(help="Seconds from one frame to the next.")] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Batches of training.")] = HeadTraining.steps,
    channels: Annotated[int, typer.Option(min=1, help="Channels of the head.")] = MomentHeadConfig.channels,
    layers: Annotated[int, typer.Option(min=1, help="Blocks of the head.")] = MomentHeadConfig.layers,
    films: Annotated[
        int, typer.Option(min=0, help="Films of the split val to measure the head on; 0: do not measure.")
    ] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Add a moment head to a bundle: it finds where in a film an answer starts and ends.

    Encodes the training images of the folders once, in two views, and trains on films spliced from their
    embeddings. The head is then measured on films spliced from the split val.
    """
    torch.set_num_threads(threads)
    opened = Bundle.open(bundle, threads=threads)

    def encoded(split: str) -> tuple[EncodedStills, list[CaptionedStills]]:
        most = items if split == "train" else min(items or _MOST_MEASURED, _MOST_MEASURED)
        stills = [read_stills(folder, split).first(most) for folder in data]
        parts = [encode_stills(opened, part, 2, 2, cache, seed, report) for part in stills]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.join(part)
        return joined, stills

    training, stills = encoded("train")
    splice = SpliceConfig(every_seconds=every)
    config = MomentHeadConfig(opened.manifest.embedding_dim, channels, layers)
    how = HeadTraining(steps=steps, seed=seed)
    model = train_head(Splicer(training, splice), config, how, report)
    add_moment_head(
        opened,
        model,
        output,
        every,
        {"model": asdict(config), "films": asdict(splice), "train": asdict(how), "items": items},
        [part.use(folder.resolve().name, "moment head") for folder, part in zip(data, stills, strict=True)],
        report,
    )
    report(f"bundle with a moment head written to {output}")
    if films:
        written = Bundle.open(output, threads=threads)
        validation = Splicer(encoded("val")[0], replace(splice, text_noise=0.0))
        measured = films_of_stills(validation, films, _ITEMS_A_FILM, seed)
        typer.echo(films_table(measure_films(measured, written.moments, written.encode_segments)))

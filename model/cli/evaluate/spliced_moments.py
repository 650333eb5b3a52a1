"""`reelfind-model evaluate spliced-moments`: moments in films spliced from a folder of videos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from model.cli.arguments import whole_numbers
from model.cli.evaluate import options
from model.cli.evaluate.measuring import show_result
from model.cli.terminal import report
from model.evaluation.moments.films import HeadOptions, films_table, measure_films
from model.evaluation.moments.spliced import films_of_videos
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError


def spliced_moments_command(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle with a moment head.")],
    clips: options.Clips,
    queries: options.Queries,
    seed: Annotated[str, typer.Option(help="Seeds, such as 0,1,2: each joins the videos anew.")] = "0",
    clips_per_film: Annotated[int, typer.Option(min=2, help="Videos of a film.")] = 5,
    every: Annotated[
        float | None, typer.Option(help="Seconds from one frame to the next. Default: as the bundle says.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps the films for next time. Default: they are removed."),
    ] = None,
    threads: options.Threads = 2,
    output: options.Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Find the part of a spliced film that a query describes, in the right film and among all films.

    Films of some videos each are written as H.264, and read through the bundle's graphs. Beside the moment
    head stand a fixed window around the most similar frame, fixed segments, and a threshold on similarity.
    """
    opened = Bundle.open(bundle, threads=threads)
    moments = opened.manifest.moments
    if moments is None:
        raise InputError(f"{bundle} has no moment head: `reelfind-model moment-head` adds one")
    interval = every or moments.every_seconds
    ranking = HeadOptions()
    result, tables = {}, []
    with TemporaryDirectory() as temporary:
        for number in whole_numbers("seed", seed):
            films = films_of_videos(
                opened, clips, queries, folder or Path(temporary), number, clips_per_film, interval, report
            )
            figures = measure_films(films, opened.moments, opened.encode_segments, ranking)
            result[f"seed {number}"] = asdict(figures)
            tables.append(f"Seed {number}: {films_table(figures)}")
    show_result(
        {"every_seconds": interval, "ranking": asdict(ranking), **result},
        "\n\n".join(tables),
        output,
        as_json,
    )

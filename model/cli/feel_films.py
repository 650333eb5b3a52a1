"""`reelfind-model feel-films`: films with subtitles, to repeat FEEL's ablation on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.cli.terminal import report
from model.experiments.feel_film_sets import make_film_set
from model.experiments.feel_films import FilmOptions
from model.runtime.bundle import Bundle


def feel_films_command(
    photos: Annotated[Path, typer.Argument(help="Folder with captions.csv and images/.")],
    bundle: Annotated[Path, typer.Option(help="Bundle whose frame encoder makes the features.")],
    output: Annotated[Path, typer.Option(help="Folder to write the films to.")],
    frames: Annotated[
        Path | None, typer.Argument(help="Another one, such as frames of videos with frames.csv.")
    ] = None,
    untold: Annotated[float, typer.Option(help="Share of the shots without a subtitle.")] = 0.3,
    unshown: Annotated[
        float, typer.Option(help="Share of the subtitles that speak of what the film does not show.")
    ] = 0.3,
    finetuning: Annotated[
        float, typer.Option(help="Share of the training items that fine-tuning gets.")
    ] = 0.25,
    views: Annotated[int, typer.Option(help="Views of a photo.")] = 2,
    seed: Annotated[int, typer.Option(help="Decides what the films show.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the encoder.")] = 2,
) -> None:
    """Splice films from captioned photos, with captions as timed subtitles that tell only a part.

    Writes features and annotations as HowTo100M (pre-training) and TVR (fine-tuning) have them, from
    different photos; the splits val and test become the films to validate and to test. A folder that is
    whole already stays as it is.
    """
    options = FilmOptions(seed=seed, untold=untold, unshown=unshown, finetuning=finetuning, views=views)
    opened = Bundle.open(bundle, threads=threads)
    counts = make_film_set(photos, frames, opened, output, options, report)
    report(f"{output}: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))

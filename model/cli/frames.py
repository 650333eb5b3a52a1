"""`reelfind-model frames`: decode a data set's videos once, before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from model.cli.terminal import report
from model.config import Config, load_config
from model.data.datasets import SplitName, VideoFrames, open_dataset
from model.data.datasets.frame_cache import fill_cache
from model.runtime.errors import InputError


def frames_command(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as model/recipes/msvd.yaml.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="key=value words: data.annotations=DIR data.videos=DIR data.frame_cache=DIR."),
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(help="train, val or test, again and again; by default what trains.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode.")] = 2,
) -> None:
    """Fill the frame cache of a data set; training fills it too, at the pace of its first epoch.

    An interrupted call goes on where it stopped.
    """
    config = load_config(recipe, settings or ())
    failed = fill(config, split or ["train", *(["val"] if config.train.evaluate else [])], workers)
    if failed:
        for line in failed:
            report(line)
        raise InputError(
            f"{len(failed)} videos cannot be read, all others are in the cache: see the lines above"
        )


def fill(config: Config, splits: list[str], workers: int) -> tuple[str, ...]:
    """Fill the cache that the settings name. → an error for each video that could not be read.

    Raises:
        InputError: no cache is named, or from `open_dataset`.
    """
    if not config.data.frame_cache:
        raise InputError("no data.frame_cache: set it to the folder that is to hold the frames")
    sources: list[VideoFrames] = [open_dataset(config, cast(SplitName, name), report) for name in splits]
    failed: list[str] = []
    for source in sources:
        if source.cache is not None:
            failed += fill_cache(source.cache, source.split.items, workers, report).failed
    return tuple(failed)

"""`reelfind-model frames`: decodes the videos of a data set once, before training."""

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
    recipe: Annotated[Path, typer.Argument(help="YAML recipe, such as model/recipes/msvd.yaml.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings, as key=value: data.annotations=DIR data.videos=DIR data.frame_cache=DIR."
        ),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="train, val or test; repeatable. Default: the splits that training reads."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of processes that decode.")] = 2,
) -> None:
    """Decode the videos of a data set into its frame cache.

    Without this command, the first epoch of training fills the cache. Resumes after an interruption.
    """
    config = load_config(recipe, settings or ())
    failed = fill(config, split or ["train", *(["val"] if config.validates else [])], workers)
    if failed:
        for line in failed:
            report(line)
        raise InputError(
            f"{len(failed)} videos cannot be read, see the lines above; all others are in the cache"
        )


def fill(config: Config, splits: list[str], workers: int) -> tuple[str, ...]:
    """Fill the cache that the settings name. → the error of each video that cannot be read.

    Raises:
        InputError: no cache is named, or as `open_dataset`.
    """
    if not config.data.frame_cache:
        raise InputError("no data.frame_cache: set it to the folder that shall hold the frames")
    sources: list[VideoFrames] = [open_dataset(config, cast(SplitName, name), report) for name in splits]
    failed: list[str] = []
    for source in sources:
        if source.cache is not None:
            failed += fill_cache(source.cache, source.split.items, workers, report).failed
    return tuple(failed)

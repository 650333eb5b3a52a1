"""`reelfind-model features`: makes features of videos with the frame encoder of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from model.cli.terminal import report
from model.data.features.making import find_videos, make_features
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError


def features_command(
    videos: Annotated[Path, typer.Argument(help="Folder of videos, also in folders below, or one video.")],
    bundle: Annotated[Path, typer.Option(help="Bundle whose frame encoder makes the features.")],
    output: Annotated[
        Path, typer.Option(help="Folder to write NAME.npz of each video and features.json to.")
    ],
    every: Annotated[float, typer.Option(help="Seconds that one vector stands for.")] = 1.5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the encoder and of the decoder.")] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Make features of videos, one vector for the middle of every so many seconds.

    Train on them with data.features=OUTPUT and data.every_seconds=EVERY. Resumes after an interruption; a
    video that cannot be read is reported and left out.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}: choose cpu or cuda", "device")
    if not 0 < every < float("inf"):
        raise InputError(f"every is {every}: it must be a number of seconds above 0", "every")
    found = find_videos(videos)
    opened = Bundle.open(bundle, threads=threads, provider=cast(Literal["cpu", "cuda"], device))
    made = make_features(found, opened, output, every, report, threads)
    if len(made.failed) == len(found):
        raise InputError(f"none of {len(found)} videos can be read, see the lines above")
    report(
        f"features of {made.written} videos written to {output}, {made.kept} were there"
        + (f", {len(made.failed)} cannot be read, see the lines above" if made.failed else "")
    )

"""`reelfind-model evaluate figure`: draws salient frames, as Figure 4 of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from model.cli.arguments import whole_numbers
from model.cli.evaluate import options
from model.cli.evaluate.measuring import open_model
from model.cli.terminal import report
from model.evaluation.figure import choose_segment, save_figure
from model.runtime.errors import InputError
from model.runtime.names import find_as_seen
from model.runtime.queries import read_queries

# Queries that are drawn where none are named.
_DEFAULT_ROWS = 3


def figure_command(
    models: options.Models,
    clips: options.Clips,
    queries: options.Queries,
    output: Annotated[Path, typer.Option(help="Image file to write, such as salient.png.")],
    lines: Annotated[
        str,
        typer.Option(help="Queries to draw, by number, such as 3,17. Default: three, spread over the file."),
    ] = "",
    frames: Annotated[int, typer.Option(help="Number of frames to draw of each video.")] = 5,
    weights: options.Weights = None,
    salience: options.Salience = None,
    threads: options.Threads = 2,
    device: options.Device = "cpu",
) -> None:
    """Draw frames of videos with their relevance for a query, the salient ones in red (Figure 4)."""
    rows = read_queries(queries)
    indices = _rows("--lines", lines, len(rows))
    encoder = open_model(models, weights, salience, threads, device)
    drawn = [
        choose_segment(encoder, row.text, find_as_seen(clips / row.video), frames=frames, caption=row.video)
        for row in (rows[index] for index in indices)
    ]
    count = max(int(row.salient.sum()) for row in drawn)
    note = f"Under each frame its relevance for the text; red: the {count} most relevant, which are matched."
    save_figure(drawn, output, note)
    report(f"figure written to {output}")


def _rows(option: str, lines: str, count: int) -> list[int]:
    """The distinct queries to draw, counted from 0: those named, or some spread over the file.

    Raises:
        InputError: there is no such query.
    """
    if not lines:
        spread = np.linspace(0, count - 1, min(_DEFAULT_ROWS, count) + 2).astype(int)[1:-1]
        return list(dict.fromkeys(int(index) for index in spread))
    indices = [number - 1 for number in whole_numbers(option, lines)]
    if not all(0 <= index < count for index in indices):
        raise InputError(f"{option} {lines}: there are {count} queries, counted from 1")
    return list(dict.fromkeys(indices))

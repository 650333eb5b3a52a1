"""The options that the subcommands of `reelfind-model evaluate` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from model.evaluation.corpus import TokenOptions
from model.evaluation.measure import Options
from model.runtime.errors import InputError

Models = Annotated[list[Path], typer.Argument(help="A bundle's folder, or checkpoints, which are averaged.")]
Photos = Annotated[Path, typer.Option("--data", help="Folder with captions.csv and images/.")]
Split = Annotated[str, typer.Option(help="The split to measure.")]
Clips = Annotated[Path, typer.Option(help="Folder of videos.")]
Queries = Annotated[Path, typer.Option(help="A file with a JSON object (video, query, set) a line.")]

Rerank = Annotated[bool, typer.Option(help="Also rank by the match of salient frames.")]
Mode = Annotated[str, typer.Option(help="Pairs to match: top-k or all-pairs.")]
NumCandidates = Annotated[
    int | None, typer.Option(help="Nearest candidates that are matched; by default as the model says.")
]
NumSalientFrames = Annotated[
    int | None, typer.Option(help="Frames of a segment that are matched; by default as the model says.")
]
SalientFrames = Annotated[
    str, typer.Option(help="Further numbers of salient frames, measured in the same pass: 1,2,3,4,8,16.")
]
TunedLambda = Annotated[
    str,
    typer.Option(
        help="λ, the weight of the similarity: a number, or a split such as val to choose it on; "
        "by default as the model says."
    ),
]
Lambda = Annotated[
    float | None, typer.Option(help="λ, the weight of the similarity; by default as the model says.")
]
Tokens = Annotated[str, typer.Option(help="How frame tokens are kept: int8 or float32.")]
TokensPerFrame = Annotated[
    int | None, typer.Option(help="Merge a frame's tokens to this number; by default as the model says.")
]

Weights = Annotated[
    str | None, typer.Option(help="Weights of a checkpoint: momentum or online; by default as its family.")
]
Salience = Annotated[
    str | None,
    typer.Option(help="Strategy of a checkpoint: simdot, momentum, crossmom or collaborative."),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads that compute.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Output = Annotated[Path | None, typer.Option(help="Write the result to this JSON file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def make_options(
    rerank: bool,
    mode: str,
    num_candidates: int | None,
    num_salient_frames: int | None,
    salient_frames: str,
    ensemble_lambda: float | None,
    tokens: str,
    tokens_per_frame: int | None,
) -> Options:
    """What is measured.

    Raises:
        InputError: an option value is invalid.
    """
    return Options(
        rerank=rerank,
        mode=cast(Literal["top-k", "all-pairs"], mode),
        num_candidates=num_candidates,
        num_salient_frames=num_salient_frames,
        salient_frames=numbers("--salient-frames", salient_frames),
        ensemble_lambda=ensemble_lambda,
        tokens=TokenOptions(cast(Literal["int8", "float32"], tokens), tokens_per_frame),
    )


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas; an empty text gives none.

    Raises:
        InputError: names the option.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"{option} {text!r}: write numbers with commas, such as 1,2,4") from None


def number_or_split(text: str) -> tuple[float | None, str]:
    """λ, or the split that it is chosen on: one of the two, or neither."""
    if not text:
        return None, ""
    try:
        return float(text), ""
    except ValueError:
        return None, text

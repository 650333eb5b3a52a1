"""Options that the subcommands of `reelfind-model evaluate` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from model.cli.arguments import whole_numbers
from model.evaluation.corpus import TokenOptions
from model.evaluation.measure import Options
from model.runtime.bundle.manifest import MatchKind

Models = Annotated[
    list[Path], typer.Argument(help="Folder of a bundle, or checkpoints, whose weights are averaged.")
]
Photos = Annotated[Path, typer.Option("--data", help="Folder with captions.csv and images/.")]
SplitOption = Annotated[str, typer.Option("--split", help="Split to evaluate on, such as val or test.")]
FilmNoise = Annotated[
    int, typer.Option(min=2, help="Number of further items, which serve only as unrelated frames.")
]
FilmSeed = Annotated[int, typer.Option(help="Random seed: decides what the films show.")]
Clips = Annotated[Path, typer.Option(help="Folder of videos.")]
Queries = Annotated[
    Path, typer.Option(help="File with a JSON object on each line: query, video, and optionally set.")
]

Rerank = Annotated[bool, typer.Option(help="Re-rank by the match of salient frames too.")]
Match = Annotated[
    str | None,
    typer.Option(
        help="What re-ranks: matcher, the matching head, or salience, the mean relevance of the salient "
        "frames. Default: as the model says."
    ),
]
Mode = Annotated[str, typer.Option(help="Pairs to re-rank: top-k (the nearest candidates) or all-pairs.")]
NumCandidates = Annotated[
    int | None, typer.Option(help="Number of nearest candidates to re-rank. Default: as the model says.")
]
NumSalientFrames = Annotated[
    int | None, typer.Option(help="Number of frames of a segment to match. Default: as the model says.")
]
SalientFrames = Annotated[
    str,
    typer.Option(help="Further numbers of salient frames to evaluate in the same pass, such as 1,2,4,16."),
]
TunedLambda = Annotated[
    str,
    typer.Option(
        help="λ, the weight of the similarity: a number, or the split to choose it on, such as val. "
        "Default: as the model says."
    ),
]
Lambda = Annotated[
    float | None, typer.Option(help="λ, the weight of the similarity. Default: as the model says.")
]
HubnessWeight = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Weight of the hubness correction; 0: none. A checkpoint's training data must still be there. "
        "Default: as a bundle says; none for a checkpoint.",
    ),
]
Tokens = Annotated[str, typer.Option(help="Storage of frame tokens: int8, as in an index, or float32.")]
TokensPerFrame = Annotated[
    int | None, typer.Option(help="Merge the tokens of a frame to this number. Default: as the model says.")
]

Weights = Annotated[
    str | None,
    typer.Option(
        help="Weights of a checkpoint to use: online or momentum for LGDN. Default: as its settings say."
    ),
]
Salience = Annotated[
    str | None,
    typer.Option(
        help="Strategy of SFP, for checkpoints: simdot, momentum, crossmom or collaborative. "
        "Default: as trained."
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Device = Annotated[str, typer.Option(help="Device to compute on: cpu or cuda.")]
Output = Annotated[Path | None, typer.Option(help="JSON file to write the result to.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def make_options(
    rerank: bool,
    match: str | None,
    mode: str,
    num_candidates: int | None,
    num_salient_frames: int | None,
    salient_frames: str,
    ensemble_lambda: float | None,
    tokens: str,
    tokens_per_frame: int | None,
) -> Options:
    """The options of a measurement, from those of the command line.

    Raises:
        InputError: an option value is invalid.
    """
    return Options(
        rerank=rerank,
        match=cast(MatchKind | None, match),
        mode=cast(Literal["top-k", "all-pairs"], mode),
        num_candidates=num_candidates,
        num_salient_frames=num_salient_frames,
        salient_frames=whole_numbers("salient_frames", salient_frames) if salient_frames else (),
        ensemble_lambda=ensemble_lambda,
        tokens=TokenOptions(cast(Literal["int8", "float32"], tokens), tokens_per_frame),
    )


def number_or_split(text: str) -> tuple[float | None, str]:
    """Read λ, or else the name of the split to choose it on. An empty text gives (None, "")."""
    if not text:
        return None, ""
    try:
        return float(text), ""
    except ValueError:
        return None, text

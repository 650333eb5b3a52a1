"""`reelfind-model evaluate features`: videos and moments found on a set of features with timed text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from model.cli.arguments import whole_numbers
from model.cli.evaluate import options
from model.cli.evaluate.measuring import open_feature_model, show_result, without_nan
from model.cli.terminal import report
from model.config import load_config
from model.data.datasets import SplitName
from model.data.feature_sets import open_feature_source
from model.evaluation.moments.features import FoundTasks, evaluate_features
from model.evaluation.moments.submission import write_submission
from model.evaluation.moments.tables import retrieval_table, tvr_tables
from model.runtime.errors import InputError
from model.runtime.moments import SPAN_PRESETS, MomentOptions


def features_command(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints, whose weights are averaged.")],
    dataset: Annotated[Path, typer.Option(help="Recipe, or config.yaml of a run, that names the data set.")],
    setting: Annotated[
        list[str] | None,
        typer.Option(help="Setting to change, as key=value, such as data.annotations=DIR; repeatable."),
    ] = None,
    split: options.SplitOption = "test",
    span_limits: Annotated[
        Literal["default", "hero"],
        typer.Option(help="Lengths of moments: default, 1 to 25 vectors, or hero, 3 to 16."),
    ] = "default",
    max_iou: Annotated[
        float | None,
        typer.Option(
            help="Suppression: drop a moment that overlaps a better one of its video more, such as 0.5. "
            "Default: none is dropped."
        ),
    ] = None,
    num_videos: Annotated[
        int, typer.Option(min=1, help="Number of most similar videos in which moments are looked for.")
    ] = 100,
    recall_at: Annotated[
        str,
        typer.Option(
            help="K of R@K in the table of moments: of 1, 5, 10 and 100. Default: 1,10,100 for tvr, else "
            "1,5,10."
        ),
    ] = "",
    threads: options.Threads = 2,
    device: options.Device = "cpu",
    output: options.Output = None,
    submission: Annotated[
        Path | None, typer.Option(help="JSON file to write all predictions to, in TVR's format.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate what a model of features finds: videos, and moments of the given video and of all videos.

    Figures are in percent, and those of moments are TVR's, by what a description speaks of. A split whose
    spans are not published gives a submission, and figures of videos alone.
    """
    config = load_config(dataset, setting or ())
    if not config.data.has_features:
        raise InputError(
            f"{dataset} has data.kind={config.data.kind}, which has no features: use tvr, how2r, "
            "didemo_moments or msrvtt_asr"
        )
    ranking = MomentOptions(limits=SPAN_PRESETS[span_limits], num_videos=num_videos, max_iou=max_iou)
    recalls = whole_numbers("recall_at", recall_at or ("1,10,100" if config.data.kind == "tvr" else "1,5,10"))
    encoder, finds_moments = open_feature_model(checkpoints, threads, device)
    source = open_feature_source(config.data, cast(SplitName, split), report)
    found: FoundTasks = evaluate_features(encoder, source, ranking, moments=finds_moments, report=report)
    if submission is not None:
        write_submission(submission, found.submission, found.queries)
    result: dict[str, Any] = {
        "settings": {
            "split": source.name,
            "queries": len(found.queries),
            "videos": len(source),
            "span_limits": span_limits,
            "max_iou": max_iou,
            "num_videos": num_videos,
        },
        "retrieval": dict(found.retrieval),
        "moments": without_nan(found.tasks),
    }
    table = f"{retrieval_table({source.name: found.retrieval})}\n\n{tvr_tables(found.tasks, recalls)}"
    show_result(result, table, output, as_json)

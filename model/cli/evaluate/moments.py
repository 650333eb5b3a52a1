"""`reelfind-model evaluate moments`: scores predicted moments against annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from model.cli.arguments import whole_numbers
from model.cli.evaluate import options
from model.cli.evaluate.measuring import show_result, without_nan
from model.cli.terminal import report
from model.data.datasets.moments import read_didemo_moments, read_tvr, read_windows
from model.evaluation.moments.didemo import evaluate_didemo, read_didemo_predictions
from model.evaluation.moments.qvhighlights import evaluate_qvhighlights, read_highlight_predictions
from model.evaluation.moments.submission import read_submission
from model.evaluation.moments.tables import didemo_table, qvhighlights_tables, tvr_tables
from model.evaluation.moments.tvr import evaluate_tvr


def moments_command(
    annotations: Annotated[
        Path, typer.Option(help="Official annotations: JSON lines for tvr and qvhighlights, JSON for didemo.")
    ],
    predictions: Annotated[Path, typer.Option(help="Predictions in the data set's submission format.")],
    metric: Annotated[
        Literal["tvr", "didemo", "qvhighlights"], typer.Option(help="The data set's way to evaluate.")
    ],
    recall_at: Annotated[
        str, typer.Option(help="K of R@K in the table of moments, for tvr: of 1, 5, 10 and 100.")
    ] = "1,10,100",
    output: options.Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Score predicted moments as the official script of a data set does, in percent.

    --metric tvr reads a submission of TVR, and files of that form for How2R and DiDeMo; didemo reads ranked
    segments; qvhighlights reads windows and saliency scores.
    """
    recalls = whole_numbers("recall_at", recall_at)
    result: dict[str, Any]
    if metric == "tvr":
        submission, moments = read_submission(predictions), read_tvr(annotations)
        result = dict(evaluate_tvr(submission, moments))
        table = tvr_tables(result, recalls)
        if unknown := submission.unknown_videos():
            report(f"predictions of videos that video2idx lacks: {unknown}; they count as wrong")
    elif metric == "didemo":
        moments = read_didemo_moments(annotations)
        result = dict(evaluate_didemo(read_didemo_predictions(predictions, moments), moments))
        table = didemo_table(result)
    else:
        moments = read_windows(annotations)
        result = dict(evaluate_qvhighlights(read_highlight_predictions(predictions), moments))
        table = qvhighlights_tables(result, moments)
    show_result(without_nan(result), table, output, as_json)

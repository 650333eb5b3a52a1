"""`reelfind-model evaluate probabilities`: how true the probabilities of a bundle are on videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model.cli.evaluate import options
from model.cli.evaluate.measuring import show_result, without_nan
from model.cli.terminal import report
from model.evaluation.calibrating import observe, videos_with_nonsense
from model.evaluation.calibration_figures import calibration_table, figures_of_both
from model.evaluation.encoders import bundle_encoder
from model.evaluation.measure import Options
from model.runtime.bundle import Bundle
from model.runtime.errors import InputError


def probabilities_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle with a calibration.")],
    clips: options.Clips,
    queries: options.Queries,
    draws: Annotated[int, typer.Option(min=1, help="Libraries of half of the videos.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Decides which videos are drawn.")] = 0,
    threads: options.Threads = 2,
    output: options.Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure the probabilities of a bundle on a folder of videos with queries.

    Draws libraries of half of the videos, and searches them for the queries of these, for the queries of the
    other half, and for nonsense. Videos are sampled as in indexing.
    """
    opened = Bundle.open(bundle, threads=threads)
    calibration = opened.manifest.calibration
    if calibration is None:
        raise InputError(f"{bundle} has no calibration: `reelfind-model calibrate` adds one")
    encoder = bundle_encoder(opened)
    measurement, kind = videos_with_nonsense(encoder, clips, queries, Options(), seed, report)
    half = (int(measurement.corpus.owner.max()) + 1) // 2
    observed = observe(measurement, kind, draws, seed, report, (half,), opened.reference_images)
    figures = {clips.resolve().name: figures_of_both(calibration, observed)}
    result = {"figures": figures, "calibration": calibration.model_dump()}
    show_result(without_nan(result), calibration_table(result), output, as_json)

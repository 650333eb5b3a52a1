"""`reelfind-model evaluate dataset`: retrieval on a data set of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from model.cli.evaluate import options
from model.cli.evaluate.measuring import measure_sources, open_model, with_hubness, write_result
from model.cli.terminal import report
from model.config import load_config
from model.data.datasets import SplitName, VideoFrames, open_dataset


def dataset_command(
    models: options.Models,
    dataset: Annotated[Path, typer.Option(help="Recipe, or config.yaml of a run, that names the data set.")],
    setting: Annotated[
        list[str] | None,
        typer.Option(help="Setting to change, as key=value, such as data.videos=DIR; repeatable."),
    ] = None,
    split: options.SplitOption = "test",
    rerank: options.Rerank = True,
    match: options.Match = None,
    mode: options.Mode = "top-k",
    num_candidates: options.NumCandidates = None,
    num_salient_frames: options.NumSalientFrames = None,
    salient_frames: options.SalientFrames = "",
    ensemble_lambda: options.TunedLambda = "",
    hubness_weight: options.HubnessWeight = None,
    tokens: options.Tokens = "int8",
    tokens_per_frame: options.TokensPerFrame = None,
    weights: options.Weights = None,
    salience: options.Salience = None,
    threads: options.Threads = 2,
    device: options.Device = "cpu",
    output: options.Output = None,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate retrieval on a data set of videos, or of images with texts."""
    lam, tune_on = options.number_or_split(ensemble_lambda)
    measure_options = options.make_options(
        rerank,
        match,
        mode,
        num_candidates,
        num_salient_frames,
        salient_frames,
        lam,
        tokens,
        tokens_per_frame,
    )
    encoder = open_model(models, weights, salience, threads, device)
    measure_options = with_hubness(measure_options, encoder, models, hubness_weight)
    config = load_config(dataset, setting or ())

    def open_split(name: str) -> VideoFrames:
        return open_dataset(config, cast(SplitName, name), report)

    write_result(
        measure_sources(encoder, "datasets", open_split, split, tune_on, measure_options), output, as_json
    )

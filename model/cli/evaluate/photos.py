"""`reelfind-model evaluate photos`: retrieval on captioned photos."""

from __future__ import annotations

from model.cli.evaluate import options
from model.cli.evaluate.measuring import measure_sources, open_model, with_hubness, write_result
from model.data.stills import read_stills


def photos_command(
    models: options.Models,
    data: options.Photos,
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
    """Evaluate retrieval on captioned photos."""
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
    result = measure_sources(
        encoder, "photos", lambda name: read_stills(data, name), split, tune_on, measure_options
    )
    write_result(result, output, as_json)

"""`reelfind-model evaluate videos`: retrieval on a folder of videos."""

from __future__ import annotations

from model.cli.evaluate import options
from model.cli.evaluate.measuring import open_model, with_hubness, write_result
from model.cli.terminal import report
from model.evaluation.evaluate import evaluate_videos
from model.evaluation.measure import settings_of


def videos_command(
    models: options.Models,
    clips: options.Clips,
    queries: options.Queries,
    rerank: options.Rerank = True,
    match: options.Match = None,
    mode: options.Mode = "top-k",
    num_candidates: options.NumCandidates = None,
    num_salient_frames: options.NumSalientFrames = None,
    salient_frames: options.SalientFrames = "",
    ensemble_lambda: options.Lambda = None,
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
    """Evaluate retrieval on a folder of videos with queries. Videos are sampled as in indexing."""
    measure_options = options.make_options(
        rerank,
        match,
        mode,
        num_candidates,
        num_salient_frames,
        salient_frames,
        ensemble_lambda,
        tokens,
        tokens_per_frame,
    )
    encoder = open_model(models, weights, salience, threads, device)
    measure_options = with_hubness(measure_options, encoder, models, hubness_weight)
    result = {
        "settings": settings_of(encoder, measure_options),
        "videos": evaluate_videos(encoder, clips, queries, measure_options, report),
    }
    write_result(result, output, as_json)

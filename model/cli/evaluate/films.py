"""`reelfind-model evaluate films`: retrieval on noisy films spliced from photos."""

from __future__ import annotations

from typing import Annotated

import typer

from model.cli.evaluate import options
from model.cli.evaluate.measuring import measure_sources, open_model, with_hubness, write_result
from model.data.stills import read_stills
from model.evaluation.spliced import NOISY, SplicedFilms, splice_films


def films_command(
    models: options.Models,
    data: options.Photos,
    films: Annotated[int, typer.Option(min=1, help="Number of films, each showing another photo.")],
    film_noise: options.FilmNoise = 150,
    seed: options.FilmSeed = 0,
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
    """Evaluate retrieval on noisy films, spliced from captioned photos.

    A film has up to 16 frames, or as many as the model's segments if those have fewer. To choose λ on another
    split, as many films are spliced from that.
    """
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
    slots = encoder.profile.frames_per_segment

    def spliced(name: str) -> SplicedFilms:
        return splice_films(read_stills(data, name), films, film_noise, NOISY, slots, seed)

    write_result(measure_sources(encoder, "films", spliced, split, tune_on, measure_options), output, as_json)

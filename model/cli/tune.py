"""`reelfind-model tune`: chooses on validation data how a bundle re-ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from model.cli.evaluate import options
from model.cli.evaluate.measuring import open_model, show_result, with_frame_hubness
from model.cli.terminal import report
from model.data.sources import Source
from model.data.stills import CaptionedStills, read_stills
from model.evaluation.choosing import choose, tuned_table
from model.evaluation.spliced import NOISY, SplicedFilms, splice_films, splice_items
from model.export.copying import copy_bundle
from model.export.provenance import extended
from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.errors import InputError


def tune_command(
    models: options.Models,
    data: Annotated[
        list[Path],
        typer.Option(help="Folder with captions.csv and images/, of photos or frames of videos; repeatable."),
    ],
    films: Annotated[int, typer.Option(min=1, help="Number of films to splice from each folder.")] = 150,
    film_noise: options.FilmNoise = 150,
    together: Annotated[
        int, typer.Option(min=1, help="Also films of so many items of each folder, each in turn; 1: none.")
    ] = 3,
    seed: options.FilmSeed = 0,
    split: options.SplitOption = "val",
    match: options.Match = None,
    num_candidates: options.NumCandidates = None,
    salient_frames: Annotated[
        str, typer.Option(help="The numbers of salient frames to choose from.")
    ] = "1,2,3,4",
    hubness_weight: options.HubnessWeight = None,
    frame_hubness_weight: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            help="Subtract from a frame's relevance this times its mean relevance for the nearest of some "
            "training captions. Only for checkpoints, with --hubness-weight.",
        ),
    ] = 0.0,
    tokens_per_frame: options.TokensPerFrame = None,
    weights: options.Weights = None,
    salience: options.Salience = None,
    threads: options.Threads = 2,
    device: options.Device = "cpu",
    output: options.Output = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder of a new bundle: that which is tuned, with what was chosen."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Choose λ and the number of salient frames on validation data, for `export --tuned` or a new bundle.

    They have the highest mean R@1 over intact items, noisy films and films of several items of each folder;
    the first caption of an item is its query. With `--match salience`, how relevance becomes a match is
    fitted first, and whether the similarity takes its place in videos whose frames are alike.
    """
    if bundle is not None and not (len(models) == 1 and models[0].is_dir()):
        raise InputError(
            f"--bundle {bundle}: {models[0]} is no bundle; pass --output FILE, and then export the "
            "checkpoint with --tuned FILE",
            "bundle",
        )
    names = [folder.resolve().name for folder in data]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two folders are called {name}: rename one, so that results can name them", "data")
    measure_options = options.make_options(
        True, match, "top-k", num_candidates, None, salient_frames, None, "int8", tokens_per_frame
    )
    if measure_options.salient_frames:
        # Only these are tried, not also the model's own number.
        measure_options = replace(measure_options, num_salient_frames=measure_options.salient_frames[0])
    encoder = open_model(models, weights, salience, threads, device)
    measure_options, encoder = with_frame_hubness(
        measure_options, encoder, models, hubness_weight, frame_hubness_weight
    )
    slots = encoder.profile.frames_per_segment
    galleries: dict[str, Source | SplicedFilms] = {}
    for name, folder in zip(names, data, strict=True):
        stills = _first_captions(read_stills(folder, split))
        galleries[name] = stills
        galleries[f"films of {name}"] = splice_films(stills, films, film_noise, NOISY, slots, seed)
        if together > 1:
            galleries[f"{name} by {together}"] = splice_items(stills, together, NOISY.views, slots, seed)
    result = choose(encoder, galleries, measure_options, report)
    if frame_hubness_weight:
        result["settings"]["frame_hubness_weight"] = frame_hubness_weight
    if bundle is not None:
        _write_tuned(models[0], bundle, result["settings"])
    show_result(result, tuned_table(result), output, as_json)


def _write_tuned(source: Path, output: Path, settings: Mapping[str, Any]) -> None:
    """Write a copy of a bundle with the chosen settings."""
    opened = Bundle.open(source)
    changes: dict[str, Any] = {name: settings[name] for name in ("num_salient_frames", "ensemble_lambda")}
    if settings.get("salience_match") is not None:
        changes["salience_match"] = SalienceMatch.model_validate_json(json.dumps(settings["salience_match"]))
    provenance = extended(opened.manifest.provenance, "tuned", settings, ())
    copy_bundle(opened, output, provenance=provenance, **changes)
    report(f"tuned bundle written to {output}")


def _first_captions(stills: CaptionedStills) -> CaptionedStills:
    return replace(stills, captions=tuple(captions[:1] for captions in stills.captions))

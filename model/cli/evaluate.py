"""`reelfind-model evaluate`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
import typer

from model.cli.terminal import report
from model.config import load_config
from model.data.datasets import SplitName, open_dataset
from model.data.loaders import CaptionedPhotos, VideoSource, read_captions
from model.evaluation.corpus import TokenOptions
from model.evaluation.encoders import BundleEncoder, Encoder, TowersEncoder
from model.evaluation.evaluate import evaluate, evaluate_videos, read_queries, tune
from model.evaluation.figure import choose, save
from model.evaluation.measure import Options, settings_of
from model.evaluation.spliced import NOISY, SplicedFilms, splice
from model.evaluation.tables import table
from model.families.lgdn.weights import tokenizer_path
from model.runtime.bundle import Bundle
from model.runtime.preprocessing import TextTokenizer
from model.training.checkpoints import load_checkpoints

_FIGURE_ROWS = 3

Device = Literal["cpu", "cuda"]


def open_encoder(
    models: list[Path], weights: str, salience: str | None, threads: int, device: str = "cpu"
) -> Encoder:
    """A bundle's folder, or checkpoints to average.

    Raises:
        ValueError: there is no such model, or a bundle is asked for another strategy than its own.
        BundleError: the bundle cannot be opened.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is unknown: choose cpu or cuda")
    if len(models) == 1 and models[0].is_dir():
        bundle = Bundle.open(models[0], threads=threads, provider=cast(Device, device))
        baked = bundle.manifest.salience_strategy
        if salience not in (None, baked):
            raise ValueError(
                f"{models[0]} was exported with the salience {baked}: measure a checkpoint instead"
            )
        return BundleEncoder(bundle)
    torch.set_num_threads(threads)
    config, model = load_checkpoints(models)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no GPU: leave --device out")
    for towers in (model.online, model.momentum):
        towers.image.channels_last()
    path = tokenizer_path(config.model, models[0].parent)
    tokenizer = TextTokenizer.from_file(path, config.model.context_length)
    return TowersEncoder(model.to(device), tokenizer, weights=weights, strategy=salience)


def _open(
    data: Path | None, dataset: Path | None, settings: list[str] | None, split: str
) -> tuple[str, CaptionedPhotos | VideoSource]:
    """A split of a folder of captioned photos, or of a recipe's data set, and its name."""
    if data is not None:
        return split, read_captions(data, split)
    videos = open_dataset(load_config(dataset or Path(), settings or ()), cast(SplitName, split), report)
    return videos.split.name, videos


def _numbers(option: str, words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(",")) if words else ()
    except ValueError:
        raise ValueError(f"{option} {words!r}: write numbers with commas, such as 1,2,4") from None


def _draw(encoder: Encoder, clips: Path, queries: Path, lines: str, frames: int, path: Path) -> None:
    rows = read_queries(queries)
    if lines:
        chosen = [n - 1 for n in _numbers("--figure-queries", lines)]
        if not all(0 <= n < len(rows) for n in chosen):
            raise ValueError(f"--figure-queries {lines}: there are {len(rows)} queries, counted from 1")
    else:
        chosen = list(np.linspace(0, len(rows) - 1, min(_FIGURE_ROWS, len(rows)) + 2).astype(int)[1:-1])
    drawn = []
    for row in (rows[n] for n in dict.fromkeys(chosen)):
        picked = choose(encoder, row["query"], clips / row["video"], frames=frames, caption=row["video"])
        drawn.append(picked)
    count = max(int(row.salient.sum()) for row in drawn)
    note = f"Under each frame its relevance for the text; red: the {count} most relevant, which are matched."
    save(drawn, path, note)
    report(f"figure written to {path}")


def evaluate_command(
    models: Annotated[list[Path], typer.Argument(help="A bundle's folder, or checkpoints to average.")],
    data: Annotated[Path | None, typer.Option(help="Folder with captions.csv and images/.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="A recipe, or a run's config.yaml: measure its data set of videos.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(help="key=value over the recipe, such as data.videos=DIR; repeatable.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the photos or of the data set.")] = "test",
    clips: Annotated[Path | None, typer.Option(help="Folder of videos.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A JSON object (video, query, set) a line.")] = None,
    rerank: Annotated[bool, typer.Option(help="Also by the match of salient frames.")] = True,
    mode: Annotated[str, typer.Option(help="Pairs to match: top-k or all-pairs.")] = "top-k",
    num_candidates: Annotated[
        int | None, typer.Option(help="Nearest that are matched, by default as the model says.")
    ] = None,
    num_salient_frames: Annotated[
        int | None, typer.Option(help="Frames matched of a segment, by default as the model says.")
    ] = None,
    salient_frames: Annotated[
        str, typer.Option(help="More of these numbers, from the same pass: 1,2,3,4,8,16.")
    ] = "",
    ensemble_lambda: Annotated[
        float | None, typer.Option(help="λ: weight of the similarity, by default as the model says.")
    ] = None,
    tune_on: Annotated[str, typer.Option(help="Choose λ by this split of them, such as val.")] = "",
    films: Annotated[
        int,
        typer.Option(
            min=0, help="Measure, and tune, on so many noisy films spliced from the split's photos instead."
        ),
    ] = 0,
    film_noise: Annotated[int, typer.Option(min=2, help="Photos that are only films' other frames.")] = 150,
    seed: Annotated[int, typer.Option(help="Seed of the films.")] = 0,
    salience: Annotated[
        str | None, typer.Option(help="Of a checkpoint: simdot, momentum, crossmom or collaborative.")
    ] = None,
    tokens: Annotated[str, typer.Option(help="How frame tokens are kept: int8 or float32.")] = "int8",
    tokens_per_frame: Annotated[
        int | None, typer.Option(help="Merge them to so many, by default as the model says.")
    ] = None,
    weights: Annotated[str, typer.Option(help="Of a checkpoint: momentum or online.")] = "momentum",
    output: Annotated[Path | None, typer.Option(help="Write the result to this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    figure: Annotated[
        Path | None, typer.Option(help="Draw frames, relevance and salient frames of some queries (PNG).")
    ] = None,
    figure_queries: Annotated[
        str, typer.Option(help="Lines of the queries to draw, such as 3,17; by default some of the file.")
    ] = "",
    figure_frames: Annotated[int, typer.Option(help="Frames to draw of a video.")] = 5,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Measure retrieval on captioned photos, on videos, or on both: by similarity, by match, and by both."""
    videos = (clips, queries) if clips is not None and queries is not None else None
    if data is None and dataset is None and videos is None:
        raise ValueError(
            "nothing to measure on: pass --data DIR, --dataset RECIPE, or --clips DIR with --queries FILE"
        )
    if data is not None and dataset is not None:
        raise ValueError("--data and --dataset: measure one of them at a time")
    whole = data is not None or dataset is not None
    if tune_on and (not whole or ensemble_lambda is not None):
        raise ValueError("--tune-on needs --data or --dataset, and no --ensemble-lambda beside it")
    if films and data is None:
        raise ValueError("--films are spliced from photos: pass --data DIR")
    if figure is not None and videos is None:
        raise ValueError("--figure draws videos: pass --clips DIR with --queries FILE")
    options = Options(
        rerank=rerank,
        mode=cast(Literal["top-k", "all-pairs"], mode),
        num_candidates=num_candidates,
        num_salient_frames=num_salient_frames,
        salient_frames=_numbers("--salient-frames", salient_frames),
        ensemble_lambda=ensemble_lambda,
        tokens=TokenOptions(cast(Literal["int8", "float32"], tokens), tokens_per_frame),
    )
    encoder = open_encoder(models, weights, salience, threads, device)

    def material(part: str) -> tuple[str, str, CaptionedPhotos | VideoSource | SplicedFilms]:
        name, source = _open(data, dataset, setting, part)
        if not isinstance(source, CaptionedPhotos):
            return "datasets", name, source
        if not films:
            return "photos", name, source
        slots = encoder.profile.frames_per_segment
        return "films", name, splice(source, films, film_noise, NOISY, slots, seed)

    result: dict[str, Any] = {"settings": settings_of(encoder, options)}
    if tune_on:
        tuned = tune(encoder, material(tune_on)[2], options, report)
        report(f"λ = {tuned['ensemble_lambda']:g}, by R@1 on {tune_on}")
        options = replace(options, ensemble_lambda=tuned["ensemble_lambda"])
        result = {"settings": settings_of(encoder, options), "tuned": {"split": tune_on, **tuned}}
    if whole:
        kind, name, chosen = material(split)
        result[kind] = {name: evaluate(encoder, chosen, options, report)}
    if videos is not None:
        result["videos"] = evaluate_videos(encoder, *videos, options, report)
    if output is not None:
        output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    typer.echo(json.dumps(result, indent=2, ensure_ascii=False) if as_json else table(result))
    if figure is not None and videos is not None:
        _draw(encoder, *videos, figure_queries, figure_frames, figure)

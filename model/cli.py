"""`reelfind-model`: what needs PyTorch. `train`, `evaluate`, `export`.

Exit codes are those of `reelfind`: 0 ok, 2 bad input, 3 failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from model.config import essentials, load_config, to_mapping
from model.data import read_captions
from model.encoders import BundleEncoder, Encoder, TowersEncoder
from model.evaluate import evaluate_photos, evaluate_videos
from model.export import StorageChoice, current_commit, export_bundle, load_checkpoints
from model.launch import launch
from model.runtime.bundle import Bundle
from model.runtime.errors import ReelfindError
from model.runtime.preprocess import TextTokenizer
from model.storage import STORAGES
from model.weights import sources, tokenizer_path

app = typer.Typer(
    help="Train, measure and export Reelfind's models.", no_args_is_help=True, add_completion=False
)

Weights = Annotated[str, typer.Option(help="Of a checkpoint: momentum or online weights.")]


def _report(words: str) -> None:
    """Progress goes to stderr, so that stdout stays readable by programs."""
    typer.echo(words, err=True)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Errors become one line on stderr and an exit code, never a traceback."""
    try:
        yield
    except ValueError as error:
        _report(f"error: {error}")
        raise typer.Exit(2) from None
    except (ReelfindError, FloatingPointError) as error:
        _report(f"error: {error}")
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        _report("interrupted: the same command continues a training run")
        raise typer.Exit(130) from None


@app.command("train")
@_exit_codes()
def train_command(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as model/recipes/mini.yaml.")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="key=value words, such as data=DIR train.epochs=2.")
    ] = None,
) -> None:
    """Train by a recipe; the same command continues an interrupted run.

    Ctrl-C ends after the step and saves it; a second one ends at once.
    """
    launch(load_config(recipe, settings or ()), _report)


def _encoder(models: list[Path], weights: str, threads: int) -> Encoder:
    if len(models) == 1 and models[0].is_dir():
        return BundleEncoder(Bundle.open(models[0], threads=threads))
    torch.set_num_threads(threads)
    config, towers = load_checkpoints(models, weights)
    tokenizer = TextTokenizer.from_file(tokenizer_path(config.model), config.model.context_length)
    return TowersEncoder(towers, tokenizer)


@app.command("evaluate")
@_exit_codes()
def evaluate_command(
    models: Annotated[list[Path], typer.Argument(help="A bundle's folder, or checkpoints to average.")],
    data: Annotated[Path | None, typer.Option(help="Folder with captions.csv and images/.")] = None,
    split: Annotated[str, typer.Option(help="Split of the photos.")] = "test",
    clips: Annotated[Path | None, typer.Option(help="Folder of videos.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A JSON object (video, query, set) a line.")] = None,
    weights: Weights = "momentum",
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Measure retrieval on captioned photos, on videos, or on both; prints one JSON object."""
    if data is None and (clips is None or queries is None):
        raise ValueError("nothing to measure on: pass --data DIR, or --clips DIR with --queries FILE")
    encoder = _encoder(models, weights, threads)
    result: dict[str, Any] = {}
    if data is not None:
        result["photos"] = {split: evaluate_photos(encoder, read_captions(data, split))}
    if clips is not None and queries is not None:
        result["videos"] = evaluate_videos(encoder, clips, queries, _report)
    typer.echo(json.dumps(result, indent=2))


@app.command("export")
@_exit_codes()
def export_command(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints; several are averaged.")],
    output: Annotated[Path, typer.Option(help="The bundle's folder; replaced where it stands.")],
    metrics: Annotated[
        Path | None, typer.Option(help="JSON written by evaluate, kept in the bundle.")
    ] = None,
    weights: Weights = "momentum",
    image: Annotated[
        str, typer.Option(help="How image weights are stored: float32, float16, int8.")
    ] = "float16",
    text: Annotated[str, typer.Option(help="How text weights are stored.")] = "int8",
    words: Annotated[str, typer.Option(help="How word embeddings are stored.")] = "int8",
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Write a bundle; fails when an ONNX graph differs from PyTorch."""
    for choice in (image, text, words):
        if choice not in STORAGES:
            raise ValueError(f"unknown storage {choice!r}: use one of {', '.join(STORAGES)}")
    torch.set_num_threads(threads)
    config, towers = load_checkpoints(checkpoints, weights)
    provenance = {
        "recipe": json.dumps(
            {"name": config.name, "averaged": len(checkpoints)} | essentials(to_mapping(config))
        ),
        "data": [
            {
                "name": "Flickr8k, training split (6,091 photos, 5 captions each)",
                "licence": "research use",
                "source": "Hodosh, Young, Hockenmaier: Framing Image Description as a Ranking Task, 2013",
            }
        ],
        "weights": sources(config.model),
        "commit": current_commit(),
        "metrics": json.loads(metrics.read_text(encoding="utf-8")) if metrics else {},
    }
    export_bundle(
        output,
        towers,
        tokenizer_path(config.model),
        provenance,
        StorageChoice(image, text, words),  # type: ignore[arg-type]
        name=config.name,
        description="A small model for tests, demos and machines without a GPU: short English descriptions.",
        report=_report,
    )


def main() -> None:
    """Entry point of `reelfind-model`."""
    app()

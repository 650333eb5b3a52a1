"""`reelfind-model export`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer

from model.cli.terminal import exit_codes, report
from model.config import Config, essentials
from model.export.bundle import ExportOptions, StorageChoice, current_commit, export_bundle
from model.export.storage import STORAGES, Storage
from model.families import get_family
from model.settings import to_mapping
from model.training.checkpoints import load_checkpoints, tokenizer_path

#: what a bundle says of the data that its model was trained on, by `data.kind`
_DATA: dict[str, tuple[str, str]] = {
    "photos": (
        "Flickr8k, training split (6,091 photos, 5 captions each)",
        "Hodosh, Young, Hockenmaier: Framing Image Description as a Ranking Task, 2013",
    ),
    "msrvtt": ("MSR-VTT, training split", "Xu, Mei, Yao, Rui: MSR-VTT, 2016"),
    "msvd": ("MSVD, training split", "Chen, Dolan: Collecting Highly Parallel Data, 2011"),
    "didemo": ("DiDeMo, training split", "Hendricks et al.: Localizing Moments in Video, 2017"),
    "vatex": ("VATEX, training split", "Wang et al.: VaTeX, 2019"),
    "image_text": ("images with texts, as the recipe says", "given by who trained the model"),
}
_MINI = "A small model for tests, demos and machines without a GPU: short English descriptions."


def _storage(image: str, text: str, words: str, matcher: str) -> StorageChoice:
    for choice in (image, text, words, matcher):
        if choice not in STORAGES:
            raise ValueError(f"unknown storage {choice!r}: use one of {', '.join(STORAGES)}")
    return StorageChoice(*(cast(Storage, choice) for choice in (image, text, words, matcher)))


def _measured(path: Path | None) -> dict[str, Any]:
    """An evaluation's JSON, without the λ that were tried and left."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no metrics ({error}): write it with evaluate --output") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no metrics: write it with evaluate --output")
    if isinstance(found.get("tuned"), dict):
        found["tuned"].pop("tried", None)
    return found


def _lambda(given: float | None, metrics: dict[str, Any]) -> float:
    settings = metrics.get("settings", {})
    value = settings.get("ensemble_lambda") if given is None else given
    lam = 1.0 if value is None else float(value)
    if not (math.isfinite(lam) and lam >= 0):
        raise ValueError(f"λ is {lam}: it must be 0 or more")
    return lam


def _provenance(
    config: Config, averaged: int, match_similarity: float | None, metrics: dict[str, Any]
) -> dict[str, Any]:
    name, source = _DATA[config.data.kind]
    exported: dict[str, Any] = {"name": config.name, "averaged": averaged}
    if match_similarity is not None:
        exported["match_similarity"] = match_similarity
    return {
        "recipe": json.dumps(exported | essentials(to_mapping(config))),
        "data": [{"name": name, "licence": "research use", "source": source}],
        "weights": get_family(config.family).sources(config.model),
        "commit": current_commit(),
        "metrics": metrics,
    }


@exit_codes()
def export_command(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints; several are averaged.")],
    output: Annotated[Path, typer.Option(help="The bundle's folder; replaced where it stands.")],
    metrics: Annotated[
        Path | None, typer.Option(help="JSON written by evaluate, kept in the bundle; its λ is the bundle's.")
    ] = None,
    weights: Annotated[str, typer.Option(help="momentum or online weights.")] = "momentum",
    salience: Annotated[
        str | None,
        typer.Option(help="simdot, momentum, crossmom or collaborative; by default as it was trained."),
    ] = None,
    ensemble_lambda: Annotated[
        float | None, typer.Option("--lambda", help="λ; by default that of --metrics, else 1.")
    ] = None,
    match_similarity: Annotated[
        float | None,
        typer.Option(
            min=0, help="Weight of whole text and frame's similarity in a joint match; by default as trained."
        ),
    ] = None,
    num_salient_frames: Annotated[int | None, typer.Option(min=1, help="Frames matched.")] = None,
    num_candidates: Annotated[int, typer.Option(min=1, help="Segments matched for a query.")] = 100,
    tokens_per_frame: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a frame that an index keeps, merged; by default all.")
    ] = None,
    matcher: Annotated[bool, typer.Option(help="With the matching head.")] = True,
    image: Annotated[
        str, typer.Option(help="How image weights are stored: float32, float16, int8.")
    ] = "float16",
    text: Annotated[str, typer.Option(help="How text weights are stored.")] = "int8",
    words: Annotated[str, typer.Option(help="How word embeddings are stored.")] = "int8",
    matcher_storage: Annotated[str, typer.Option(help="How the matcher's weights are stored.")] = "float16",
    description: Annotated[str, typer.Option(help="What the bundle is good for.")] = _MINI,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Write a bundle; fails when an ONNX graph differs from PyTorch."""
    storage = _storage(image, text, words, matcher_storage)
    measured = _measured(metrics)
    options = ExportOptions(
        weights=weights,
        salience=salience,
        match_similarity=match_similarity,
        matcher=matcher,
        num_salient_frames=num_salient_frames,
        num_candidates=num_candidates,
        ensemble_lambda=_lambda(ensemble_lambda, measured),
        tokens_per_frame=tokens_per_frame,
        storage=storage,
    )
    torch.set_num_threads(threads)
    config, model = load_checkpoints(checkpoints)
    manifest = export_bundle(
        output,
        model,
        tokenizer_path(config, checkpoints[0].parent),
        _provenance(config, len(checkpoints), match_similarity, measured),
        options,
        name=config.name,
        description=description,
        family=config.family,
        report=report,
    )
    total = sum(record.bytes for record in manifest.files.values())
    report(f"{output}: {total / 1e6:.1f} MB, λ = {manifest.ensemble_lambda:g}")

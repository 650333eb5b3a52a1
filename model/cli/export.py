"""`reelfind-model export`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer

from model.cli.terminal import report
from model.data.record import data_of
from model.export.bundle import ExportOptions, StorageChoice, export_bundle
from model.export.provenance import NOT_STATED, make_provenance
from model.export.storage import Storage
from model.families import get_family
from model.families.base import InferenceOptions
from model.runtime.errors import InputError
from model.training.checkpoints import load_checkpoints, read_state, tokenizer_path


def _measured(path: Path | None) -> dict[str, Any]:
    """An evaluation's JSON, without the λ that were tried and left."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no metrics ({error}): write it with evaluate --output") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no metrics: write it with evaluate --output")
    if isinstance(found.get("tuned"), dict):
        found["tuned"].pop("tried", None)
    return found


def _lambda(given: float | None, metrics: dict[str, Any]) -> float:
    settings = metrics.get("settings", {})
    value = settings.get("ensemble_lambda") if given is None else given
    lam = 1.0 if value is None else float(value)
    if not (math.isfinite(lam) and lam >= 0):
        raise InputError(f"λ is {lam}: it must be 0 or more")
    return lam


def export_command(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints; several are averaged.")],
    output: Annotated[Path, typer.Option(help="The bundle's folder; replaced where it stands.")],
    metrics: Annotated[
        Path | None, typer.Option(help="JSON written by evaluate, kept in the bundle; its λ is the bundle's.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Which weights: LGDN has momentum (the default) and online ones."),
    ] = None,
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
    description: Annotated[str, typer.Option(help="What the bundle is good for.")] = "",
    licence: Annotated[str, typer.Option(help="The bundle's licence, an SPDX expression.")] = NOT_STATED,
    data_licence: Annotated[
        list[str] | None,
        typer.Option(
            help="Licence of the training data. For several data sets give the option once for each, in the "
            "order in which the bundle lists them.",
            show_default=NOT_STATED,
        ),
    ] = None,
    data_source: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the training data comes from, such as an address or a publication. For several data "
            "sets as --data-licence.",
            show_default=NOT_STATED,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Write a bundle; fails when an ONNX graph differs from PyTorch.

    The bundle names the data that the checkpoints were trained on by its folders' names and its counts.
    """
    if not licence.strip():
        raise InputError("the bundle's licence is blank: leave the option out, or name a licence")
    measured = _measured(metrics)
    options = ExportOptions(
        inference=InferenceOptions(weights, salience, match_similarity),
        matcher=matcher,
        num_salient_frames=num_salient_frames,
        num_candidates=num_candidates,
        ensemble_lambda=_lambda(ensemble_lambda, measured),
        tokens_per_frame=tokens_per_frame,
        storage=StorageChoice(*(cast(Storage, choice) for choice in (image, text, words, matcher_storage))),
    )
    torch.set_num_threads(threads)
    config, model = load_checkpoints(checkpoints)
    provenance = make_provenance(
        config,
        [data_of(read_state(path)) for path in checkpoints],
        get_family(config.family).sources(config.model),
        match_similarity=match_similarity,
        metrics=measured,
        data_licences=data_licence or (),
        data_sources=data_source or (),
    )
    manifest = export_bundle(
        output,
        config.family,
        model,
        tokenizer_path(config, checkpoints[0].parent),
        provenance,
        options,
        name=config.name,
        licence=licence,
        description=description,
        report=report,
    )
    for item in manifest.provenance.data:
        report(f"trained on {item.name} (licence: {item.licence}; source: {item.source})")
    total = sum(record.bytes for record in manifest.files.values())
    report(f"{output}: {total / 1e6:.1f} MB, λ = {manifest.ensemble_lambda:g}")

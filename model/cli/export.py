"""`reelfind-model export`: writes a bundle from checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import torch
import typer
from pydantic import ValidationError

from model.cli.terminal import report
from model.data.record import data_of
from model.data.references import NUM_REFERENCES
from model.data.references import reference_texts as choose_references
from model.evaluation.measure import UNFITTED
from model.export.bundle import ExportOptions, StorageChoice, export_bundle
from model.export.frame_bundles import FrameBundle, check_features
from model.export.provenance import NOT_STATED, make_provenance
from model.export.references import ReferenceTexts
from model.export.storage import Storage
from model.families import get_family
from model.families.base import FeatureFamily, InferenceOptions
from model.runtime.bundle import Bundle
from model.runtime.bundle.manifest import SalienceMatch
from model.runtime.bundle.references import NEIGHBOURS
from model.runtime.errors import InputError
from model.training.checkpoints import load_checkpoints, read_state, tokenizer_path


def _read_metrics(path: Path | None) -> dict[str, Any]:
    """The JSON of an evaluation, without the list of the λ that were tried."""
    if path is None:
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no metrics ({error}): write it with evaluate --output") from error
    if not isinstance(metrics, dict):
        raise InputError(f"{path} holds no metrics: write it with evaluate --output")
    if isinstance(metrics.get("tuned"), dict):
        metrics["tuned"].pop("tried", None)
    return metrics


def _lambda(option: float | None, settings: Mapping[str, Any]) -> float:
    """λ as the option says, or else as tuned or measured, or else 1."""
    value = settings.get("ensemble_lambda") if option is None else option
    lam = 1.0 if value is None else float(value)
    if not (math.isfinite(lam) and lam >= 0):
        raise InputError(f"λ is {lam}: it must be 0 or more")
    return lam


def _salience_match(option: str, settings: Mapping[str, Any], tuned: bool) -> SalienceMatch | None:
    """The match by salience; None: the matcher re-ranks, or nothing.

    It is as `settings` say, or else, of a model that was not tuned, the mean relevance itself (Table 8).
    """
    if option not in ("matcher", "salience", "none"):
        raise InputError(f"--match is {option!r}: choose matcher, salience or none", "match")
    if option != "salience":
        return None
    if "salience_match" not in settings and not tuned:
        return UNFITTED
    try:
        return SalienceMatch.model_validate_json(json.dumps(settings.get("salience_match")))
    except ValidationError as error:
        raise InputError(
            "--match salience needs to know how relevance becomes a match: pass --tuned with a file that "
            "`reelfind-model tune` wrote with `--match salience`"
        ) from error


def export_command(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoints; the weights of several are averaged.")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the bundle; a bundle that is there is replaced.")],
    frame_bundle: Annotated[
        Path | None,
        typer.Option(
            help="For models that read features, such as FEEL: the bundle whose frame encoder made them; its "
            "frame encoder becomes part of the new bundle."
        ),
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(
            help="JSON file written by tune --output: λ, the number of salient frames and the match by "
            "salience, unless options say otherwise."
        ),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="JSON file written by evaluate --output, to be kept in the bundle.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights to export: online or momentum for LGDN. Default: as its settings say."),
    ] = None,
    salience: Annotated[
        str | None,
        typer.Option(
            help="Strategy of SFP: simdot, momentum, crossmom or collaborative. Default: as trained."
        ),
    ] = None,
    ensemble_lambda: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="λ, the weight of the similarity in a score. Default: as in --metrics, or else 1.",
        ),
    ] = None,
    match_similarity: Annotated[
        float | None,
        typer.Option(
            min=0, help="Weight of the similarity within a joint fusion's match. Default: as trained."
        ),
    ] = None,
    num_salient_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a segment that are matched. Default: as trained.")
    ] = None,
    num_candidates: Annotated[
        int, typer.Option(min=1, help="Segments that are re-ranked for a query.")
    ] = 100,
    tokens_per_frame: Annotated[
        int | None,
        typer.Option(
            min=1, help="Merge the tokens that an index keeps of a frame to this number. Default: keep all."
        ),
    ] = None,
    hubness_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10,
            help="Correct hubness: subtract from a segment's similarity this times its mean similarity to "
            "the nearest of some training captions, which the data must still be there for. Default: no "
            "correction.",
        ),
    ] = None,
    reference_texts: Annotated[
        int, typer.Option(min=NEIGHBOURS, help="Training captions that --hubness-weight compares with.")
    ] = NUM_REFERENCES,
    frame_hubness_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10,
            help="With --hubness-weight: subtract from a frame's relevance this times its mean relevance for "
            "the nearest of these captions. Default: as tuned, or no correction.",
        ),
    ] = None,
    match: Annotated[
        str,
        typer.Option(
            help="What re-ranks: matcher, the matching head; salience, the mean relevance of the salient "
            "frames, as tuned or as it is, for which an index keeps no tokens; or none."
        ),
    ] = "matcher",
    image: Annotated[
        str, typer.Option(help="Storage of image weights: float32, float16 or int8.")
    ] = "float16",
    text: Annotated[str, typer.Option(help="Storage of text weights.")] = "int8",
    words: Annotated[str, typer.Option(help="Storage of word embeddings.")] = "int8",
    matcher_storage: Annotated[str, typer.Option(help="Storage of the matcher's weights.")] = "float16",
    description: Annotated[str, typer.Option(help="What the bundle is good for.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the bundle, an SPDX expression.")] = NOT_STATED,
    data_licence: Annotated[
        list[str] | None,
        typer.Option(
            help="Licence of the training data. With several data sets, repeat the option in the order "
            "in which the bundle lists them.",
            show_default=NOT_STATED,
        ),
    ] = None,
    data_source: Annotated[
        list[str] | None,
        typer.Option(
            help="Source of the training data, such as an address or a publication. Repeat it as "
            "--data-licence.",
            show_default=NOT_STATED,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Write a bundle from checkpoints.

    Every ONNX graph is compared with PyTorch first; if one differs, nothing is written. The bundle names the
    data that the checkpoints were trained on by the names of its folders and its counts.
    """
    if not licence.strip():
        raise InputError("the bundle's licence is blank: leave --licence out, or name a licence")
    measured = _read_metrics(metrics)
    chosen = _read_metrics(tuned)
    settings = {**measured.get("settings", {}), **chosen.get("settings", {})}
    if tuned is not None:
        num_salient_frames = num_salient_frames or settings.get("num_salient_frames")
        hubness_weight = settings.get("hubness_weight") if hubness_weight is None else hubness_weight
        if frame_hubness_weight is None:
            frame_hubness_weight = settings.get("frame_hubness_weight")
        measured = {**measured, "tuned": {**chosen.get("tuned", {}), "settings": chosen.get("settings", {})}}
    options = ExportOptions(
        inference=InferenceOptions(weights, salience, match_similarity),
        matcher=match == "matcher",
        salience_match=_salience_match(match, settings, tuned is not None),
        num_salient_frames=num_salient_frames,
        num_candidates=num_candidates,
        ensemble_lambda=_lambda(ensemble_lambda, settings),
        tokens_per_frame=tokens_per_frame,
        storage=StorageChoice(*(cast(Storage, choice) for choice in (image, text, words, matcher_storage))),
    )
    torch.set_num_threads(threads)
    config, model = load_checkpoints(checkpoints)
    if hubness_weight is not None:
        texts = choose_references(config, reference_texts, report)
        options = replace(
            options,
            hubness=ReferenceTexts(hubness_weight, texts),
            frame_hubness=frame_hubness_weight or 0.0,
        )
    if frame_bundle is not None:
        opened = Bundle.open(frame_bundle, threads=threads)
        if config.data.has_features:
            check_features(config.data.features, opened, report)
        family = get_family(config.family)
        moments = isinstance(family, FeatureFamily) and family.finds_moments(config.loss)
        options = replace(options, frames=FrameBundle(opened, config.data.every_seconds, moments))
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

"""What the subcommands of `reelfind-model evaluate` share: open a model, measure it, write the result."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import typer

from model.arrays import Array
from model.cli.terminal import report
from model.config import config_from_mapping
from model.data.references import NUM_REFERENCES, reference_texts
from model.data.sources import Source
from model.evaluation.corpus import Texts, encode_all_texts
from model.evaluation.encoders import bundle_encoder
from model.evaluation.evaluate import evaluate_source, tune
from model.evaluation.frame_hubness import FrameHubnessEncoder
from model.evaluation.measure import Options, settings_of
from model.evaluation.spliced import SplicedFilms
from model.evaluation.tables import metrics_table
from model.families import get_family
from model.families.base import FeatureFamily, InferenceOptions, PictureFamily
from model.families.encoder import Encoder, FeatureEncoder
from model.runtime.bundle import Bundle, HubnessCorrection
from model.runtime.bundle.references import NEIGHBOURS
from model.runtime.errors import InputError
from model.runtime.files import replace_text
from model.runtime.preprocessing import TextTokenizer
from model.training.checkpoints import load_checkpoints, read_state, tokenizer_path


def open_model(
    models: list[Path], weights: str | None, salience: str | None, threads: int, device: str = "cpu"
) -> Encoder:
    """Open a bundle's folder, or checkpoints, whose weights are averaged.

    Raises:
        InputError: there is no such model or device, or `salience` is not the bundle's strategy.
        BundleError: the bundle cannot be opened.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}: choose cpu or cuda", "device")
    if len(models) == 1 and models[0].is_dir():
        bundle = Bundle.open(models[0], threads=threads, provider=cast(Literal["cpu", "cuda"], device))
        strategy = bundle.manifest.salience_strategy
        if salience not in (None, strategy):
            raise InputError(
                f"{models[0]} was exported with the salience {strategy}: evaluate a checkpoint instead"
            )
        return bundle_encoder(bundle)
    torch.set_num_threads(threads)
    config, model = load_checkpoints(models)
    check_device(device)
    path = tokenizer_path(config, models[0].parent)
    tokenizer = TextTokenizer.from_file(path, config.model.context_length)
    family = get_family(config.family)
    if not isinstance(family, PictureFamily):
        raise InputError(
            f"family={config.family} reads features of videos, not pictures: use `reelfind-model evaluate "
            "features`"
        )
    return family.encoder(model.to(device), tokenizer, InferenceOptions(weights, salience))


def open_feature_model(
    checkpoints: list[Path], threads: int, device: str = "cpu"
) -> tuple[FeatureEncoder, bool]:
    """Open checkpoints of a family that reads features; their weights are averaged.

    Returns:
        the model, and whether it learned to find moments.

    Raises:
        InputError: there is no such checkpoint or device, or the model reads pictures.
    """
    torch.set_num_threads(threads)
    config, model = load_checkpoints(checkpoints)
    family = get_family(config.family)
    if not isinstance(family, FeatureFamily):
        raise InputError(
            f"family={config.family} reads pictures, not features: use `reelfind-model evaluate dataset`"
        )
    if not family.asks(config.loss):
        raise InputError(
            f"{checkpoints[0]} has not learned from queries yet: fine-tune it with loss.task=finetuning and "
            f"train.start_from={checkpoints[0]}"
        )
    check_device(device)
    path = tokenizer_path(config, checkpoints[0].parent)
    tokenizer = TextTokenizer.from_file(path, config.model.context_length)
    return family.encoder(model.to(device), tokenizer), family.finds_moments(config.loss)


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        InputError: PyTorch does not find it, or has no such kind.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"device is {device!r}: choose cpu or cuda", "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("PyTorch finds no GPU: leave --device out")


def with_hubness(options: Options, encoder: Encoder, models: list[Path], weight: float | None) -> Options:
    """The options with another weight of the hubness correction; `weight` None: as the model says.

    A bundle brings its reference texts; those of a checkpoint are chosen anew from its training captions.

    Raises:
        InputError: the bundle has no reference texts, or the checkpoint's training data is not there.
    """
    if weight is None:
        return options
    correction = encoder.profile.hubness
    if correction is None and weight == 0:
        return options
    if correction is None and models[0].is_dir():
        raise InputError(
            f"hubness_weight is {weight:g}, but {models[0]} has no reference texts: export it again with "
            f"`--hubness-weight {weight:g}` of `reelfind-model export`",
            "hubness_weight",
        )
    if correction is None:
        correction = _correction(weight, _references(encoder, models).embedding)
    return replace(options, hubness=replace(correction, weight=weight))


def with_frame_hubness(
    options: Options, encoder: Encoder, models: list[Path], weight: float | None, frame_weight: float
) -> tuple[Options, Encoder]:
    """As `with_hubness`, and the encoder with the correction of frames, from the same reference texts.

    Raises:
        InputError: as `with_hubness`; or the model is a bundle, whose frames are as exported, or segments are
            not corrected too.
    """
    if not frame_weight:
        return with_hubness(options, encoder, models, weight), encoder
    if models[0].is_dir() or not weight:
        reason = "a bundle's frames are as exported" if models[0].is_dir() else "set hubness_weight too"
        raise InputError(f"frame_hubness_weight is {frame_weight:g}: {reason}", "frame_hubness_weight")
    references = _references(encoder, models)
    options = replace(options, hubness=_correction(weight, references.embedding))
    return options, FrameHubnessEncoder(encoder, _correction(frame_weight, references.salience))


def _references(encoder: Encoder, models: list[Path]) -> Texts:
    """The reference texts of a checkpoint, chosen from its training captions and encoded."""
    config = config_from_mapping(read_state(models[0])["config"])
    texts = reference_texts(config, NUM_REFERENCES, report)
    return encode_all_texts(encoder, texts, report=report)


def _correction(weight: float, references: Array) -> HubnessCorrection:
    return HubnessCorrection(weight, min(NEIGHBOURS, len(references)), references)


def measure_sources(
    encoder: Encoder,
    kind: str,
    open_split: Callable[[str], Source | SplicedFilms],
    split: str,
    tune_on: str,
    options: Options,
) -> dict[str, Any]:
    """Measure one split, with λ chosen on another split if `tune_on` names one.

    Args:
        encoder: the model.
        kind: the key of the result: photos, films or datasets.
        open_split: opens a split by its name.
        split: the split to measure.
        tune_on: the split to choose λ on; empty: λ is not tuned.
        options: how to measure.

    Returns:
        `settings`, `tuned` if λ was, and the metrics under `kind`.

    Raises:
        InputError: as `open_split`, or there is no λ to tune.
    """
    result: dict[str, Any] = {"settings": settings_of(encoder, options)}
    if tune_on:
        tuned = tune(encoder, open_split(tune_on), options, report)
        report(f"λ = {tuned['ensemble_lambda']:g}, by R@1 on {tune_on}")
        options = replace(options, ensemble_lambda=tuned["ensemble_lambda"])
        result = {"settings": settings_of(encoder, options), "tuned": {"split": tune_on, **tuned}}
    source = open_split(split)
    result[kind] = {source.name: evaluate_source(encoder, source, options, report)}
    return result


def write_result(result: Mapping[str, Any], output: Path | None, as_json: bool) -> None:
    """Print the result as a table or as JSON, and write it as JSON to `output`, if that names a file."""
    show_result(result, metrics_table(result), output, as_json)


def show_result(result: Mapping[str, Any], table: str, output: Path | None, as_json: bool) -> None:
    """As `write_result`, with the table as it is to be printed."""
    text = json.dumps(result, indent=2, ensure_ascii=False)
    if output is not None:
        replace_text(output, text + "\n")
    typer.echo(text if as_json else table)


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value

"""Settings of a training run: frozen dataclasses ← a YAML recipe ← `key=value` words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml


@dataclass(frozen=True)
class ModelConfig:
    """What is built. A checkpoint carries it, so that export and evaluation rebuild the same model."""

    backbone: str = "lite2"
    text: str = "minilm"
    dim: int = 256
    frames: int = 16
    image_size: int = 224
    context_length: int = 64
    #: stages of the backbone (0 to 7) that stay as published; their outputs are computed once and cached
    frozen_stages: int = 4
    #: classes of the backbone's published classifier, whose names become part of a frame's embedding; 0: none
    classes: int = 1000
    dropout: float = 0.1
    bank_size: int = 4096
    momentum: float = 0.99
    temperature: float = 0.07
    learn_temperature: bool = False


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    #: folder with captions.csv and images/; no default: it is never part of the project
    path: str = ""
    #: where cached outputs of the frozen stages go; empty: beside the checkpoints
    cache: str = ""
    views: int = 8
    #: share of the photos shown as several views, so that the temporal layer sees several frames
    multi_view: float = 0.15
    max_views: int = 4


@dataclass(frozen=True)
class LossConfig:
    """What is minimised."""

    #: the current batch's momentum embeddings as further negatives: ALBEF's variant, not the paper's
    batch_negatives: bool = False
    #: how strongly the backbone keeps telling the classes it was published with
    retention_weight: float = 0.5


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained."""

    seed: int = 0
    epochs: int = 15
    batch_size: int = 96
    lr_image: float = 3e-4
    lr_text: float = 5e-5
    lr_head: float = 5e-4
    weight_decay: float = 0.02
    warmup: float = 0.05
    #: the cosine ends at this share of the peak
    final_lr: float = 0.1
    clip: float = 5.0
    #: closed-form start of the projections (canonical correlation of the published features)
    closed_form_start: bool = True
    #: weight of the class names' part of an embedding at that start, beside 1 for the projection
    class_share: float = 0.5
    bfloat16: bool = True
    threads: int = 2
    log_every: int = 20
    #: seconds between checkpoints; one is also written after every epoch
    checkpoint_seconds: float = 300.0
    evaluate: bool = True


@dataclass(frozen=True)
class Config:
    """Everything a run needs; saved with its checkpoints."""

    name: str = "mini"
    output: str = "runs/mini"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        m, t, d = self.model, self.train, self.data
        checks = (
            (
                m.bank_size >= t.batch_size,
                f"model.bank_size={m.bank_size} must hold train.batch_size={t.batch_size}",
            ),
            (0.0 <= m.momentum < 1.0, f"model.momentum={m.momentum} must be in [0, 1)"),
            (m.temperature > 0, f"model.temperature={m.temperature} must be positive"),
            (0 <= m.frozen_stages <= 6, f"model.frozen_stages={m.frozen_stages} must be 0 to 6"),
            (t.epochs > 0 and t.batch_size > 0, "train.epochs and train.batch_size must be positive"),
            (
                1 <= d.max_views <= m.frames,
                f"data.max_views={d.max_views} must be 1 to model.frames={m.frames}",
            ),
            (d.views >= 1, f"data.views={d.views} must be positive"),
        )
        for good, message in checks:
            if not good:
                raise ValueError(message)


def _convert(value: Any, kind: type, key: str) -> Any:
    """A YAML scalar as the field's type; YAML reads 1e-4 as text, so numbers may come as strings."""
    if isinstance(value, Mapping | list) or value is None:
        raise ValueError(f"{key}={value!r} must be one value")
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{key}={value!r} must be true or false")
    if kind in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float | str)):
        raise ValueError(f"{key}={value!r} must be a number")
    try:
        return kind(value) if kind is not int or not isinstance(value, float) else int(str(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key}={value!r} must be of type {kind.__name__}") from error


def from_mapping(kind: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    """Fill a config dataclass.

    Raises:
        ValueError: for an unknown key, with the known ones, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    filled: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            raise ValueError(
                f"unknown setting {prefix}{key}: known are {', '.join(prefix + n for n in names)}"
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{prefix}{key}={value!r} must be a group of settings")
            filled[key] = from_mapping(hints[key], value, f"{prefix}{key}.")  # type: ignore[arg-type]
        else:
            filled[key] = _convert(value, hints[key], prefix + key)
    return kind(**filled)


def load_config(recipe: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a recipe, then apply words such as `train.epochs=2`; `data=DIR` is short for `data.path=DIR`.

    Raises:
        ValueError: for a missing recipe, an unknown key or a bad value.
    """
    if not recipe.is_file():
        raise ValueError(f"no recipe {recipe}: name a YAML file such as model/recipes/mini.yaml")
    values: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{recipe} must hold settings, not {type(values).__name__}")
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is not key=value, for example train.epochs=2")
        path = (f"{key}.path" if key == "data" else key).split(".")
        group = values
        for part in path[:-1]:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise ValueError(f"unknown setting {key}: {part} is not a group")
        group[path[-1]] = yaml.safe_load(text) if text else ""
    return from_mapping(Config, values)


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`, for checkpoints and bundles."""
    return dataclasses.asdict(config)


def essentials(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `to_mapping` gives, without what decides no result: places, threads, how often to write."""
    data = {k: v for k, v in config["data"].items() if k not in ("path", "cache")}
    skipped = ("threads", "log_every", "checkpoint_seconds", "evaluate")
    rates = {k: v for k, v in config["train"].items() if k not in skipped}
    return {"model": config["model"], "data": data, "loss": config["loss"], "train": rates}

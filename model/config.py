"""Settings of a training run: frozen dataclasses ← a YAML recipe ← `key=value` words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import yaml

#: settings that take one of a few words
CHOICES: dict[str, tuple[str, ...]] = {
    "model.backbone": ("lite0", "lite1", "lite2", "tiny", "vit"),
    "model.text": ("minilm", "bert", "tiny"),
    "model.text_pooling": ("mean", "cls"),
    "model.salience_strategy": ("simdot", "momentum", "crossmom", "collaborative"),
    "model.fusion": ("joint", "cross_attention"),
    "data.kind": ("photos", "msrvtt", "msvd", "didemo", "vatex", "image_text"),
    "data.msrvtt": ("full", "7k", "1ka"),
    "train.device": ("auto", "cpu", "cuda"),
    "train.precision": ("float32", "bfloat16", "float16"),
}


@dataclass(frozen=True)
class ModelConfig:
    """What is built. A checkpoint carries it, so that export and evaluation rebuild the same model."""

    backbone: str = "lite2"
    #: Hugging Face name or folder of a ViT; the other backbones come as packages
    backbone_weights: str = ""
    #: sizes of the ViT in words, "hidden=768,layers=12"; empty: as its weights' config.json says
    backbone_shape: str = ""
    text: str = "minilm"
    #: Hugging Face name or folder of a BERT; MiniLM comes as a package
    text_weights: str = ""
    #: sizes of the BERT in words; empty: as its weights' config.json says
    text_shape: str = ""
    #: what represents a text: the mean of its tokens, or the token [CLS]
    text_pooling: str = "mean"
    dim: int = 256
    frames: int = 16
    image_size: int = 224
    context_length: int = 64
    #: stages of the backbone (0 to 7) that stay as published; their outputs are computed once and cached
    frozen_stages: int = 4
    #: classes of the backbone's published classifier, whose names become part of a frame's embedding; 0: none
    classes: int = 1000
    dropout: float = 0.1
    #: compute activations again in the backward pass: less memory, a third more time
    gradient_checkpointing: bool = False
    bank_size: int = 4096
    momentum: float = 0.99
    temperature: float = 0.07
    learn_temperature: bool = False
    #: how frames are scored against a text, Table 1
    salience_strategy: str = "collaborative"
    num_salient_frames: int = 2
    #: joint: compares tokens of the joint space; cross_attention: ALBEF's, BERT layers that read the frame
    fusion: str = "joint"
    fusion_layers: int = 2
    #: joint: width of its layers
    fusion_dim: int = 256
    #: joint: the similarity of the whole text and the whole frame is a term of the match too; without it the
    #: match and the similarity are as separate as in the paper
    fusion_similarity: bool = True
    #: cross_attention: width of the frame tokens it reads; 0: the backbone's own
    token_dim: int = 0
    #: that many top layers of the text encoder leave it and become the start of fusion; 0: a fresh start
    fusion_from_text: int = 0


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    #: photos with captions, a video data set by name, or pairs of images and texts
    kind: str = "photos"
    #: photos: folder with captions.csv and images/; no default: it is never part of the project
    path: str = ""
    #: photos: train on this many of them; 0: on all
    limit: int = 0
    #: video data sets: the official annotation file, or the folder of those files
    annotations: str = ""
    #: video data sets: folder of the video files
    videos: str = ""
    #: which of MSR-VTT's splits
    msrvtt: str = "1ka"
    #: leave out videos whose files are missing, and say which; false: they are an error
    allow_missing: bool = False
    #: that many training videos are kept out to validate on, for sets without such a split; 0: none
    validation: int = 0
    #: folder of decoded frames, made by the first epoch; empty: decode again in every epoch
    frame_cache: str = ""
    #: threads that decode videos ahead of training
    workers: int = 2
    #: where cached outputs of the frozen stages go; empty: beside the checkpoints
    cache: str = ""
    views: int = 8
    #: share of the photos shown as several views, so that the temporal layer sees several frames
    multi_view: float = 0.15
    max_views: int = 4
    #: share of a batch's videos that are films: a photo's views spliced between unrelated frames
    film_share: float = 0.0
    #: most frames of a film
    film_frames: int = 16
    #: photos that a batch encodes only as unrelated frames, shared by its films
    noise_pool: int = 32
    #: share of a film's unrelated frames that are cross-fades, fades to black or blank
    transitions: float = 0.2


@dataclass(frozen=True)
class LossConfig:
    """What is minimised: eq. 10 and its parts' weights, 0 for off."""

    mvcl: float = 1.0
    mfcl: float = 1.0
    lsfm: float = 1.0
    #: eq. 6 and 7 over the set of positive frames; false: each frame a positive of its own
    msl: bool = True
    #: train on the salient frames that SFP proposes; false: on all frames
    sfp: bool = True
    #: epochs at the start without SFP
    warmup_epochs: int = 1
    #: unmatched pairs of LSFM drawn by similarity; false: at random
    hard_negatives: bool = True
    #: the current batch's momentum embeddings as further negatives: ALBEF's variant, not the paper's
    batch_negatives: bool = False
    #: how strongly the backbone keeps telling the classes it was published with
    retention_weight: float = 0.5


@dataclass(frozen=True)
class TrainConfig:
    """How it is trained."""

    seed: int = 0
    epochs: int = 15
    #: pairs of a batch over all processes; an optimiser step sees `accumulate` such batches
    batch_size: int = 96
    accumulate: int = 1
    #: data-parallel processes, on as many GPUs where there are GPUs
    processes: int = 1
    device: str = "auto"
    precision: str = "bfloat16"
    lr_image: float = 3e-4
    lr_text: float = 5e-5
    lr_head: float = 5e-4
    weight_decay: float = 0.02
    warmup: float = 0.05
    #: the cosine ends at this share of the peak
    final_lr: float = 0.1
    clip: float = 5.0
    #: a checkpoint to start from, such as one of image-text pre-training; empty: the published weights
    start_from: str = ""
    #: closed-form start of the projections (canonical correlation of the published features)
    closed_form_start: bool = True
    #: weight of the class names' part of an embedding at that start, beside 1 for the projection
    class_share: float = 0.5
    threads: int = 2
    log_every: int = 20
    #: write TensorBoard events beside log.jsonl, where the package tensorboard is installed
    tensorboard: bool = True
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
        for key, words in CHOICES.items():
            group, name = key.split(".")
            value = getattr(getattr(self, group), name)
            if value not in words:
                raise ValueError(f"{key}={value!r} is not known: use one of {', '.join(words)}")
        for good, message in self._rules():
            if not good:
                raise ValueError(message)

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """What must hold, and what to say where it does not."""
        m, d, w, t = self.model, self.data, self.loss, self.train
        yield (
            m.bank_size >= t.batch_size,
            f"model.bank_size={m.bank_size} must hold train.batch_size={t.batch_size}",
        )
        yield 0.0 <= m.momentum < 1.0, f"model.momentum={m.momentum} must be in [0, 1)"
        yield m.temperature > 0, f"model.temperature={m.temperature} must be positive"
        yield 0 <= m.frozen_stages <= 7, f"model.frozen_stages={m.frozen_stages} must be 0 to 7"
        yield 0.0 <= m.dropout < 1.0, f"model.dropout={m.dropout} must be in [0, 1)"
        for name in ("dim", "frames", "image_size", "context_length", "fusion_layers", "fusion_dim"):
            yield getattr(m, name) >= 1, f"model.{name}={getattr(m, name)} must be positive"
        for name in ("token_dim", "classes", "fusion_from_text"):
            yield getattr(m, name) >= 0, f"model.{name}={getattr(m, name)} must be 0 or more"
        yield (
            1 <= m.num_salient_frames <= m.frames,
            f"model.num_salient_frames={m.num_salient_frames} must be 1 to model.frames={m.frames}",
        )
        for name in ("mvcl", "mfcl", "lsfm", "retention_weight"):
            yield getattr(w, name) >= 0, f"loss.{name}={getattr(w, name)} must be 0 (off) or more"
        yield w.mvcl + w.mfcl + w.lsfm > 0, "loss.mvcl, loss.mfcl and loss.lsfm are all off: nothing to learn"
        yield w.warmup_epochs >= 0, f"loss.warmup_epochs={w.warmup_epochs} must be 0 or more"
        yield t.epochs > 0 and t.batch_size > 0, "train.epochs and train.batch_size must be positive"
        for name in ("accumulate", "processes", "threads", "log_every"):
            yield getattr(t, name) >= 1, f"train.{name}={getattr(t, name)} must be positive"
        yield (
            t.batch_size % t.processes == 0,
            f"train.batch_size={t.batch_size} must be a multiple of train.processes={t.processes}",
        )
        yield (
            not (t.precision == "float16" and t.device == "cpu"),
            "train.precision=float16 needs a GPU: use bfloat16 or float32 on a CPU",
        )
        yield (
            1 <= d.max_views <= m.frames,
            f"data.max_views={d.max_views} must be 1 to model.frames={m.frames}",
        )
        yield d.views >= 1, f"data.views={d.views} must be positive"
        for name in ("workers", "validation"):
            yield getattr(d, name) >= 0, f"data.{name}={getattr(d, name)} must be 0 or more"
        for name in ("multi_view", "film_share", "transitions"):
            yield 0.0 <= getattr(d, name) <= 1.0, f"data.{name}={getattr(d, name)} must be in [0, 1]"
        if d.film_share > 0:
            yield (
                2 <= d.film_frames <= m.frames,
                f"data.film_frames={d.film_frames} must be 2 to model.frames={m.frames}",
            )
            yield d.noise_pool >= 2, f"data.noise_pool={d.noise_pool} must be 2 or more for films"


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
            filled[key] = from_mapping(hints[key], value, f"{prefix}{key}.")
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
    try:
        values: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{recipe} cannot be read as YAML: {error}") from error
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
        try:
            group[path[-1]] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise ValueError(f"{word!r}: the value cannot be read as YAML: {error}") from error
    config: Config = from_mapping(Config, values)
    return config


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`, for checkpoints and bundles."""
    return dataclasses.asdict(config)


def essentials(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `to_mapping` gives, without what decides no result: places, machines, how often to write."""
    places = ("path", "cache", "annotations", "videos", "frame_cache", "workers")
    data = {k: v for k, v in config["data"].items() if k not in places}
    skipped = ("threads", "log_every", "checkpoint_seconds", "evaluate", "device", "processes", "tensorboard")
    rates = {k: v for k, v in config["train"].items() if k not in (*skipped, "start_from")}
    model = {k: v for k, v in config["model"].items() if k not in ("backbone_weights", "text_weights")}
    return {"model": model, "data": data, "loss": config["loss"], "train": rates}

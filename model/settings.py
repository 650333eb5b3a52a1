"""Settings that every family of models shares (data and training), and what all groups of settings need.

A group of settings is a frozen dataclass that checks its own rules when it is made; its errors name settings
as a recipe writes them, such as `train.epochs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_type_hints

from model.runtime.errors import InputError


class NetworkConfig(Protocol):
    """The settings of a network that data and evaluation read, in every family."""

    @property
    def frames(self) -> int:
        """N: frame slots of a segment."""

    @property
    def image_size(self) -> int:
        """Side of a frame in pixels."""

    @property
    def context_length(self) -> int:
        """Tokens of the longest text."""


class RunSettings(Protocol):
    """The part of `model.config.Config` that data reads."""

    @property
    def model(self) -> NetworkConfig:
        """The network's settings."""

    @property
    def data(self) -> DataConfig:
        """The data to train on."""

    @property
    def train(self) -> TrainConfig:
        """How the model is trained."""


#: What a family learns from: pictures with captions, pictures with questions and answers, or features of
#: videos with timed text.
Material = Literal["captions", "questions", "features"]

_STILLS = ("photos", "questions")
_QA_SETS = ("msrvtt_qa", "msvd_qa")
_FEATURE_SETS = ("clips", "tvr", "how2r", "didemo_moments", "msrvtt_asr")


@dataclass(frozen=True)
class DataConfig:
    """The data to train on."""

    #: photos or frames of videos with captions, the same with questions, a video data set by name, pairs of
    #: images and texts, or features of videos with timed text: clips to pre-train on, or a set of moments
    kind: str = "photos"
    #: photos, questions: folder with captions.csv and images/, and with frames.csv if these are frames of
    #: videos; there is no default, the project ships no photos
    path: str = ""
    #: photos: a second folder of the same kinds, trained on together with the first; empty: none
    second: str = ""
    #: photos: share of each batch that comes from the second folder
    second_share: float = 0.5
    #: photos: train on the first so many items of the first folder; queries: on so many videos; 0: on all
    limit: int = 0
    #: video data sets: the official annotation file, or the folder of those files; questions: the folder that
    #: `reelfind-model questions` writes
    annotations: str = ""
    #: questions: train on those with the so many commonest answers
    num_answers: int = 1500
    #: feature sets: folders of .npz or .npy files, HDF5 files or LMDB folders, joined on the feature axis
    features: tuple[str, ...] = ()
    #: feature sets: folder of subtitle files, TVR's subtitles or HowTo100M's transcripts; empty: no text
    subtitles: str = ""
    #: feature sets: seconds that one vector stands for
    every_seconds: float = 1.5
    #: feature sets: most vectors of an item
    max_vectors: int = 100
    #: what becomes of videos with more: `cut` keeps the first ones, `pool` averages neighbours
    long_videos: str = "cut"
    #: clips: the longest and the shortest clip in seconds
    clip_seconds: float = 60.0
    min_clip_seconds: float = 5.0
    #: video data sets: folder of the video files
    videos: str = ""
    #: which of MSR-VTT's splits
    msrvtt: str = "1ka"
    #: leave out videos whose files are missing, and report them; false: missing files are an error
    allow_missing: bool = False
    #: training videos that are held out, and validated on after every epoch, for sets without a validation
    #: split; 0: none
    validation: int = 0
    #: folder that keeps decoded frames, filled by the first epoch; empty: decode again in every epoch
    frame_cache: str = ""
    #: video data sets: change the frames of a clip at random, all in the same way: crop, colour, blur, and
    #: mirrored where no caption speaks of left or right
    augment: bool = False
    #: threads that decode videos ahead of training
    workers: int = 2
    #: folder that caches the outputs of frozen stages; empty: `cache` in the run's folder
    cache: str = ""
    #: views of each image that are cached: the image itself and augmented ones
    views: int = 8
    #: share of the items shown in several views, so that the temporal layer sees several frames
    multi_view: float = 0.15
    #: most images of an item, and views of them, in one video
    max_views: int = 4
    #: share of a batch's videos that are films: an item's images spliced between unrelated frames
    film_share: float = 0.0
    #: most frames of a film
    film_frames: int = 16
    #: photos: another image encoder's embeddings of the training images, as `reelfind-model teacher` writes
    #: them, for losses that learn from it; empty: none
    teacher: str = ""
    #: photos: a folder of images without captions, which learn from `data.teacher` alone; empty: none
    uncaptioned: str = ""
    #: images without captions in a batch, which serve as unrelated frames of its films
    uncaptioned_pool: int = 24
    #: photos: share of the captions that get an opening such as "the video shows"
    opening_share: float = 0.0
    #: photos: share of the captions that lose their full stop at the end, or get one
    stop_share: float = 0.0
    #: images of a batch that serve only as unrelated frames; all its films share them
    noise_pool: int = 32
    #: share of a film's unrelated frames that are cross-fades, fades to black or blank
    transitions: float = 0.2

    @property
    def has_stills(self) -> bool:
        """Whether the data are photos or frames of videos, with captions or questions."""
        return self.kind in _STILLS

    @property
    def has_features(self) -> bool:
        """Whether the data are features of videos with timed text, not pictures."""
        return self.kind in _FEATURE_SETS

    @property
    def asks(self) -> bool:
        """Whether the texts are questions with answers, not captions."""
        return self.kind in ("questions", *_QA_SETS)

    @property
    def material(self) -> Material:
        """What the data are."""
        if self.has_features:
            return "features"
        return "questions" if self.asks else "captions"

    def __post_init__(self) -> None:
        check_choices(
            "data",
            self,
            {
                "kind": (
                    *_STILLS,
                    *("msrvtt", "msvd", "didemo", "vatex", "image_text"),
                    *_QA_SETS,
                    *_FEATURE_SETS,
                ),
                "long_videos": ("cut", "pool"),
                "msrvtt": ("full", "7k", "1ka"),
            },
        )
        check_rules(self._rules())

    def _rules(self) -> Iterator[tuple[bool, str]]:
        for name in ("views", "num_answers", "max_vectors"):
            yield getattr(self, name) >= 1, f"data.{name}={getattr(self, name)} must be positive"
        for name in ("workers", "validation"):
            yield getattr(self, name) >= 0, f"data.{name}={getattr(self, name)} must be 0 or more"
        yield (
            not (self.validation and self.has_stills),
            f"data.validation={self.validation} is for video data sets: captions.csv names the split val",
        )
        for name in (
            "multi_view",
            "film_share",
            "transitions",
            "second_share",
            "opening_share",
            "stop_share",
        ):
            yield 0.0 <= getattr(self, name) <= 1.0, f"data.{name}={getattr(self, name)} must be in [0, 1]"
        is_taught = bool(self.teacher and self.film_share > 0 and self.uncaptioned_pool > 0)
        needs = f"films (data.film_share) and data.uncaptioned_pool, which is {self.uncaptioned_pool}"
        yield (
            is_taught or not self.uncaptioned,
            f"data.uncaptioned={self.uncaptioned} needs data.teacher, {needs}",
        )
        yield from self._feature_rules()
        if self.film_share > 0:
            yield self.noise_pool >= 2, f"data.noise_pool={self.noise_pool} must be 2 or more for films"

    def _feature_rules(self) -> Iterator[tuple[bool, str]]:
        yield self.every_seconds > 0, f"data.every_seconds={self.every_seconds} must be above 0"
        yield (
            0 <= self.min_clip_seconds <= self.clip_seconds,
            f"data.min_clip_seconds={self.min_clip_seconds} must be in [0, data.clip_seconds]",
        )
        yield (
            self.kind != "clips" or 1 <= self.clip_seconds / self.every_seconds <= self.max_vectors,
            f"data.clip_seconds={self.clip_seconds} must hold 1 to {self.max_vectors} vectors",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    seed: int = 0
    epochs: int = 15
    #: pairs of a batch over all processes; an optimiser step sees `accumulate` such batches
    batch_size: int = 96
    accumulate: int = 1
    #: data-parallel processes of this host, on as many GPUs where there are GPUs; 1 if torchrun starts them
    processes: int = 1
    device: str = "auto"
    precision: str = "bfloat16"
    #: peak learning rates: of published image weights, of published text weights, of new weights
    lr_image: float = 3e-4
    lr_text: float = 5e-5
    lr_head: float = 5e-4
    #: a layer of a published encoder learns at this times the rate of the layer above it; the topmost one has
    #: the rate above; 1: all have it
    layer_decay: float = 1.0
    weight_decay: float = 0.02
    #: share of the steps over which the learning rate rises to its peak
    warmup: float = 0.05
    #: share of the peak at which the cosine of the learning rate ends
    final_lr: float = 0.1
    #: AdamW's decay of the mean of squared gradients
    beta2: float = 0.999
    #: largest norm of the gradient; 0: no limit
    clip: float = 0.0
    #: a checkpoint to start from, such as one of image-text pre-training; empty: the published weights
    start_from: str = ""
    #: start the projections in closed form (canonical correlation of the published features)
    closed_form_start: bool = True
    #: weight of the class names' part of an embedding in that start, relative to the projection
    class_share: float = 0.5
    #: threads of a host, which its processes share
    threads: int = 2
    log_every: int = 20
    #: write TensorBoard events beside log.jsonl, if the package tensorboard is installed
    tensorboard: bool = True
    #: seconds between checkpoints; one is also written after every epoch
    checkpoint_seconds: float = 300.0
    #: validate after every epoch, and keep the best weights as best.pt; `data.validation` does so too
    evaluate: bool = True

    def __post_init__(self) -> None:
        check_choices(
            "train",
            self,
            {"device": ("auto", "cpu", "cuda"), "precision": ("float32", "bfloat16", "float16")},
        )
        check_rules(self._rules())

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield self.epochs > 0 and self.batch_size > 0, "train.epochs and train.batch_size must be positive"
        yield 0.0 <= self.beta2 < 1.0, f"train.beta2={self.beta2} must be in [0, 1)"
        yield (
            0 < self.layer_decay <= 1,
            f"train.layer_decay={self.layer_decay} must be above 0, and at most 1",
        )
        yield self.clip >= 0, f"train.clip={self.clip} must be 0 (no limit) or more"
        for name in ("accumulate", "processes", "threads", "log_every"):
            yield getattr(self, name) >= 1, f"train.{name}={getattr(self, name)} must be positive"
        yield (
            self.batch_size % self.processes == 0,
            f"train.batch_size={self.batch_size} must be a multiple of train.processes={self.processes}",
        )
        yield (
            not (self.precision == "float16" and self.device == "cpu"),
            "train.precision=float16 needs a GPU: use bfloat16 or float32 on a CPU",
        )


def check_choices(group: str, settings: object, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a setting whose value is not one of its choices.

    Raises:
        InputError: names the setting as `group.name`, and its choices.
    """
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise InputError(f"{group}.{name}={value!r} is not known: use one of {', '.join(allowed)}")


def check_rules(rules: Iterable[tuple[bool, str]]) -> None:
    """Refuse settings that break a rule. A rule is a condition, and the message for when it does not hold.

    Raises:
        InputError: the message of the first broken rule.
    """
    for holds, message in rules:
        if not holds:
            raise InputError(message)


def _convert(value: Any, kind: type, key: str) -> Any:
    """Convert a YAML value to the field's type. YAML reads 1e-4 as text, so numbers may come as strings."""
    if kind == tuple[str, ...]:
        if isinstance(value, str):
            value = [value] if value else []
        if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
            raise InputError(f"{key}={value!r} must be a list of texts")
        return tuple(value)
    if isinstance(value, Mapping | list) or value is None:
        raise InputError(f"{key}={value!r} must be one value")
    if kind is bool and not isinstance(value, bool):
        raise InputError(f"{key}={value!r} must be true or false")
    if kind in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float | str)):
        raise InputError(f"{key}={value!r} must be a number")
    try:
        return kind(value) if kind is not int or not isinstance(value, float) else int(str(value))
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}={value!r} must be of type {kind.__name__}") from error


def from_mapping(
    kind: type[Any],
    values: Mapping[str, Any],
    prefix: str = "",
    groups: Mapping[str, type[Any]] | None = None,
) -> Any:
    """Fill a dataclass of settings.

    Args:
        kind: the dataclass.
        values: settings by name, as YAML gives them.
        prefix: put before a setting's name in messages.
        groups: dataclasses of nested groups, by name, for fields whose annotation does not tell.

    Raises:
        InputError: a key is unknown (the message lists the known ones), or a value is invalid.
    """
    hints = get_type_hints(kind) | dict(groups or {})
    names = [f.name for f in dataclasses.fields(kind)]
    filled: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            raise InputError(
                f"unknown setting {prefix}{key}: known are {', '.join(prefix + n for n in names)}"
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise InputError(f"{prefix}{key}={value!r} must be a group of settings")
            filled[key] = from_mapping(hints[key], value, f"{prefix}{key}.")
        else:
            filled[key] = _convert(value, hints[key], prefix + key)
    return kind(**filled)


def to_mapping(settings: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`, for checkpoints and bundles."""
    return dataclasses.asdict(settings)

"""Settings of a training run: read from a YAML recipe, then changed by `key=value` overrides.

The groups `data` and `train` are the same in all families; each family has its own classes of `model` and
`loss`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from model.families import get_family
from model.runtime.errors import InputError
from model.settings import DataConfig, TrainConfig, check_rules, from_mapping

#: the family of settings that name none, such as those of older checkpoints
DEFAULT_FAMILY = "lgdn"


@dataclass(frozen=True)
class Config:
    """Everything a run needs; saved with its checkpoints.

    `model` and `loss` are instances of the family's own classes; None stands for their defaults.
    """

    name: str = "mini"
    output: str = "runs/mini"
    model: Any = None
    data: DataConfig = field(default_factory=DataConfig)
    loss: Any = None
    train: TrainConfig = field(default_factory=TrainConfig)
    family: str = DEFAULT_FAMILY

    def __post_init__(self) -> None:
        family = get_family(self.family)
        for name, kind in (("model", family.network_config), ("loss", family.loss_config)):
            value = getattr(self, name)
            if value is None:
                object.__setattr__(self, name, kind())
            elif not isinstance(value, kind):
                raise InputError(
                    f"{name} holds {type(value).__name__}: family {self.family} takes {kind.__name__}"
                )
        check_rules(self._rules())
        family.check(self.model, self.loss, self.data, self.train)

    @property
    def validates(self) -> bool:
        """Whether training validates after every epoch, and keeps the best weights."""
        return self.train.evaluate or self.data.validation > 0

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """What must hold between the groups, in every family."""
        frames, data = self.model.frames, self.data
        has, wants = data.material, get_family(self.family).learns_from
        yield (
            has == wants,
            f"data.kind={data.kind} has {has}, and family={self.family} learns from {wants}: change one",
        )
        yield (
            1 <= data.max_views <= frames,
            f"data.max_views={data.max_views} must be 1 to model.frames={frames}",
        )
        if data.film_share > 0:
            yield (
                2 <= data.film_frames <= frames,
                f"data.film_frames={data.film_frames} must be 2 to model.frames={frames}",
            )


def config_from_mapping(values: Mapping[str, Any]) -> Config:
    """Settings from YAML or a checkpoint. Without the key `family` they are LGDN's.

    Raises:
        InputError: a family or key is unknown (the message lists the known ones), or a value is invalid.
    """
    family = get_family(values.get("family", DEFAULT_FAMILY))
    groups = {"model": family.network_config, "loss": family.loss_config}
    config: Config = from_mapping(Config, values, groups=groups)
    return config


def load_config(recipe: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a recipe, then apply overrides such as `train.epochs=2`; `data=DIR` is short for `data.path=DIR`.

    Raises:
        InputError: the recipe is missing, a key is unknown, or a value is invalid.
    """
    if not recipe.is_file():
        raise InputError(f"no recipe {recipe}: name a YAML file such as model/recipes/mini.yaml")
    try:
        values: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{recipe} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{recipe} must hold settings, not {type(values).__name__}")
    named: list[str] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"{override!r} is not key=value, for example train.epochs=2")
        named.append(key)
        path = (f"{key}.path" if key == "data" else key).split(".")
        group = values
        for part in path[:-1]:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                raise InputError(f"unknown setting {key}: {part} is not a group")
        try:
            group[path[-1]] = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise InputError(f"{override!r}: the value cannot be read as YAML: {error}") from error
    return config_from_mapping(_completed(values, named))


def _completed(values: dict[str, Any], overridden: Collection[str]) -> dict[str, Any]:
    """A recipe's settings, with those that a published model decides where they name one.

    A model that an override names replaces what the recipe says, and contradicts other overrides alone.
    """
    model = values.get("model")
    if not isinstance(model, dict):
        return values
    prefix = "model."
    own = {key.removeprefix(prefix) for key in overridden if key.startswith(prefix)}
    chosen = own if "start_from" in own else set(model)
    family = get_family(values.get("family", DEFAULT_FAMILY))
    return {**values, "model": family.complete_recipe(model, chosen)}


def essentials(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide a run's result: no paths, no settings of the machine or of the log.

    Args:
        config: what `to_mapping` gives.
    """
    media = ("path", "second", "uncaptioned", "teacher", "annotations", "videos", "features", "subtitles")
    data = {k: v for k, v in config["data"].items() if k not in (*media, "cache", "frame_cache", "workers")}
    skipped = ("threads", "log_every", "checkpoint_seconds", "evaluate", "device", "processes", "tensorboard")
    rates = {k: v for k, v in config["train"].items() if k not in (*skipped, "start_from")}
    family = get_family(config.get("family", DEFAULT_FAMILY))
    model = {k: v for k, v in config["model"].items() if k not in family.places}
    return {"model": model, "data": data, "loss": config["loss"], "train": rates}

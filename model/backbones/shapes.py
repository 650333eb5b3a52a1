"""Sizes of encoders as words in the settings, so that a checkpoint needs no folder of published weights."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_type_hints

from model.runtime.errors import InputError

Shape = TypeVar("Shape", bound=Any)


def to_words(shape: Any) -> str:
    """A frozen dataclass of numbers as "hidden=768,layers=12"."""
    return ",".join(f"{f.name}={getattr(shape, f.name)!r}" for f in dataclasses.fields(shape))


def from_words(kind: type[Shape], words: str, setting: str) -> Shape:
    """The inverse of `to_words`; sizes left out keep their defaults.

    Raises:
        InputError: for an unknown size or a bad number, naming the setting.
    """
    hints = get_type_hints(kind)
    values: dict[str, int | float | bool] = {}
    for word in filter(None, words.replace(" ", "").split(",")):
        name, _, text = word.partition("=")
        if name not in hints:
            raise InputError(f"{setting}: unknown size {name!r}: known are {', '.join(hints)}")
        try:
            values[name] = {"True": True, "False": False}[text] if hints[name] is bool else hints[name](text)
        except (KeyError, ValueError) as error:
            raise InputError(f"{setting}: {word!r} must be {name}=<{hints[name].__name__}>") from error
    shape: Shape = kind(**values)
    return shape


def check_sizes(shape: Any, what: str) -> None:
    """Refuse sizes that no encoder has.

    Raises:
        InputError: a size below 1, or a width that its heads do not divide.
    """
    for field in dataclasses.fields(shape):
        value = getattr(shape, field.name)
        if not isinstance(value, bool) and not value > 0:
            raise InputError(f"{what}: {field.name}={value} must be positive")
    if shape.hidden % shape.heads:
        raise InputError(f"{what}: hidden={shape.hidden} must be a multiple of heads={shape.heads}")

"""Sizes of encoders as text in the settings, so that a checkpoint needs no folder of published weights."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, get_type_hints

from model.runtime.errors import InputError

Shape = TypeVar("Shape", bound=Any)


def format_shape(shape: Any) -> str:
    """A frozen dataclass of numbers as text, such as "hidden=768,layers=12"."""
    return ",".join(f"{f.name}={getattr(shape, f.name)!r}" for f in dataclasses.fields(shape))


def parse_shape(kind: type[Shape], text: str, setting: str) -> Shape:
    """The inverse of `format_shape`; sizes left out keep their defaults.

    Raises:
        InputError: a size is unknown or no number; the message names the setting.
    """
    hints = get_type_hints(kind)
    values: dict[str, int | float | bool] = {}
    for size in filter(None, text.replace(" ", "").split(",")):
        name, _, number = size.partition("=")
        if name not in hints:
            raise InputError(f"{setting}: unknown size {name!r}: known are {', '.join(hints)}")
        try:
            values[name] = (
                {"True": True, "False": False}[number] if hints[name] is bool else hints[name](number)
            )
        except (KeyError, ValueError) as error:
            raise InputError(f"{setting}: {size!r} must be {name}=<{hints[name].__name__}>") from error
    shape: Shape = kind(**values)
    return shape


def check_sizes(shape: Any, what: str) -> None:
    """Refuse sizes that no encoder can have.

    Raises:
        InputError: a size is not positive, or the width is not a multiple of the number of heads.
    """
    for field in dataclasses.fields(shape):
        value = getattr(shape, field.name)
        if not isinstance(value, bool) and not value > 0:
            raise InputError(f"{what}: {field.name}={value} must be positive")
    if shape.hidden % shape.heads:
        raise InputError(f"{what}: hidden={shape.hidden} must be a multiple of heads={shape.heads}")

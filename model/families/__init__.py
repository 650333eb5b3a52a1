"""The families of models, by the names that recipes and checkpoints use."""

from __future__ import annotations

from typing import Any

from model.families.base import ModelFamily
from model.runtime.errors import InputError

_BUILT_IN = ("lgdn",)
_registered: dict[str, ModelFamily[Any, Any, Any]] = {}


def register_family(family: ModelFamily[Any, Any, Any]) -> None:
    """Make a family known by its name.

    Raises:
        InputError: the name is taken by another class.
    """
    known = _registered.get(family.name)
    if family.name in _BUILT_IN or (known is not None and type(known) is not type(family)):
        raise InputError(f"family {family.name!r} is there already: give this one another name")
    _registered[family.name] = family


def get_family(name: str) -> ModelFamily[Any, Any, Any]:
    """The family of that name; a built-in one is imported when it is first asked for.

    Raises:
        InputError: there is none; lists those that are known.
    """
    if name == "lgdn":
        from model.families.lgdn.family import LGDNFamily

        return LGDNFamily()
    if name not in _registered:
        known = ", ".join(sorted((*_BUILT_IN, *_registered)))
        raise InputError(f"family={name!r} is not known: use one of {known}")
    return _registered[name]

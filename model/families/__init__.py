"""The families of models, by the names that recipes and checkpoints use."""

from __future__ import annotations

from model.families.base import Family
from model.runtime.errors import InputError

_BUILT_IN = ("feel", "lgdn", "lgdn_qa")
_registered: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Register a family under its name.

    Raises:
        InputError: another class has that name.
    """
    namesake = _registered.get(family.name)
    if family.name in _BUILT_IN or (namesake is not None and type(namesake) is not type(family)):
        raise InputError(f"a family {family.name!r} exists already: choose another name")
    _registered[family.name] = family


def get_family(name: str) -> Family:
    """The family with this name. Built-in families are imported on first use.

    Raises:
        InputError: there is no such family; the message lists those that exist.
    """
    if name == "lgdn":
        from model.families.lgdn.family import LGDNFamily

        return LGDNFamily()
    if name == "lgdn_qa":
        from model.families.lgdn_qa.family import LGDNAnswersFamily

        return LGDNAnswersFamily()
    if name == "feel":
        from model.families.feel.family import FeelFamily

        return FeelFamily()
    if name not in _registered:
        names = ", ".join(sorted((*_BUILT_IN, *_registered)))
        raise InputError(f"family={name!r} is not known: use one of {names}")
    return _registered[name]

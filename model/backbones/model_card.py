"""What the model card of a published model says: the head of `README.md` beside its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

#: stands for a licence that the card does not name
NO_LICENCE = "not stated"
_HEAD = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def licence_of(folder: Path) -> str:
    """The licence of the model in a folder, as its card names it, or "not stated"."""
    card = _read(folder)
    licence = card.get("license_name") or card.get("license")
    return licence if isinstance(licence, str) and licence.strip() else NO_LICENCE


def languages_of(folder: Path) -> tuple[str, ...]:
    """The languages that its card names, as codes of ISO 639; empty where it names none."""
    named = _read(folder).get("language")
    values = named if isinstance(named, list) else [named]
    return tuple(value for value in values if isinstance(value, str) and _LANGUAGE.fullmatch(value))


def _read(folder: Path) -> Mapping[str, Any]:
    """The head of the card; nothing where there is none, or it cannot be read."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
        head = _HEAD.match(text)
        values = yaml.safe_load(head.group(1)) if head else None
    except (OSError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}

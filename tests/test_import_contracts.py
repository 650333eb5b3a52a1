"""The import contracts in pyproject.toml know every module."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def contracts() -> dict[str, dict[str, list[str]]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["name"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}


def test_every_training_module_is_kept_out_of_serving() -> None:
    """A module that nobody lists is one that serving could import unnoticed."""
    folders = [path.parent for path in (ROOT / "model").glob("*/__init__.py")]
    files = [path for path in (ROOT / "model").glob("*.py") if path.stem != "__init__"]
    modules = {f"model.{path.stem}" for path in [*folders, *files]} - {"model.runtime"}
    listed = contracts()["The runtime knows nothing of training"]["forbidden_modules"]
    assert listed == sorted(modules), "list in pyproject.toml exactly the modules of training, sorted"

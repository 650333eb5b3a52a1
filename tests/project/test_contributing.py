"""The walks and seams in CONTRIBUTING.md name files that exist, and what these define."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
STEPS = re.findall(r"`((?:model|indexer|service)/[\w/]+\.py)`: `(\w+)`(?: and `(\w+)`)?", TEXT)
PLACES = sorted(set(re.findall(r"`((?:model|indexer|service|tests)/[\w/]+(?:\.py|/))`", TEXT)))


@pytest.mark.parametrize("place", PLACES)
def test_places_exist(place: str) -> None:
    assert (ROOT / place).exists()


@pytest.mark.parametrize(("file", "names"), [(file, [n for n in names if n]) for file, *names in STEPS])
def test_steps_name_what_the_file_defines(file: str, names: list[str]) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert set(names) <= defined


def test_there_are_four_walks() -> None:
    assert len(STEPS) >= 20
    assert len(re.findall(r"^1\. ", TEXT, re.MULTILINE)) == 4

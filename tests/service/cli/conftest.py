"""The library that the commands search; no test changes it."""

from __future__ import annotations

import pytest

from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    films = {"red.mp4": [("red", 2.0)], "blue, früher.mp4": [("blue", 2.0)], "green.mp4": [("green", 1.0)]}
    return make_library(tmp_path_factory.mktemp("cli"), films)

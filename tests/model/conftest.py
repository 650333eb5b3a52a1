"""The generated photos and their tokenizer, which no test changes."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with captions.csv and images/; see `make_photos`."""
    pytest.importorskip("torch")
    from tests.support.tiny_photos import make_photos

    return make_photos(tmp_path_factory.mktemp("photos") / "data")


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `tokenizer.json` of their captions."""
    pytest.importorskip("torch")
    from tests.support.tiny_photos import make_tokenizer

    return make_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")

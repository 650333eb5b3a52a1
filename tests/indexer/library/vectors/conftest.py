"""A tiny bundle, and films to index with it."""

from pathlib import Path

import pytest

from model.runtime.bundle import Bundle
from tests.support.toy_bundle import COLOURS, make_toy_bundle
from tests.support.toy_videos import make_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("media")
    return [make_video(folder / f"{colour}.mp4", parts=[(colour, 0.3)]) for colour in COLOURS]

"""Reference images: which are drawn, and what is kept of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.data.stills import read_stills
from model.export.reference_images import encode_reference_images
from model.runtime.bundle import Bundle
from tests.support.tiny_photos import make_photos
from tests.support.toy_bundle import make_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("images") / "toy"))


@pytest.mark.parametrize("count", [1, 7, 24, 500])
def test_each_image_is_a_segment_of_one_frame(bundle: Bundle, tmp_path: Path, count: int) -> None:
    sets = [read_stills(make_photos(tmp_path / name), "train") for name in ("one", "two")]
    found = encode_reference_images(bundle, sets, count, seed=3)
    assert len(found) == min(count, 48)
    size = bundle.manifest.image.size
    naive = []
    for stills in sets:
        for image in range(len(stills.images)):
            embedding = bundle.encode_frames(stills.load(image, size)[None]).embedding
            naive.append(bundle.encode_segments(embedding[None], np.ones((1, 1), np.float32))[0])
    for row in found.images @ found.axes:
        assert np.abs(np.stack(naive) - row).max(axis=1).min() < 1e-4
    again = encode_reference_images(bundle, sets, count, seed=3)
    np.testing.assert_array_equal(again.images, found.images)

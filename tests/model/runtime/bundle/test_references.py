"""Reference embeddings: stored as int8, and how near others are to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.runtime.bundle.references import (
    ReferenceImages,
    nearest_mean,
    read_references,
    references_file,
)


def test_rows_of_any_size_are_stored_with_their_direction(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = (random.normal(size=(50, 24)) * 10.0 ** random.integers(-3, 4, (50, 1))).astype(np.float32)
    path = tmp_path / "references.npy"
    path.write_bytes(references_file(rows))
    assert path.stat().st_size == 128 + rows.size
    found = read_references(path, 24)
    cosines = (found * rows).sum(axis=1) / np.linalg.norm(rows, axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("count", "neighbours"), [(1, 10), (9, 10), (40, 10), (600, 3)])
def test_the_mean_of_the_nearest(count: int, neighbours: int) -> None:
    random = np.random.default_rng(count)
    rows, references = (random.normal(size=(n, 16)).astype(np.float32) for n in (300, count))
    found = nearest_mean(rows, references, neighbours)
    for row in range(0, 300, 37):
        cosines = sorted((float(rows[row] @ other) for other in references), reverse=True)[:neighbours]
        assert found[row] == pytest.approx(sum(cosines) / len(cosines), abs=1e-4)


@pytest.mark.parametrize("most_axes", [6, 40])
def test_images_along_a_few_axes_are_compared_as_the_images_are(tmp_path: Path, most_axes: int) -> None:
    """Embeddings that lie in five axes and a little beside them, and queries anywhere."""
    random = np.random.default_rng(0)
    plane = random.normal(size=(5, 32))
    images = random.normal(size=(200, 5)) @ plane + 0.01 * random.normal(size=(200, 32))
    images = (images / np.linalg.norm(images, axis=1, keepdims=True)).astype(np.float32)
    queries = random.normal(size=(20, 32))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    references = ReferenceImages.of(images, most_axes)
    assert references.axes.shape == (min(most_axes, 32), 32)
    for name, content in references.files().items():
        (tmp_path / name).write_bytes(content)
    expected = nearest_mean(queries, images)
    read = ReferenceImages.read(tmp_path, 32)
    assert len(read) == len(references) == 200
    for found in (references, read):
        np.testing.assert_allclose(found.usual(queries), expected, atol=0.01)


def test_written_again_images_stay_as_they_are(tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(30, 16)).astype(np.float32)
    written = ReferenceImages.of(images, 8).files()
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    assert ReferenceImages.read(tmp_path, 16).files() == written

"""Bundles with reference texts: the hubness that they measure, and which are refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, HubnessCorrection, default_bundle_path
from model.runtime.bundle.manifest import parse_manifest
from model.runtime.errors import BundleError
from tests.model.runtime.bundle.test_damage import change_manifest, replace_file
from tests.support import toy_bundle as toy
from tests.support.command_line import invoke

TEXTS = 40


def unit_vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    return toy.unit(np.random.default_rng(seed).normal(size=(count, toy.DIM)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    correction = HubnessCorrection(0.5, 10, unit_vectors(TEXTS))
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", hubness=correction)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def naive_hubness(
    embeddings: NDArray[np.float32], references: NDArray[np.floating], neighbours: int
) -> list[float]:
    """One segment and one text at a time."""
    found = []
    for segment in embeddings:
        cosines = sorted((float(segment @ text) for text in references.astype(np.float32)), reverse=True)
        found.append(sum(cosines[:neighbours]) / neighbours)
    return found


def test_hubness_is_the_mean_of_the_nearest(folder: Path) -> None:
    bundle = Bundle.open(folder)
    segments = unit_vectors(600, seed=1)
    found = bundle.hubness(segments)
    assert found.dtype == np.float32
    stored = np.load(folder / "reference_texts.npy")
    assert (stored.dtype, stored.shape) == (np.int8, (TEXTS, toy.DIM))
    rows = stored / np.linalg.norm(stored.astype(np.float32), axis=1, keepdims=True)
    np.testing.assert_allclose(found, naive_hubness(segments, rows, 10), atol=1e-6)
    np.testing.assert_allclose(rows, unit_vectors(TEXTS), atol=5e-3)
    single = [float(bundle.hubness(segments[row : row + 1])[0]) for row in range(5)]
    np.testing.assert_allclose(found[:5], single, atol=1e-6)


@pytest.mark.parametrize("neighbours", [1, 3, TEXTS])
def test_any_number_of_neighbours(neighbours: int) -> None:
    references, segments = unit_vectors(TEXTS), unit_vectors(7, seed=2)
    found = HubnessCorrection(1.0, neighbours, references).of(segments)
    np.testing.assert_allclose(found, naive_hubness(segments, references, neighbours), atol=1e-6)


def test_wrong_arguments() -> None:
    correction = HubnessCorrection(1.0, 3, unit_vectors(5))
    with pytest.raises(ValueError, match=r"shape \(8,\): pass \[B, 8\]"):
        correction.of(unit_vectors(1)[0])
    for neighbours in (0, 6):
        with pytest.raises(ValueError, match=rf"neighbours is {neighbours}: it must be 1 to 5"):
            HubnessCorrection(1.0, neighbours, unit_vectors(5))


def test_a_bundle_says_that_it_corrects_hubness(folder: Path) -> None:
    content = json.loads((folder / "bundle.json").read_text())
    assert content["hubness"] == {"weight": 0.5, "neighbours": 10}
    assert invoke("bundle", "verify", folder).exit_code == 0
    assert "weight 0.5, 10 nearest reference texts" in invoke("bundle", "info", folder).stdout


def test_bundles_without_reference_texts_are_as_before(tmp_path: Path) -> None:
    """Not a byte of `bundle.json` differs: versions that know no hubness read it, and its checksum stays."""
    for folder in (default_bundle_path(), toy.make_toy_bundle(tmp_path / "toy")):
        data = (folder / "bundle.json").read_bytes()
        manifest = parse_manifest(data, folder)
        if manifest.hubness is None:
            assert manifest.to_json() == data
            assert b"hubness" not in data
    bundle = Bundle.open(tmp_path / "toy")
    assert bundle.hubness_correction is None
    with pytest.raises(BundleError, match=r"has no reference texts: .*--hubness-weight"):
        bundle.hubness(unit_vectors(1))


def saved(array: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def header(text: str) -> bytes:
    """A file of version 1.0 that has a header and no values."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


GOOD = unit_vectors(TEXTS).astype(np.float16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a NumPy array"),
        (b"PK\x03\x04 an archive", "is not a NumPy array"),
        (saved(GOOD)[:40], "is not a NumPy array"),
        (saved(GOOD, version=(2, 0)), "is not a NumPy array of version 1"),
        (saved(GOOD)[:-2], r"bytes of values for 40 rows"),
        (saved(GOOD) + b"\0\0", r"bytes of values for 40 rows"),
        (saved(GOOD.astype(np.float32)), r"holds float32 \[40, 8\] instead of int8 or float16 \[R, 8\]"),
        (saved(GOOD.astype(">f2")), r"holds >f2"),
        (saved(np.array([{"an": "object"}] * 8)), "holds object"),
        (saved(np.asfortranarray(GOOD)), "holds float16"),
        (saved(GOOD[:, :7]), r"holds float16 \[40, 7\]"),
        (saved(GOOD[0]), r"holds float16 \[8\]"),
        (saved(GOOD[:9]), "neighbours is 10: it must be 1 to 9"),
        (saved(GOOD[:0]), "neighbours is 10: it must be 1 to 0"),
        (saved(GOOD * np.float16(2)), "not of unit length"),
        (saved(np.where(np.arange(8) == 3, np.float16(np.nan), GOOD)), "not of unit length"),
        (saved(np.where(np.arange(8) == 3, np.float16(np.inf), GOOD)), "not of unit length"),
        (saved(np.zeros((TEXTS, 8), np.int8)), "not of unit length"),
        (saved(np.ones((TEXTS, 8), np.uint8)), r"holds uint8 \[40, 8\]"),
        (saved(np.ones((TEXTS, 8), np.int8))[:-1], r"bytes of values for 40 rows"),
        (
            header("{'descr': '<f2', 'fortran_order': False, 'shape': (10**15, 8), }\n"),
            "is not a NumPy array",
        ),
        (
            header("{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000000, 8), }\n"),
            "has 0 bytes of values for 1000000000000000 rows",
        ),
        (header("(" * 9000 + "\n"), "is not a NumPy array"),
        (header("-" * 9000 + "1\n"), "is not a NumPy array"),
        (header("__import__('os').system('true')\n"), "is not a NumPy array"),
    ],
)
def test_a_strangers_reference_texts(copy: Path, data: bytes, message: str) -> None:
    replace_file(copy, "reference_texts.npy", data)
    with pytest.raises(BundleError, match=rf"{message}.*again"):
        Bundle.open(copy, trial=False)


def test_reference_texts_of_bundles_of_before_are_read(copy: Path) -> None:
    replace_file(copy, "reference_texts.npy", saved(GOOD))
    correction = Bundle.open(copy, trial=False).hubness_correction
    assert correction is not None
    np.testing.assert_array_equal(correction.references, GOOD.astype(np.float32))


def test_damaged_reference_texts_are_named(copy: Path) -> None:
    path = copy / "reference_texts.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"reference_texts\.npy has the sha256"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("hubness"), "hubness and the file 'reference_texts.npy' need each other"),
        (lambda c: c.update(hubness=None), "need each other"),
        (lambda c: c["files"].pop("reference_texts.npy"), "need each other"),
        (lambda c: c["files"]["reference_texts.npy"].update(bytes=(64 << 20) + 1), "more than 67108864"),
        (lambda c: c["hubness"].update(weight=-0.1), "hubness.weight"),
        (lambda c: c["hubness"].update(weight=1e9), "hubness.weight"),
        (lambda c: c["hubness"].update(weight="1"), "hubness.weight"),
        (lambda c: c["hubness"].update(neighbours=0), "hubness.neighbours"),
        (lambda c: c["hubness"].update(neighbours=2.5), "hubness.neighbours"),
        (lambda c: c["hubness"].update(other=1), "hubness.other"),
    ],
)
def test_a_strangers_manifest(copy: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    change_manifest(copy, change)
    with pytest.raises(BundleError, match=rf"bundle\.json is not valid: .*{message}"):
        Bundle.open(copy)

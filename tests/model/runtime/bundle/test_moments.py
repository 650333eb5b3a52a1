"""Bundles with a moment head: what it says about each frame, and which bundles are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.bundle import Bundle, write_bundle
from model.runtime.errors import BundleError, OutputError
from tests.model.runtime.bundle.test_damage import change_manifest, replace_file
from tests.support import toy_bundle as toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", moments=True)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder)


def film(*colours: str) -> NDArray[np.float32]:
    """A film of one frame of each colour, [1, F, 8]."""
    return np.stack([toy.colour_embedding(colour) for colour in colours])[None]


def test_a_bundle_says_what_it_was_trained_for(bundle: Bundle, folder: Path) -> None:
    assert bundle.capabilities == {"image_query", "salient_frames", "match", "moments"}
    assert bundle.manifest.moments is not None
    assert bundle.manifest.moments.every_seconds == 1.0
    assert json.loads((folder / "bundle.json").read_text())["moments"] == {"every_seconds": 1.0}


def test_logits_are_the_predicted_ones(bundle: Bundle) -> None:
    query = bundle.encode_text(["red", "blue"]).embedding
    frames = np.concatenate([film("red", "red", "green", "white"), film("blue", "cyan", "black", "red")])
    mask = np.array([[True, True, True, True], [True, True, True, False]])
    logits = bundle.moments(query, frames, mask)
    cosine = np.array([[row @ text for row in rows] for rows, text in zip(frames, query, strict=True)])
    np.testing.assert_allclose(logits.start[mask], 8 * cosine[mask], atol=1e-5)
    np.testing.assert_allclose(logits.end[mask], 4 * cosine[mask], atol=1e-5)
    np.testing.assert_allclose(logits.rejection[mask], -8 * cosine[mask], atol=1e-5)
    assert logits.start[1, 3] == logits.end[1, 3] == -1e4
    assert logits.rejection[1, 3] == 1e4
    np.testing.assert_allclose(
        logits.film_rejection, [-8 * cosine[0].max(), -8 * cosine[1, :3].max()], atol=1e-5
    )
    assert logits.start.dtype == logits.film_rejection.dtype == np.float32


def test_long_films_are_run_row_by_row(folder: Path, bundle: Bundle) -> None:
    random = np.random.default_rng(0)
    query = toy.unit(random.normal(size=(3, 8)))
    frames = toy.unit(random.normal(size=(3, 1500, 8)))
    whole = Bundle.open(folder, max_batch=2).moments(query, frames)
    for row in range(3):
        alone = bundle.moments(query[row : row + 1], frames[row : row + 1])
        np.testing.assert_allclose(whole.start[row], alone.start[0], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": np.zeros((2, 8))}, "text_query is float64: pass float32"),
        ({"query": np.zeros((1, 8), np.float32)}, r"text_query has shape \[1, 8\]: pass \[2, 8\]"),
        ({"frames": np.zeros((2, 3, 8))}, "frame_embedding is float64"),
        ({"frames": np.zeros((2, 0, 8), np.float32)}, r"shape \[2, 0, 8\]: pass .* F ≥ 1"),
        ({"frames": np.zeros((2, 3, 7), np.float32)}, r"shape \[2, 3, 7\]: pass float32 \[B, F, 8\]"),
        ({"frames": np.full((2, 3, 8), np.nan, np.float32)}, "frame_embedding holds NaN or infinity"),
        ({"mask": np.ones((2, 2), np.bool_)}, r"frame_mask has shape \[2, 2\]: .* of shape \[2, 3\]"),
        ({"mask": np.array([[True] * 3, [False] * 3])}, r"frame_mask\[1\] has no frame"),
    ],
)
def test_wrong_inputs_are_named(bundle: Bundle, changes: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "query": np.zeros((2, 8), np.float32),
        "frames": np.zeros((2, 3, 8), np.float32),
        "mask": None,
    }
    values |= changes
    with pytest.raises(ValueError, match=message):
        bundle.moments(values["query"], values["frames"], values["mask"])


def test_bundles_without_a_head_stay_as_they_are(tmp_path: Path) -> None:
    bundle = Bundle.open(toy.make_toy_bundle(tmp_path / "plain"))
    assert bundle.capabilities == {"image_query", "salient_frames", "match"}
    assert "moments" not in (tmp_path / "plain" / "bundle.json").read_text()
    with pytest.raises(BundleError, match=r"has no moment_head\.onnx: `reelfind-model moment-head` adds one"):
        bundle.moments(np.zeros((1, 8), np.float32), np.zeros((1, 1, 8), np.float32))


def test_a_missing_graph_is_refused(copy: Path) -> None:
    (copy / "moment_head.onnx").unlink()
    with pytest.raises(BundleError, match=r"moment_head\.onnx"):
        Bundle.open(copy)


def test_a_head_and_its_interval_need_each_other(copy: Path, tmp_path: Path) -> None:
    change_manifest(copy, lambda content: content["files"].pop("moment_head.onnx"))
    with pytest.raises(BundleError, match=r"moments and the graph 'moment_head\.onnx' need each other"):
        Bundle.open(copy)
    tokenizer = tmp_path / "words.json"
    toy.toy_tokenizer().save(str(tokenizer))
    graphs = {**toy.toy_graphs(), "moment_head.onnx": toy.toy_moment_head()}
    with pytest.raises(BundleError, match="need each other: give both or neither"):
        write_bundle(tmp_path / "bundle", graphs, toy.describe(), tokenizer)
    assert not (tmp_path / "bundle").exists()


def test_a_head_for_a_fixed_number_of_frames_is_refused(copy: Path) -> None:
    replace_file(copy, "moment_head.onnx", toy.toy_moment_head(frames=16))
    with pytest.raises(BundleError, match=r"'frame_embedding' is .* 16, 8\] instead of"):
        Bundle.open(copy).check()


def test_logits_that_are_not_finite_are_refused(copy: Path) -> None:
    replace_file(copy, "moment_head.onnx", toy.toy_moment_head(broken=True))
    with pytest.raises(OutputError, match=r"moment_head\.onnx: start_logit holds NaN or infinity"):
        Bundle.open(copy).check()

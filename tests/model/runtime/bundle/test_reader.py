"""The bundle's reader: vectors as predicted, batches, threads, wrong arguments, providers."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from onnx import TensorProto, helper

from model.runtime.bundle import Bundle, Provider, default_bundle_path
from model.runtime.bundle.sessions import _check_placement, placement
from model.runtime.errors import BundleError
from model.runtime.onnx import ort
from tests.support import toy_bundle as toy
from tests.support.server import clean_environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.make_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return Bundle.open(folder)


# What it computes


def test_frames_as_predicted(bundle: Bundle) -> None:
    frames = toy.random_frames(5) // np.array([1, 2, 4], np.uint8)
    encoding = bundle.encode_frames(frames, tokens=True)
    expected = toy.frame_embedding(frames)
    np.testing.assert_allclose(encoding.embedding, expected, atol=1e-5)
    np.testing.assert_allclose(encoding.salience, toy.salience(expected), atol=1e-5)
    assert encoding.tokens is not None
    assert encoding.tokens.shape == (5, 4, 3)
    np.testing.assert_allclose(encoding.tokens, toy.frame_tokens(frames), atol=1e-5)


def test_text_as_predicted(bundle: Bundle) -> None:
    texts = ["red", "a  GREEN\tfield", "blue or yellow", "nothing known here"]
    encoding = bundle.encode_text(texts, tokens=True)
    expected = np.stack([toy.text_embedding(text) for text in texts])
    np.testing.assert_allclose(encoding.embedding, expected, atol=1e-5)
    np.testing.assert_allclose(encoding.salience, toy.salience(expected), atol=1e-5)
    assert encoding.attention_mask.tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert encoding.tokens is not None
    np.testing.assert_allclose(encoding.tokens[1, :2], toy.text_tokens("a green"))


def test_colours_are_found_by_name(bundle: Bundle) -> None:
    frames = np.stack([np.full((32, 32, 3), rgb, np.uint8) for rgb in toy.COLOURS.values()])
    similarity = bundle.encode_text(list(toy.COLOURS)).embedding @ bundle.encode_frames(frames).embedding.T
    assert np.diag(similarity).min() > 0.99
    assert (similarity - np.eye(len(frames)) * similarity).max() < 0.05


def test_segments_ignore_masked_frames(bundle: Bundle) -> None:
    embedding = bundle.encode_frames(toy.random_frames(6)).embedding.reshape(2, 3, -1)
    mask = np.array([[True, True, True], [True, False, False]])
    result = bundle.encode_segments(embedding, mask)
    np.testing.assert_allclose(result, toy.segment_embedding(embedding, mask), atol=1e-5)
    np.testing.assert_allclose(result[1], embedding[1, 0], atol=1e-5)
    np.testing.assert_array_equal(bundle.encode_segments(embedding, mask.astype(np.float32)), result)


def test_tokens_only_when_asked(bundle: Bundle) -> None:
    assert bundle.encode_frames(toy.random_frames(1)).tokens is None
    assert bundle.encode_text(["red"]).tokens is None


@pytest.mark.parametrize("max_batch", [1, 2, 3, 100])
def test_batch_equals_single(folder: Path, bundle: Bundle, max_batch: int) -> None:
    parts = Bundle.open(folder, max_batch=max_batch)
    frames = toy.random_frames(7)
    texts = ["red", "a green field", "the blue sky over a yellow house", "x", "cyan", "white red", "black"]
    whole, text = parts.encode_frames(frames, tokens=True), parts.encode_text(texts, tokens=True)
    assert whole.tokens is not None
    for i in range(7):
        single = bundle.encode_frames(frames[i : i + 1], tokens=True)
        assert single.tokens is not None
        np.testing.assert_allclose(whole.embedding[i], single.embedding[0], atol=1e-5)
        np.testing.assert_allclose(whole.salience[i], single.salience[0], atol=1e-5)
        np.testing.assert_allclose(whole.tokens[i], single.tokens[0], atol=1e-5)
        # Also: padding to the longest text of the batch changes nothing.
        alone = bundle.encode_text(texts[i : i + 1])
        np.testing.assert_allclose(text.embedding[i], alone.embedding[0], atol=1e-5)
    mask = np.ones((7, 1), np.bool_)
    np.testing.assert_allclose(
        parts.encode_segments(whole.embedding[:, None], mask), whole.embedding, atol=1e-5
    )


def test_views_are_read_right(bundle: Bundle) -> None:
    frames = toy.random_frames(4)
    backwards = bundle.encode_frames(frames[::-1, :, ::-1]).embedding
    np.testing.assert_allclose(backwards, toy.frame_embedding(frames)[::-1], atol=1e-5)


def test_many_threads_get_their_own_results(folder: Path) -> None:
    fresh = Bundle.open(folder, threads=1)
    colours = list(toy.COLOURS) * 8

    def encode(colour: str) -> np.ndarray:
        frame = np.full((1, 32, 32, 3), toy.COLOURS[colour], np.uint8)
        embedding = fresh.encode_frames(frame).embedding
        segment = fresh.encode_segments(embedding[None], np.ones((1, 1), np.bool_))
        return np.concatenate([embedding[0], segment[0], fresh.encode_text([colour]).embedding[0]])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(encode, colours))
    for colour, result in zip(colours, results, strict=True):
        frame = toy.colour_embedding(colour)
        expected = np.concatenate([frame, frame, toy.text_embedding(colour)])
        np.testing.assert_allclose(result, expected, atol=1e-5)


def test_checksum_is_that_of_the_manifest(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.checksum == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    assert Bundle.open(toy.make_toy_bundle(tmp_path / "again")).checksum == bundle.checksum
    assert Bundle.open(toy.make_toy_bundle(tmp_path / "other", name="other")).checksum != bundle.checksum


# Wrong arguments


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), "float32"),
        (np.zeros((32, 32, 3), np.uint8), r"\[32, 32, 3\]"),
        (np.zeros((1, 16, 32, 3), np.uint8), r"\[1, 16, 32, 3\].*resize_frames"),
        (np.zeros((1, 3, 32, 32), np.uint8), r"\[1, 3, 32, 32\]"),
        (np.zeros((0, 32, 32, 3), np.uint8), r"\[0, 32, 32, 3\]"),
        ([[1]], "list"),
    ],
)
def test_wrong_frames(bundle: Bundle, frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bundle.encode_frames(frames)


@pytest.mark.parametrize(
    ("shape", "dtype", "mask", "message"),
    [
        ((1, 2, 8), np.float64, [[1, 1]], "float64"),
        ((2, 8), np.float32, [[1, 1]], r"\[2, 8\]"),
        ((1, 2, 9), np.float32, [[1, 1]], r"\[1, 2, 9\]"),
        ((0, 2, 8), np.float32, np.ones((0, 2)), r"\[0, 2, 8\]"),
        ((1, 0, 8), np.float32, np.ones((1, 0)), r"\[1, 0, 8\]"),
        ((1, 17, 8), np.float32, np.ones((1, 17)), "N ≤ 16"),
        ((1, 2, 8), np.float32, [[1, 1, 1]], r"frame_mask has shape \[1, 3\]"),
        ((2, 2, 8), np.float32, [[1, 1], [0, 0]], r"frame_mask\[1\] has no frame"),
        ((1, 2, 8), np.float32, [[1, 0.5]], "other values than 0 and 1"),
        ((1, 2, 8), np.float32, [[1, np.nan]], "other values than 0 and 1"),
    ],
)
def test_wrong_segments(
    bundle: Bundle, shape: tuple[int, ...], dtype: type, mask: list[list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bundle.encode_segments(np.ones(shape, dtype), np.array(mask, np.float32))


def test_segments_with_nan(bundle: Bundle) -> None:
    embedding = np.ones((1, 2, 8), np.float32)
    embedding[0, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        bundle.encode_segments(embedding, np.array([[True, False]]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], r"shape \[0\]"),
        ("red", "one string"),
        (["red", 3], "text 1 is int"),
        (["red", " \n "], "text 1 is empty"),
    ],
)
def test_wrong_texts(bundle: Bundle, texts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bundle.encode_text(texts)


def test_wrong_options(folder: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        Bundle.open(folder, threads=0)
    with pytest.raises(ValueError, match="max_batch is -1"):
        Bundle.open(folder, max_batch=-1)
    with pytest.raises(ValueError, match=r"'gpu' is unknown.*cuda"):
        Bundle.open(folder, provider=cast(Any, "gpu"))


# Providers


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_never_runs_on_another_provider(folder: Path, provider: Provider) -> None:
    name = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[provider]
    try:
        opened = Bundle.open(folder, provider=provider)
    except BundleError as error:
        # Where ONNX Runtime has the provider but not its libraries, it falls back without an exception.
        message = str(error)
        assert f"'{provider}' is not active" in message
        assert "CPUExecutionProvider" in message
        assert "pip install" in message
    else:
        assert name in ort.get_available_providers()
        frames = toy.random_frames(3)
        np.testing.assert_allclose(
            opened.encode_frames(frames).embedding, toy.frame_embedding(frames), atol=1e-3
        )


def test_heavy_nodes_left_on_the_cpu_are_refused(tmp_path: Path) -> None:
    tensors = [("x", TensorProto.FLOAT, ["B", 4])], [("y", TensorProto.FLOAT, ["B", 4])]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Abs", ["z"], ["y"])]
    graph = toy.build_graph(nodes, *tensors, {"w": np.eye(4, dtype=np.float32)})
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    nodes_of = placement(session)
    assert sorted(nodes_of["CPUExecutionProvider"]) == ["Abs", "MatMul"]
    with pytest.raises(BundleError, match=r"g\.onnx: 1 nodes \(MatMul\).*'cuda'.*run on the CPU"):
        _check_placement(tmp_path / "g.onnx", "cuda", nodes_of)
    _check_placement(
        tmp_path / "g.onnx", "cuda", {"CUDAExecutionProvider": ["MatMul"], "CPUExecutionProvider": ["Abs"]}
    )


def test_threads(folder: Path) -> None:
    frames = toy.random_frames(4)
    results = [Bundle.open(folder, threads=count).encode_frames(frames).embedding for count in (1, 2)]
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


#: Prints how many threads the toy's segment encoder starts, by itself and where it is to have three. It is
#: the smallest graph, which is opened with the bundle: no other one is there.
_COUNT_THREADS = """
import pathlib, sys
import numpy as np
from model.runtime.bundle import Bundle

def num_threads():
    return len(list(pathlib.Path("/proc/self/task").iterdir()))

kept = []
for threads in (None, 3):
    before = num_threads()
    kept.append(Bundle.open(sys.argv[1], threads=threads, trial=False))
    dim = kept[-1].manifest.embedding_dim
    kept[-1].encode_segments(np.ones((1, 1, dim), np.float32), np.ones((1, 1), np.bool_))
    print(num_threads() - before)
"""


def test_the_segment_encoder_runs_in_the_thread_that_calls_it(folder: Path) -> None:
    # In a process of its own: threads of other tests come and go.
    command = [sys.executable, "-P", "-c", _COUNT_THREADS, str(folder)]
    run = subprocess.run(
        command, env=clean_environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert run.stdout.split() == ["0", "2"], run.stderr


def test_the_installed_bundle_runs() -> None:
    place = default_bundle_path()
    if not (place / "bundle.json").exists():
        pytest.skip(f"{place} is not built yet: reelfind-model export writes it")
    installed = Bundle.open(place)
    installed.check()
    assert sum(record.bytes for record in installed.manifest.files.values()) <= 50e6
    texts = [
        "a dog runs along the beach",
        "two children",
        "a man in a red coat plays the guitar on a crowded street",
    ]
    batch = installed.encode_text(texts).embedding
    for i, text in enumerate(texts):
        np.testing.assert_allclose(batch[i], installed.encode_text([text]).embedding[0], atol=1e-3)

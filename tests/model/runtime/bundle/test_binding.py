"""Sessions with bound arrays, as those on a GPU have: the same numbers, and clear errors."""

import numpy as np
import pytest

from model.runtime.bundle import Bundle
from model.runtime.bundle.sessions import Session, open_session
from model.runtime.errors import BundleError
from model.runtime.onnx import ort
from tests.support.toy_bundle import make_toy_bundle

GRAPH = "frame_encoder.onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"), max_batch=3)


def opened(bundle: Bundle, *, bound: bool) -> Session:
    manifest = bundle.manifest
    return open_session(
        bundle.folder / GRAPH, manifest.graph_spec(GRAPH), manifest.dims(), "cpu", bound=bound
    )


def frames(bundle: Bundle, count: int) -> np.ndarray:
    size = bundle.manifest.image.size
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 7])
def test_bound_arrays_hold_the_same_numbers(bundle: Bundle, count: int) -> None:
    dim = bundle.manifest.embedding_dim
    found = []
    for bound in (False, True):
        session = opened(bundle, bound=bound)
        assert session.bound is bound
        # The array is a part of a larger one, as in `run_parts`.
        whole = np.full((count + 2, dim), np.nan, np.float32)
        session.run_into({"frame_embedding": whole[1:-1]}, {"frames": frames(bundle, count)})
        assert np.isnan(whole[[0, -1]]).all()
        found.append(whole[1:-1])
    assert np.array_equal(found[0], found[1])
    assert np.isfinite(found[0]).all()


def test_a_bundle_gives_the_same_with_bound_sessions(bundle: Bundle) -> None:
    shown = frames(bundle, 8)
    plain = bundle.encode_frames(shown, tokens=True)
    session = bundle._session(GRAPH)
    session.bound = True
    try:
        bound = bundle.encode_frames(shown, tokens=True)
    finally:
        session.bound = False
    for name in ("embedding", "salience", "tokens"):
        assert np.array_equal(getattr(plain, name), getattr(bound, name)), name


@pytest.mark.parametrize("bound", [False, True])
def test_an_output_of_another_shape_is_an_error(bundle: Bundle, bound: bool) -> None:
    wrong = np.empty((5, bundle.manifest.embedding_dim), np.float32)
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx.* export (or download )?the bundle again"):
        opened(bundle, bound=bound).run_into({"frame_embedding": wrong}, {"frames": frames(bundle, 4)})


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu and a GPU"
)
def test_a_gpu_gives_the_same_numbers(bundle: Bundle) -> None:
    shown = frames(bundle, 8)
    on_gpu = Bundle.open(bundle.folder, provider="cuda", max_batch=8)
    assert on_gpu._session(GRAPH).bound
    expected = bundle.encode_frames(shown).embedding
    assert np.allclose(on_gpu.encode_frames(shown).embedding, expected, atol=1e-3)

"""Sessions with bound arrays, as those on a GPU have: the same numbers, and clear errors."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model.runtime.bundle import Bundle
from model.runtime.bundle.pinned import Block, why_not_pinned
from model.runtime.bundle.sessions import Session, open_session
from model.runtime.errors import BundleError
from model.runtime.onnx import ort
from tests.support.toy_bundle import make_toy_bundle

GRAPH = "frame_encoder.onnx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"), max_batch=3)


def opened(bundle: Bundle, *, bound: bool, pinned: bool = False) -> Session:
    manifest = bundle.manifest
    spec, dims = manifest.graph_spec(GRAPH), manifest.dims()
    return open_session(bundle.folder / GRAPH, spec, dims, "cpu", bound=bound, pinned=pinned)


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


def test_blocks_of_memory_are_used_in_turn_and_give_the_same_numbers(bundle: Bundle) -> None:
    dim = bundle.manifest.embedding_dim
    session, plain = opened(bundle, bound=True, pinned=True), opened(bundle, bound=False)

    def run(of: Session, count: int) -> np.ndarray:
        found = np.full((count, dim), np.nan, np.float32)
        shown = frames(bundle, count)
        of.run_into({"frame_embedding": found}, {"frames": shown})
        assert np.array_equal(shown, frames(bundle, count)), "what is given is not changed"
        return found

    # Larger and smaller runs, in several threads: none sees the numbers of another.
    counts = [1, 7, 2, 12, 3, 5] * 8
    expected = {count: run(plain, count) for count in set(counts)}
    with ThreadPoolExecutor(4) as pool:
        for count, found in zip(counts, pool.map(lambda count: run(session, count), counts), strict=True):
            assert np.array_equal(found, expected[count])
    assert session.pinned is not None
    assert 1 <= len(session.pinned._free) <= 4
    with pytest.raises(BundleError, match=r"frame_encoder\.onnx"):
        session.run_into({"frame_embedding": np.empty((5, dim), np.float32)}, {"frames": frames(bundle, 4)})
    assert np.array_equal(run(session, 7), expected[7])


def test_arrays_of_a_block_lie_side_by_side() -> None:
    wanted: dict[str, np.ndarray] = {
        "a": np.zeros((3, 5), np.uint8),
        "b": np.zeros((2, 4097), np.float32),
        "c": np.zeros(0, bool),
    }
    block = Block()
    for _ in range(2):
        arrays = block.arrays(wanted)
        for number, (name, value) in enumerate(wanted.items()):
            assert (arrays[name].shape, arrays[name].dtype) == (value.shape, value.dtype)
            assert arrays[name].ctypes.data % 4096 == 0
            arrays[name][...] = number
        assert [int(arrays[name].min()) for name in ("a", "b")] == [0, 1]


def test_page_locked_memory_changes_nothing_on_a_cpu(bundle: Bundle) -> None:
    shown = frames(bundle, 8)
    pinned = Bundle.open(bundle.folder, max_batch=3, pinned=True)
    assert not pinned._session(GRAPH).bound
    assert np.array_equal(pinned.encode_frames(shown).embedding, bundle.encode_frames(shown).embedding)
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        # A runtime may have come with PyTorch; without a driver it locks nothing.
        assert re.search("no CUDA runtime|error [0-9]+ of cudaHostRegister", why_not_pinned() or "")


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(), reason="needs onnxruntime-gpu and a GPU"
)
@pytest.mark.parametrize("pinned", [False, True])
def test_a_gpu_gives_the_same_numbers(bundle: Bundle, pinned: bool) -> None:
    shown = frames(bundle, 8)
    on_gpu = Bundle.open(bundle.folder, provider="cuda", max_batch=8, pinned=pinned)
    assert on_gpu._session(GRAPH).bound
    expected = bundle.encode_frames(shown).embedding
    assert np.allclose(on_gpu.encode_frames(shown).embedding, expected, atol=1e-3)

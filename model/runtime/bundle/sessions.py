"""Opens ONNX Runtime sessions that run on the requested provider, or not at all."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.runtime.bundle.files import EXPORT_AGAIN
from model.runtime.bundle.graphs import GraphSpec, TensorSpec
from model.runtime.bundle.pinned import Blocks
from model.runtime.errors import BundleError
from model.runtime.installing import install_command, install_packages
from model.runtime.onnx import ort

#: how many rows the products of a graph have
Rows = Literal["few rows", "many rows"]
Provider = Literal["cpu", "cuda", "tensorrt"]

_ORT_NAMES: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# Operators that do nearly all of the work: they must run on the requested provider.
_HEAVY = ("Conv", "MatMul", "Gemm", "Attention", "GRU", "LSTM")


def check_provider(provider: Provider) -> None:
    """Check that the installed ONNX Runtime knows a provider.

    Raises:
        BundleError: it does not know it.
        ValueError: the name is none of `cpu`, `cuda`, `tensorrt`.
    """
    if provider not in _ORT_NAMES:
        raise ValueError(f"provider {provider!r} is unknown: use one of {list(_ORT_NAMES)}")
    if _ORT_NAMES[provider] not in ort.get_available_providers():
        # Both packages install as `onnxruntime`: where both are installed, the one without CUDA may be used.
        remedy = f"run `{install_command('cpu' if provider == 'cpu' else 'gpu')}`"
        raise _inactive(provider, "the installed onnxruntime is built without it", remedy)
    if provider != "cpu":
        _preload_cuda()


@cache
def _preload_cuda() -> None:
    """Load CUDA's libraries from Python packages too, where ONNX Runtime does not look by itself."""
    # It prints the libraries that it does not find; opening the session shows whether they are needed.
    with contextlib.redirect_stdout(io.StringIO()):
        ort.preload_dlls()


def open_session(
    path: Path,
    spec: GraphSpec,
    dims: Mapping[str, int],
    provider: Provider,
    threads: int | None = None,
    cache_dir: Path | None = None,
    *,
    planned_memory: bool = True,
    integer_products: Rows | None = None,
    bound: bool | None = None,
    pinned: bool = False,
    unpacked: bytes | None = None,
) -> Session:
    """Open one graph and check its inputs and outputs.

    Args:
        path: the graph's file.
        spec: its inputs and outputs in the format.
        dims: the sizes that the bundle fixes, by letter.
        provider: where it must run.
        threads: threads of one operator; None leaves it to ONNX Runtime.
        cache_dir: where TensorRT caches the engines it builds; None: no cache.
        planned_memory: whether one block of memory is kept for all that a run of known sizes needs; without
            it, what a part of the graph has left serves the next one, and large graphs need half as much.
        integer_products: how many rows products have, where the CPU multiplies small weights as they are,
            see `model.runtime.bundle.integer_products`; None: it makes them float32 first.
        bound: whether `run_into` binds its arrays, see `Session`; None: where the provider is not the CPU.
        pinned: whether bound arrays are copied to and from page-locked memory.
        unpacked: the graph, where the file holds it packed.

    Raises:
        BundleError: the graph cannot be read, differs from the format, or the provider is not active.
    """
    check_provider(provider)
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = planned_memory
    # Threads that spin while they wait take processor time from decoding and from other searches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = 3  # errors only: warnings concern how the graph was made
    try:
        content = unpacked
        if provider == "cpu" and integer_products is not None:
            content = _with_integer_products(path, unpacked, integer_products) or unpacked
        session = ort.InferenceSession(
            str(path) if content is None else content,
            options,
            providers=_provider_list(provider, cache_dir),
            enable_fallback=False,
        )
    # The exceptions of ONNX and ONNX Runtime have no common base but Exception.
    except Exception as error:
        if provider != "cpu":
            raise _no_libraries(provider, f"{path.name} cannot be opened: {_one_line(error)}") from error
        raise BundleError(
            f"{path} is not a graph that ONNX Runtime can open ({_one_line(error)}): "
            "export or download the bundle again"
        ) from error
    session.disable_fallback()
    active = session.get_providers()
    if not active or active[0] != _ORT_NAMES[provider]:
        raise _no_libraries(provider, f"ONNX Runtime fell back to {', '.join(active)}")
    if provider != "cpu":
        _check_placement(path, provider, placement(session))
    expected_inputs = _expected_inputs(path, {item.name for item in session.get_inputs()}, spec)
    _check_tensors(path, "input", session.get_inputs(), expected_inputs, dims)
    _check_tensors(path, "output", session.get_outputs(), spec.outputs, dims)
    is_bound = provider != "cpu" if bound is None else bound
    return Session(path, session, bound=is_bound, pinned=pinned)


def _with_integer_products(path: Path, unpacked: bytes | None, rows: Rows) -> bytes | None:
    # The package onnx takes a tenth of a second to import: commands that encode nothing do without.
    from model.runtime.bundle.integer_products import with_integer_products

    return with_integer_products(path, unpacked, many_rows=rows == "many rows")


class Session:
    """One open graph, and the names of its inputs. Its methods may be called from any thread.

    Attributes:
        bound: `run_into` binds its arrays, so that a GPU copies its results to where they belong, and not to
            memory from which they are copied again.
        pinned: the page-locked memory through which a GPU copies bound arrays; None: it copies them itself.
    """

    def __init__(
        self, path: Path, session: ort.InferenceSession, *, bound: bool = False, pinned: bool = False
    ) -> None:
        self.path = path
        self.bound = bound
        self.pinned = Blocks() if pinned else None
        self.inputs: frozenset[str] = frozenset(item.name for item in session.get_inputs())
        self._session = session

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Run the graph and compute only what `outputs` need.

        Raises:
            BundleError: the graph fails on this input.
        """
        try:
            results: list[NDArray[np.float32]] = self._session.run(list(outputs), dict(inputs))
        except Exception as error:
            raise self._failure(inputs, error) from error
        return results

    def run_into(
        self, outputs: Mapping[str, NDArray[np.float32]], inputs: Mapping[str, NDArray[Any]]
    ) -> None:
        """Run the graph, and write what `outputs` name into their arrays.

        Args:
            outputs: float32, contiguous, of the shapes that the graph gives, by name.
            inputs: by name; contiguous where the session is bound.

        Raises:
            BundleError: the graph fails on this input, or gives an output of another shape.
        """
        if self.bound and self.pinned is not None:
            with self.pinned.lent() as block:
                # One dictionary: an input may have the name of an output.
                arrays = block.arrays(
                    {f"in {name}": value for name, value in inputs.items()}
                    | {f"out {name}": value for name, value in outputs.items()}
                )
                given = {name: arrays[f"in {name}"] for name in inputs}
                results = {name: arrays[f"out {name}"] for name in outputs}
                for name, value in inputs.items():
                    given[name][...] = value
                self._run_bound(results, given)
                for name, value in outputs.items():
                    value[...] = results[name]
            return
        if self.bound:
            self._run_bound(outputs, inputs)
            return
        for (name, value), result in zip(outputs.items(), self.run(list(outputs), inputs), strict=True):
            if result.shape != value.shape:
                raise BundleError(
                    f"{self.path}: {name} has shape {list(result.shape)} instead of {list(value.shape)}: "
                    f"{EXPORT_AGAIN}"
                )
            value[...] = result

    def _run_bound(
        self, outputs: Mapping[str, NDArray[np.float32]], inputs: Mapping[str, NDArray[Any]]
    ) -> None:
        try:
            binding = self._session.io_binding()
            for name, value in inputs.items():
                binding.bind_cpu_input(name, value)
            for name, value in outputs.items():
                binding.bind_output(name, "cpu", 0, np.float32, value.shape, value.ctypes.data)
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise self._failure(inputs, error) from error

    def _failure(self, inputs: Mapping[str, NDArray[Any]], error: Exception) -> BundleError:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
        return BundleError(
            f"{self.path} failed on {shapes} ({_one_line(error)}): lower the batch if memory ran out, else "
            "export the bundle again"
        )


def _provider_list(provider: Provider, cache_dir: Path | None) -> list[Any]:
    if provider == "cpu":
        return ["CPUExecutionProvider"]
    if provider == "cuda":
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    engine: dict[str, str] = {}
    if cache_dir is not None:
        cache_dir.mkdir(parents=True, exist_ok=True)
        engine = {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache_dir),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache_dir),
        }
    # TensorRT leaves what it cannot take to CUDA.
    return [("TensorrtExecutionProvider", engine), "CUDAExecutionProvider", "CPUExecutionProvider"]


def placement(session: ort.InferenceSession) -> dict[str, list[str]]:
    """The types of the nodes that each provider runs, by ONNX Runtime's name for the provider."""
    nodes: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    return nodes


def _check_placement(path: Path, provider: Provider, nodes: Mapping[str, Sequence[str]]) -> None:
    """Refuse a graph whose heavy nodes stay on the CPU: a provider may be active and run nothing."""
    stranded = [op for op in nodes.get("CPUExecutionProvider", ()) if any(part in op for part in _HEAVY)]
    if stranded:
        kinds = ", ".join(sorted(set(stranded)))
        raise BundleError(
            f"{path}: {len(stranded)} nodes ({kinds}) have no kernel for the provider {provider!r} and "
            "would run on the CPU: export the bundle without quantisation, or choose the provider cpu"
        )


def _no_libraries(provider: Provider, why: str) -> BundleError:
    command = install_packages("onnxruntime-gpu[cuda,cudnn]")
    libraries = f"the libraries of CUDA and cuDNN (`{command}`)"
    if provider == "tensorrt":
        libraries += ", those of TensorRT on LD_LIBRARY_PATH (the folder tensorrt_libs of its pip package)"
    return _inactive(provider, why, f"install an NVIDIA driver and {libraries}")


def _inactive(provider: Provider, why: str, remedy: str) -> BundleError:
    available = ", ".join(ort.get_available_providers())
    other = "" if provider == "cpu" else ", or choose the provider cpu"
    return BundleError(
        f"the provider {provider!r} is not active: {why} (built in: {available}); {remedy}{other}"
    )


def _expected_inputs(path: Path, names: set[str], spec: GraphSpec) -> tuple[TensorSpec, ...]:
    """The inputs of the format, with the one of `either` that the graph has."""
    if not spec.either:
        return spec.inputs
    present = tuple(item for item in spec.either if item.name in names)
    if len(present) != 1:
        raise BundleError(
            f"{path} has the inputs {sorted(names)}, of which exactly one must be of "
            f"{[item.name for item in spec.either]}: export it again"
        )
    return spec.inputs + present


def _check_tensors(
    path: Path, kind: str, tensors: Sequence[Any], expected: Sequence[TensorSpec], dims: Mapping[str, int]
) -> None:
    """Compare a graph's inputs or outputs with the format; a size that the graph leaves open is accepted."""
    by_name = {item.name: item for item in tensors}
    names = [spec.name for spec in expected]
    if set(by_name) != set(names):
        raise BundleError(
            f"{path} has the {kind}s {sorted(by_name)} instead of {sorted(names)}: export it again"
        )
    for spec in expected:
        item = by_name[spec.name]
        shape = [dims.get(size, size) if isinstance(size, str) else size for size in spec.shape]
        sizes_fit = len(item.shape) == len(shape) and all(
            # A letter without a size in `dims` must stay open, such as the batch.
            not isinstance(have, int) if isinstance(want, str) else not isinstance(have, int) or have == want
            for have, want in zip(item.shape, shape, strict=True)
        )
        if item.type != spec.dtype or not sizes_fit:
            raise BundleError(
                f"{path}: {kind} {spec.name!r} is {item.type} {item.shape} instead of {spec.dtype} {shape}: "
                "export the bundle again"
            )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "…"

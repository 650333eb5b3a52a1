"""Page-locked memory, which a GPU copies from and to without a detour, at several times the rate.

Runs of a graph take turns with blocks of it: inputs are copied there before a run, outputs from there after
it. NumPy holds the memory, and CUDA's runtime locks its pages (`cudaHostRegister`).
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RUNTIMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so")
# Blocks begin where any type and any copy may.
_ALIGNMENT = 4096


@cache
def _runtime() -> ctypes.CDLL | None:
    """CUDA's runtime, which ONNX Runtime has loaded, or which the system has; None: there is none."""
    for name in _RUNTIMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def why_not_pinned() -> str | None:
    """Why no memory can be page-locked for a GPU here; None: it can."""
    return _lock(_aligned(_ALIGNMENT))


def _lock(block: NDArray[np.uint8]) -> str | None:
    """Lock the pages of a block until it is freed. → Why they are not; None: they are."""
    runtime = _runtime()
    if runtime is None:
        return f"there is no CUDA runtime ({_RUNTIMES[1]})"
    address = block.ctypes.data
    code = int(runtime.cudaHostRegister(ctypes.c_void_p(address), ctypes.c_size_t(block.nbytes), 0))
    if code:
        return f"CUDA cannot lock it (error {code} of cudaHostRegister)"
    # At the end of the process CUDA may be gone already.
    weakref.finalize(block, runtime.cudaHostUnregister, ctypes.c_void_p(address)).atexit = False
    return None


def _aligned(size: int) -> NDArray[np.uint8]:
    """A block of whole pages, at least so many bytes."""
    size = -(-size // _ALIGNMENT) * _ALIGNMENT
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


class Block:
    """Memory that grows to what the largest run needs. One run at a time uses it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def arrays(self, wanted: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Arrays of the shapes and types of others, side by side in this memory, by name."""
        starts, size = {}, 0
        for name, value in wanted.items():
            starts[name] = size
            size += -(-value.nbytes // _ALIGNMENT) * _ALIGNMENT
        if size > self._memory.nbytes:
            self._memory = _aligned(size)
            # What cannot be locked any more, such as beyond the system's limit, is copied as other memory.
            _lock(self._memory)
        return {
            name: self._memory[start : start + wanted[name].nbytes]
            .view(wanted[name].dtype)
            .reshape(wanted[name].shape)
            for name, start in starts.items()
        }


class Blocks:
    """The blocks of one graph: as many as runs were under way at once. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[Block] = []

    @contextmanager
    def lent(self) -> Iterator[Block]:
        """A block that nobody else uses meanwhile."""
        with self._lock:
            block = self._free.pop() if self._free else Block()
        try:
            yield block
        finally:
            with self._lock:
                self._free.append(block)

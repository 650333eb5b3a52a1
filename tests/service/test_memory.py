"""All threads share a few heaps, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

_THREADS = 12
#: Prints in how many of glibc's heaps, which lie at multiples of 64 MiB, small blocks of many threads are.
_COUNT_HEAPS = f"""
import ctypes, sys, threading
if sys.argv[1] == "share":
    from service.memory import share_heaps
    share_heaps()
malloc = ctypes.CDLL(None).malloc
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
heaps, together = set(), threading.Barrier({_THREADS})
def allocate():
    together.wait()
    heaps.update(malloc(3000) >> 26 for _ in range(20))
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range({_THREADS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(heaps))
"""


def count_heaps(how: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    command = [sys.executable, "-P", "-c", _COUNT_HEAPS, how]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**environment, **variables}
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heaps are those of Linux")
def test_threads_share_heaps_unless_the_environment_says_otherwise() -> None:
    assert count_heaps("share") <= 3 < count_heaps("as it is", MALLOC_ARENA_MAX="8")
    assert count_heaps("share", MALLOC_ARENA_MAX="8") > 3


@pytest.mark.parametrize(
    ("variables", "backend"), [({}, "system"), ({"ARROW_DEFAULT_MEMORY_POOL": "mimalloc"}, "mimalloc")]
)
def test_arrow_uses_the_shared_heaps_too(variables: dict[str, str], backend: str) -> None:
    code = "import pyarrow as pa, service.memory as memory; memory.share_heaps(); "
    code += "print(pa.default_memory_pool().backend_name)"
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, **variables},
    )
    assert done.stdout.strip() == backend


@pytest.mark.parametrize(("variables", "threads"), [({}, {1}), ({"OPENBLAS_NUM_THREADS": "2"}, {2})])
def test_products_of_matrices_run_in_one_thread(variables: dict[str, str], threads: set[int]) -> None:
    code = """
import numpy, threadpoolctl, service.memory as memory
memory.limit_blas_threads()
pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
print(*{pool["num_threads"] for pool in pools})
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**environment, **variables}
    )
    assert {int(number) for number in done.stdout.split()} == threads

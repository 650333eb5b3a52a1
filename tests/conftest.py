"""What holds for the whole suite: the order of the files, threads, signals."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Set before PyTorch is imported: threads of several pytest processes that wait for each other on the same
# cores take more than twice the time. The processes that tests start inherit it.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


#: Every run tries the same examples: none fails by chance. `--hypothesis-profile=default` tries others.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

#: Tests index files that they have just made, and need not wait whether somebody writes on in them.
os.environ["REELFIND_SETTLE_SECONDS"] = "0"


def pytest_configure() -> None:
    """Give the tests places of their own for what is remembered and cached, and let Ctrl-C stop processes.

    Where pytest runs in the background of a shell, it ignores SIGINT, and its children inherit that.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
            os.environ[variable] = tempfile.mkdtemp(prefix="reelfind-")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Remove what was remembered and cached."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        for variable in ("XDG_STATE_HOME", "XDG_CACHE_HOME"):
            shutil.rmtree(os.environ[variable], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files with most slow tests first, so that all workers have something to do until the end."""
    slow_tests: dict[Path, int] = {}
    for item in items:
        slow_tests[item.path] = slow_tests.get(item.path, 0) + (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow_tests[item.path])

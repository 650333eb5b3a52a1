"""What `reelfind doctor` looks at: versions, hardware, the sandbox of decoders, bundle and library."""

import os
import platform
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import av

from indexer.engines.local_decoders import default_memory_bytes
from indexer.engines.worker import WorkerOptions
from indexer.engines.worker_process import WorkerProcess
from indexer.library.folder import Library
from indexer.library.manifest import published_number, read_snapshot_manifest
from indexer.library.overview import list_generations
from indexer.stages.transnet import GRAPH
from model.runtime.bundle import Bundle, default_bundle_path
from model.runtime.bundle.sessions import check_provider
from model.runtime.cores import available_cores
from model.runtime.errors import ReelfindError
from model.runtime.installing import install_command
from model.runtime.messages import for_shell
from model.runtime.onnx import ort
from service.bundles import bundle_folder
from service.memory import memory_limit
from service.settings import Settings

Level = Literal["ok", "note", "problem"]

_PACKAGES = ("av", "numpy", "pillow", "pyarrow", "pylance", "fastapi", "uvicorn", "tokenizers")
#: One of each is needed.
_ALTERNATIVES = (("onnxruntime", "onnxruntime-gpu"), ("faiss-cpu", "faiss-gpu"))
#: Options of `reelfind index` that need a package more.
_STAGES = {"--speech": ("faster-whisper", "speech"), "--screen": ("rapidocr", "screen")}
_LEAST_MEMORY = 2 << 30
_LEAST_DISK = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what it belongs to, such as "sandbox".
        name: what it is.
        value: how it is.
        level: "note": something is missing that is not needed; "problem": something does not work.
    """

    topic: str
    name: str
    value: str
    level: Level = "ok"


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one after the other. No failure ends it: each becomes a finding."""
    checks: Sequence[tuple[str, Callable[[], Iterator[Finding]]]] = (
        ("versions", _versions),
        ("machine", _machine),
        ("model", lambda: _providers(settings)),
        ("decoders", _decoders),
        ("stages", _stages),
        ("sandbox", _sandbox),
        ("bundle", lambda: _bundle(settings)),
        ("library", lambda: _library(settings)),
    )
    for topic, check in checks:
        try:
            yield from check()
        except (ReelfindError, OSError) as error:
            yield Finding(topic, "error", " ".join(str(error).split()), "problem")
        except Exception as error:
            yield Finding(topic, "error", f"{type(error).__name__}: {error}", "problem")


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "reelfind", version("reelfind"))
    yield Finding("versions", "python", f"{platform.python_version()} ({sys.executable})")
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    yield Finding("versions", "system", f"{system}, {' '.join(platform.libc_ver()) or 'libc not known'}")
    for package in _PACKAGES:
        found = _version_of(package)
        yield Finding("versions", package, found or "is not installed", "ok" if found else "problem")
    for packages in _ALTERNATIVES:
        installed = [(name, found) for name in packages if (found := _version_of(name))]
        for name, found in installed:
            yield Finding("versions", name, found)
        if len(installed) != 1:
            remedy = f"exactly one is needed: `{install_command('cpu')}` or `{install_command('gpu')}`"
            yield Finding(
                "versions", " or ".join(packages), f"{len(installed)} installed; {remedy}", "problem"
            )


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "cores", f"{available_cores()} of {os.cpu_count()} may be used")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit()
    text = f"{memory / (1 << 30):.1f} GiB"
    if limit is not None and limit < memory:
        text += f", of which the container or service may use {limit / (1 << 30):.1f} GiB"
    few = min(memory, limit or memory) < _LEAST_MEMORY
    yield Finding(
        "machine", "memory", text + ("; large videos may need more" if few else ""), "note" if few else "ok"
    )


def _providers(settings: Settings) -> Iterator[Finding]:
    yield Finding("model", "providers", ", ".join(ort.get_available_providers()))
    check_provider(settings.provider)
    yield Finding("model", "used", settings.provider)


def _decoders() -> Iterator[Finding]:
    libraries = ", ".join(
        f"{name} {'.'.join(map(str, numbers))}" for name, numbers in av.library_versions.items()
    )
    yield Finding("decoders", "pyav", libraries)
    decord = _version_of("decord2")
    yield Finding("decoders", "decord", decord or "is not installed (--decoder decord needs it)")


def _stages() -> Iterator[Finding]:
    for option, (package, extra) in _STAGES.items():
        found = _version_of(package)
        text = f"{package} {found}" if found else f"{package} is not installed (`{install_command(extra)}`)"
        yield Finding("stages", option, text)
    if GRAPH.is_file():
        yield Finding("stages", "--shots", "TransNetV2, which comes with reelfind")
    else:
        yield Finding("stages", "--shots", f"{GRAPH} is missing: install reelfind again", "problem")


def _sandbox() -> Iterator[Finding]:
    """Starts a decoding process, and asks it."""
    worker = WorkerProcess(WorkerOptions("auto", default_memory_bytes()), threading.Event().is_set)
    worker.close()
    for part in worker.confinement.parts:
        missing = part.missing is not None
        text = f"missing: {part.missing}" if missing else part.effect
        yield Finding("sandbox", part.name, text, "note" if missing else "ok")
    lacks = worker.confinement.lacks()
    text = "no: --sandbox required refuses to run" if lacks else "yes"
    yield Finding("sandbox", "complete", text, "note" if lacks else "ok")


def _bundle(settings: Settings) -> Iterator[Finding]:
    bundle = Bundle.open(settings.bundle or default_bundle_path())
    yield Finding("bundle", "bundle", f"{bundle.manifest.name} ({bundle.checksum[:12]}) at {bundle.folder}")


def _library(settings: Settings) -> Iterator[Finding]:
    folder = settings.library
    if not Library.exists(folder):
        where = Path(os.path.abspath(folder))  # noqa: PTH100  links stay as they are named
        yield Finding(
            "library",
            "library",
            f"none at {where}: `reelfind index PATH --library {for_shell(where)}` makes one",
            "note",
        )
        return
    number = published_number(folder)
    manifest = read_snapshot_manifest(folder, number)
    text = f"snapshot {number} of {folder}: {manifest.num_videos} videos, {manifest.num_segments} segments"
    yield Finding("library", "library", f"{text}, made with bundle {manifest.bundle_name}")
    where = bundle_folder(settings, manifest.bundle_checksum, manifest.bundle_name)
    yield Finding("library", "bundle", f"found at {where}")
    for state in list_generations(folder):
        if state.state != "served":
            size = f"{state.num_videos} videos, {state.bytes / 1e6:.1f} MB"
            text = f"{state.name}, made with bundle {state.bundle_name}: {size}, {state.state}, not served"
            yield Finding("library", "generation", text, "note")
    free = shutil.disk_usage(folder).free
    low = free < _LEAST_DISK
    yield Finding("library", "disk", f"{free / (1 << 30):.1f} GiB free", "problem" if low else "ok")


def _version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

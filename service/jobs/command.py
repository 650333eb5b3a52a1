"""The process that runs a job: `reelfind index`, with the service's settings."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from indexer.library.manifest import is_published
from model.runtime.messages import shown
from service.jobs.files import JobFiles
from service.jobs.records import JobRecord
from service.settings import ENV_PREFIX, Settings, variable_of

_ROOT = Path(__file__).resolve().parents[2]


def launch(job: JobRecord, files: JobFiles, settings: Settings) -> "subprocess.Popen[bytes]":
    """Start the process of a job. Its thread must live as long: the kernel interrupts the process with it.

    Raises:
        OSError: it cannot be started.
    """
    command = [sys.executable, "-P", "-m", "service.jobs.launcher"]
    command += [str(os.getpid()), str(settings.job_memory_mb or 0)]
    command += [sys.executable, "-P", "-m", "service", *_arguments(job, files, settings)]
    with files.log.open("ab") as log, files.summary.open("wb") as summary:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=summary,
            stderr=log,
            # Ctrl-C reaches only the service, which ends the process in order.
            start_new_session=True,
            env=_environment(os.environ, settings),
        )


def _arguments(job: JobRecord, files: JobFiles, settings: Settings) -> list[str]:
    options = job.options
    arguments = ["index", *map(str, job.paths), "--library", shown(str(settings.library.absolute()))]
    arguments += ["--json", "--events", str(files.events), "--sandbox", settings.sandbox]
    arguments += ["--prune"] * options.prune + ["--retry-failed"] * options.retry_failed
    arguments += [f"--include={pattern}" for pattern in options.include]
    return arguments + [f"--exclude={pattern}" for pattern in options.exclude]


def _environment(inherited: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """The environment: the settings of the service, also those that were options."""
    own = {
        "bundles": ":".join(map(str, settings.bundles)),
        "provider": settings.provider,
        "hwaccel": settings.hwaccel or "",
        "pinned_memory": "true" if settings.pinned_memory else "",
        "threads": "" if settings.threads is None else str(settings.threads),
        "engine_cache": "" if settings.engine_cache is None else str(settings.engine_cache.absolute()),
    }
    bundle = None if settings.bundle is None else str(settings.bundle.absolute())
    if is_published(settings.library):
        # A run that named a bundle would build a generation beside the one that is served.
        own["bundles"] = ":".join(filter(None, [bundle, own["bundles"]]))
        bundle = None
    if bundle is not None:
        own["bundle"] = bundle
    set_now = {variable_of(name): value for name, value in own.items() if value}
    kept = {name: value for name, value in inherited.items() if not name.startswith(ENV_PREFIX)}
    for name in ("SETTLE_SECONDS", "VECTORS", "VECTORS_SECONDS", "TRACEBACK", "FAULT", "FAULT_LOG"):
        if ENV_PREFIX + name in inherited:
            kept[ENV_PREFIX + name] = inherited[ENV_PREFIX + name]
    # The process must import this code, and nothing from the current folder.
    paths = os.pathsep.join(filter(None, [str(_ROOT), kept.get("PYTHONPATH")]))
    return {**kept, **set_now, "PYTHONPATH": paths}

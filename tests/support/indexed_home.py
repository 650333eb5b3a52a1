"""Folders with films, a bundle and a library, which the command line indexes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import lance

from tests.support.server import REELFIND, clean_environment


def index(home: Path, *options: str, code: int = 0, **environment: str) -> dict[str, Any]:
    """`reelfind index HOME/media … --json`. → what it prints."""
    command = [*REELFIND, "index", home / "media", "--library", home / "library", "--workers", "1", "--json"]
    run = subprocess.run(
        [str(part) for part in [*command, "--bundle", home / "toy", "--threads", "1", *options]],
        capture_output=True,
        text=True,
        env=clean_environment() | environment,
    )
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    found: dict[str, Any] = json.loads(run.stdout) if run.stdout.strip() else {"error": run.stderr}
    return found


def pictures_of(library: Path) -> list[int]:
    """The versions of the tables with pictures: the same as long as none is encoded."""
    return [lance.dataset(str(library / f"{name}.lance")).version for name in ("segments", "frames")]

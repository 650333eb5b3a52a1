"""Names on the hub: fetched from a server that answers as the hub does, used again offline, or refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_hub import COMMIT, LocalHub, running_hub
from tests.support.published import save_clip

pytestmark = pytest.mark.slow

# What becomes of each name, or NAME@REVISION: the folder and what a bundle will say of its weights, or the
# error.
_FIND = """
import json, sys
from model.importers.sources import find_checkpoint
from model.runtime.errors import InputError

for asked in sys.argv[1:]:
    name, _, revision = asked.partition("@")
    try:
        found = find_checkpoint(name, revision=revision or None)
        weights = found.provenance().model_dump()["weights"]
        print(json.dumps({"weights": weights, "languages": found.languages, "folder": str(found.folder)}))
    except InputError as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    folder = save_clip(tmp_path_factory.mktemp("hub") / "a-clip")
    (folder / "README.md").write_text("---\nlicense: mit\nlanguage: [en, de]\n---\n# A CLIP\n")
    with running_hub(folder) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is fetched is kept."""
    return tmp_path_factory.mktemp("home")


def find(home: Path, address: str, *names: str, offline: bool = False) -> list[dict[str, Any]]:
    """What becomes of each name, in a process with these settings of huggingface_hub."""
    own = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1" if offline else "0"}
    done = subprocess.run(
        [sys.executable, "-c", _FIND, *names], env={**os.environ, **own}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def errors(found: list[dict[str, Any]]) -> list[str]:
    return [each["error"] for each in found]


def test_no_network(home: Path) -> None:
    """A port where nothing listens."""
    (said,) = errors(find(home, "http://127.0.0.1:9", "someone/else"))
    assert said.startswith("someone/else is not on this machine and cannot be fetched: check the network and")
    assert said.endswith("or copy the folder of the model to this machine and name it")


def test_what_the_hub_refuses(home: Path, hub: LocalHub) -> None:
    asked = ("gated/model", "gone/model", f"{hub.NAME}@v9")
    gated, gone, no_revision = errors(find(home, hub.address, *asked))
    assert gated.startswith(
        "gated/model is gated: accept its terms at https://huggingface.co/gated/model, then"
    )
    assert "`hf auth login`" in gated
    assert gone.startswith("gone/model is not on the hub, or is private: check the name")
    assert no_revision.startswith(f"{hub.NAME} has no revision 'v9': see https://huggingface.co/{hub.NAME}")


def test_a_name_is_fetched_once_and_used_again_offline(home: Path, hub: LocalHub) -> None:
    """The revision is pinned, whatever a branch or tag names later."""
    (online,) = find(home, hub.address, f"{hub.NAME}@v1")
    address = f"https://huggingface.co/{hub.NAME}"
    (weights,) = online["weights"]
    assert weights == {"name": hub.NAME, "licence": "mit", "source": address, "revision": COMMIT}
    assert online["languages"] == ["en", "de"]

    requests = len(hub.asked)
    names = (f"{hub.NAME}@v1", f"{hub.NAME}@{COMMIT}", f"{hub.NAME}@other", "someone/else")
    by_tag, by_commit, *missing = find(home, hub.address, *names, offline=True)
    assert by_tag == by_commit == online
    for error in errors(missing):
        assert "is not on this machine and cannot be fetched: set HF_HUB_OFFLINE=0 to fetch it" in error
    # A file of it is lost: no half model is taken.
    (Path(by_tag["folder"]) / "model.safetensors").unlink()
    (half,) = errors(find(home, hub.address, f"{hub.NAME}@v1", offline=True))
    assert f"{hub.NAME} is not on this machine" in half
    assert len(hub.asked) == requests

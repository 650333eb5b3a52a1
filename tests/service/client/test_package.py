"""Programs import the client as `reelfind.client`, alone."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Prints what importing the client has loaded of ours, and of what a server needs.
LOADED = """
import json, sys
sys.path[:0] = sys.argv[1:]
from reelfind.client import AsyncClient, Client
import service.client
assert Client is service.client.Client
Client("http://localhost").close()
wanted = "reelfind service model indexer fastapi starlette faiss onnxruntime lance numpy".split()
print(json.dumps({
    "modules": sorted(name for name in sys.modules if name.split(".")[0] in wanted),
    "from": sys.modules["reelfind.client"].__file__,
}))
"""


def loaded(*folders: Path) -> tuple[set[str], Path]:
    run = subprocess.run(
        [sys.executable, "-P", "-c", LOADED, *map(str, folders)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    return set(said["modules"]), Path(said["from"])


def check_alone(modules: set[str]) -> None:
    others = {"reelfind", "reelfind.client", "service", "service.client"}
    assert {name for name in modules if not name.startswith("service.client.")} == others


def test_the_client_loads_nothing_else() -> None:
    modules, _ = loaded(ROOT, ROOT / "service" / "public")
    check_alone(modules)


@pytest.mark.slow
def test_the_built_package_has_it(tmp_path: Path) -> None:
    # Not imported here: it changes how other tests see what is installed.
    if int(metadata.version("setuptools").split(".")[0]) < 80:
        pytest.skip("setuptools is older than pyproject.toml asks for")
    # Of the repository what the package `service` needs to be built, so that nothing is written into it.
    source = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", "indexer/stages/transnetv2/LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "service", source / "service", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-P", "-c", build, str(tmp_path)], cwd=source, capture_output=True, check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    shutil.unpack_archive(wheel, installed, "zip")
    modules, where = loaded(installed)
    check_alone(modules)
    assert where == installed / "reelfind" / "client.py"
    assert (installed / "reelfind" / "py.typed").exists()
    assert not (installed / "service" / "public").exists()

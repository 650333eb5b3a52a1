"""Serving, indexing and the runtime run where PyTorch is not installed."""

import subprocess
import sys

import pytest

# As if PyTorch were installed: looking for it is harmless (lance does), running its code is not.
IMPORT_ALL = """
import importlib, importlib.machinery, pkgutil, sys

class Installed:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "sentence_transformers"):
            return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        print("IMPORTED", module.__name__)
        raise ImportError(module.__name__)

sys.meta_path.insert(0, Installed())
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)
        print("ok", module.name)
"""


@pytest.mark.parametrize("package", ["model.runtime", "indexer", "service"])
def test_no_module_imports_torch(package: str) -> None:
    """Every module is imported; one that asks for PyTorch, even inside of `try`, is named."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, package], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "IMPORTED" not in run.stdout, run.stdout
    assert f"ok {package}." in run.stdout

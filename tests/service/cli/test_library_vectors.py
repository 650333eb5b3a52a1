"""What stores and searches vectors: `reelfind index --index-backend`, `reelfind library vectors rebuild`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.command_line import check_error, invoke
from tests.support.toy_library import ToyLibrary


def hits(library: Path, bundle: Path) -> list[tuple[str, float]]:
    result = invoke("search", "red", "--library", library, "--bundle", bundle, "--json")
    assert result.exit_code == 0, result.output
    return [(Path(hit["path"]).name, round(hit["score"], 4)) for hit in json.loads(result.stdout)["hits"]]


def backend(library: Path) -> dict[str, str]:
    result = invoke("library", "info", "--library", library, "--json")
    found: dict[str, str] = json.loads(result.stdout)["index"]
    return found


def test_the_index_is_made_anew_with_another_backend(toy: ToyLibrary, tmp_path: Path) -> None:
    library = Path(shutil.copytree(toy.library, tmp_path / "library"))
    assert backend(library) == {"backend": "faiss", "factory": "Flat", "requested": "auto"}
    before = hits(library, toy.bundle)
    result = invoke("library", "vectors", "rebuild", "--library", library, "--index-backend", "lance")
    assert result.exit_code == 0, result.output
    assert "snapshot 2 is served now: 3 vectors, backend lance, kind Flat" in result.output
    assert hits(library, toy.bundle) == before
    # Remembered, by further runs too.
    result = invoke("library", "vectors", "rebuild", "--library", library, "--json")
    body = json.loads(result.stdout)
    assert (body["snapshot"], body["backend"], body["factory"], body["num_segments"]) == (
        3,
        "lance",
        "Flat",
        3,
    )
    assert invoke("library", "verify", "--library", library).exit_code == 0
    options: list[str | Path] = ["--library", library, "--bundle", toy.bundle, "--workers", "0"]
    result = invoke("index", toy.media, *options, "--index-backend", "faiss")
    assert result.exit_code == 0, result.output
    assert backend(library)["backend"] == "faiss"
    assert hits(library, toy.bundle) == before


def test_what_cannot_be_made_is_refused_with_a_remedy(toy: ToyLibrary, tmp_path: Path) -> None:
    library = Path(shutil.copytree(toy.library, tmp_path / "library"))
    rebuild: list[str | Path] = ["library", "vectors", "rebuild", "--library", library]
    for arguments, message in (
        (
            ["--index-backend", "milk"],
            "--index-backend is 'milk': it must be one of faiss, lance, milvus, or auto",
        ),
        (["--index-backend", "milvus"], "`export REELFIND_VECTORS=milvus://localhost:19530`"),
        (
            ["--index-backend", "lance", "--index-factory", "HNSW32"],
            "use one like 'Flat' or 'IVF1024,SQ8', or",
        ),
    ):
        check_error(invoke(*rebuild, *arguments), 2, message)
    result = invoke("library", "vectors", "rebuild", "--library", tmp_path / "none")
    assert result.exit_code == 3
    assert "no library at" in result.output
    assert backend(library)["backend"] == "faiss"

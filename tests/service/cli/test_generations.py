"""The commands that change a library's model: index with another bundle, publish, roll back, drop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from model.runtime.bundle import Bundle
from tests.support.command_line import check_error, invoke
from tests.support.toy_generations import make_turned_bundle
from tests.support.toy_library import ToyLibrary, make_library

pytestmark = pytest.mark.slow

FILMS = {f"{colour}.mp4": [(colour, 0.5)] for colour in ("red", "green", "blue")}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    """A library, and in `bundles` its bundle and another one."""
    root = tmp_path_factory.mktemp("generations")
    made = make_library(root, FILMS)
    make_turned_bundle(root / "bundles" / "turned", 3)
    made.bundle.rename(root / "bundles" / "toy")
    (root / "queries.jsonl").write_text('{"query": "red", "video": "red.mp4"}\n{"query": "blue"}\n')
    return ToyLibrary(made.media, made.library, root / "bundles" / "toy")


@pytest.fixture
def toy(template: ToyLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyLibrary:
    shutil.copytree(template.library, tmp_path / "library")
    monkeypatch.setenv("REELFIND_BUNDLES", str(template.bundle.parent))
    return ToyLibrary(template.media, tmp_path / "library", template.bundle)


def index(toy: ToyLibrary, *options: str | Path) -> str:
    result = invoke("index", toy.media, "--library", toy.library, "--workers", "0", *options)
    assert result.exit_code == 0, result.output
    return result.output


def as_json(*arguments: str | Path) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def first(toy: ToyLibrary, text: str) -> str:
    result = invoke("search", text, "--library", toy.library)
    assert result.exit_code == 0, result.output
    return Path(result.stdout.splitlines()[0].split()[-1]).name


def test_from_one_model_to_another_and_back(toy: ToyLibrary) -> None:
    turned = toy.bundle.with_name("turned")
    queries = toy.bundle.parent.parent / "queries.jsonl"
    name = Bundle.open(turned).checksum[:12]
    said = index(toy, "--bundle", turned)
    assert f"is served; this run writes generation {name} (bundle 'turned by 3') beside it" in said
    assert "snapshot 2 is ready beside the one that is served" in said
    assert "how it agrees with the served one is not measured: `--queries FILE`" in said
    assert f"generation {name} is ready, and not served: `reelfind library publish" in said
    said = index(toy, "--bundle", turned, "--queries", queries)
    assert "agreement on 2 queries: of the 10 best videos both have 100%" in said
    assert said.count("R@1 100.0, R@5 100.0, R@10 100.0 (n = 1)") == 2
    info = as_json("library", "info", "--library", toy.library)
    assert [(g["name"], g["state"]) for g in info["generations"]][1] == (name, "complete")
    assert [(s["number"], s["staged"]) for s in info["snapshots"]] == [(1, None), (2, "complete")]
    assert info["bundle"]["name"] == "toy"
    text = invoke("library", "info", "--library", toy.library).stdout
    assert f"  {name}  turned by 3  3 videos, " in text
    assert (
        "snapshot 2, not served yet: intact" in invoke("library", "verify", "--library", toy.library).stdout
    )
    published = invoke("library", "publish", "--library", toy.library)
    assert "snapshot 2 of bundle turned by 3 is served now" in published.stdout
    assert first(toy, "red") == "red.mp4", "the bundle is found, whatever the settings name"
    assert "3 unchanged" in index(toy), "without --bundle, that of the library"
    doctor = invoke("doctor", "--library", toy.library).stdout
    assert f"bundle         found at {turned}" in doctor
    assert "made with bundle toy: 3 videos" in doctor
    back = invoke("library", "rollback", "--library", toy.library)
    assert "snapshot 1 is served now" in back.stdout
    assert first(toy, "red") == "red.mp4"
    dropped = as_json("library", "drop", name[:4], "--library", toy.library, "--keep-minutes", "0")
    assert (dropped["generation"], dropped["bytes"] > 1000) == (name, True)
    check_error(
        invoke("library", "publish", "--library", toy.library), 3, "has one generation, which is served"
    )
    check_error(
        invoke("library", "drop", "ffff", "--library", toy.library), 3, "it has only the one that is served"
    )


def test_build_compare_and_publish_in_one_command(toy: ToyLibrary) -> None:
    options = ("--bundle", toy.bundle.with_name("turned"), "--publish")
    queries = toy.bundle.parent.parent / "queries.jsonl"
    body = as_json(
        *("index", toy.media / "red.mp4", "--library", toy.library, "--workers", "0", *options),
        *("--queries", queries),
    )
    staged = body["staged"]
    assert (body["served"], body["snapshot"], staged["published"]) == (False, 2, True)
    assert [Path(path).name for path in staged["lacking"]] == ["blue.mp4", "green.mp4"]
    assert staged["agreement"]["after"]["R@1"] == 100.0
    assert staged["agreement"]["overlap"] == pytest.approx(1 / 3), "of three videos it has one"
    assert first(toy, "green") == "red.mp4"
    said = index(toy, *options, "--queries", queries)
    assert "the generation of this bundle is the one that is served: there is nothing to compare" in said
    assert first(toy, "green") == "green.mp4"


def test_an_empty_generation_is_not_published(toy: ToyLibrary, tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)))
    result = invoke(
        *("index", tmp_path / "noise.mp4", "--library", toy.library, "--workers", "0"),
        *("--bundle", toy.bundle.with_name("turned"), "--publish"),
    )
    assert result.exit_code == 1
    assert "not published: no video of the new generation can be searched" in result.stderr
    assert first(toy, "green") == "green.mp4"


def test_a_bundle_in_no_known_folder(toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REELFIND_BUNDLES")
    said = (
        r"was made with the bundle 'toy' \([0-9a-f]{12}\), which lies in no known folder: "
        r".*--bundle \S+mini --publish"
    )
    check_error(invoke("search", "red", "--library", toy.library), 3, said)
    check_error(invoke("index", toy.media, "--library", toy.library), 3, said)
    doctor = invoke("doctor", "--library", toy.library)
    assert doctor.exit_code == 3
    assert "lies in no known folder" in doctor.stdout


def test_a_run_without_a_bundle_completes_a_library_that_was_half_made(
    tmp_path: Path, template: ToyLibrary
) -> None:
    (tmp_path / "library" / "snapshots").mkdir(parents=True)
    result = invoke("index", template.media, "--library", tmp_path / "library", "--workers", "0")
    assert result.exit_code == 0, result.output
    assert as_json("library", "info", "--library", tmp_path / "library")["bundle"]["name"] == "mini"


def test_a_new_version_of_a_bundle_in_the_same_folder(toy: ToyLibrary, tmp_path: Path) -> None:
    """The library's own bundle is gone; the next generation is the remedy, and the library stays whole."""
    folder = tmp_path / "mine"
    shutil.copytree(toy.bundle, folder)
    library = ToyLibrary(toy.media, tmp_path / "mine-library", folder)
    library.index()
    shutil.rmtree(folder)
    make_turned_bundle(folder, 5)
    mine = ToyLibrary(toy.media, library.library, folder)
    assert "is served now" in index(mine, "--bundle", folder, "--publish")
    result = invoke("search", "blue", "--library", mine.library, "--bundle", folder)
    assert "blue.mp4" in result.stdout.splitlines()[0]


def test_a_query_file_that_cannot_be_read_ends_the_run_before_it_begins(
    toy: ToyLibrary, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text('{"video": "red.mp4"}\n')
    arguments = ("index", toy.media, "--library", toy.library, "--bundle", toy.bundle.with_name("turned"))
    check_error(invoke(*arguments, "--queries", tmp_path / "bad.jsonl"), 2, 'line 1: "query" is missing')
    (tmp_path / "bad.jsonl").write_text(json.dumps({"query": "a\u0000b"}) + "\n")
    check_error(invoke(*arguments, "--queries", tmp_path / "bad.jsonl"), 2, "bad.jsonl, line 1: ")
    assert not (toy.library / "generations").exists()

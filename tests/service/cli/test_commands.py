"""The `reelfind` command: what it prints, its exit codes, and errors as one line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from model.runtime.bundle.manifest import Provenance, SourceRecord
from service.cli.exits import ReelfindGroup
from tests.support.command_line import check_error, invoke
from tests.support.server import REELFIND, clean_environment, running_server
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("REELFIND_"):
            monkeypatch.delenv(name)


def check_usage(result: Result, said: str) -> None:
    """A wrong option: told by the command line's parser, with its exit code."""
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.replace("│", " ").split()), result.stderr


# -- as a process: exit codes, streams and signals are the system's


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command([*REELFIND, *map(str, arguments)])


def run_command(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = clean_environment()
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def test_search_prints_the_promised_object_and_nothing_else(toy: ToyLibrary) -> None:
    done = run("search", "something red", *toy.options, "--json", "--top-k", "2")
    assert (done.returncode, done.stderr) == (0, "")
    body = json.loads(done.stdout)
    reranking = {"reranked", "rerank_skipped", "rerank_reduced", "num_candidates", "num_candidates_wanted"}
    told = {"hits", "best_guess", "probability_skipped", "query_warnings", "library_warnings", "snapshot"}
    told |= {"timings_ms", "num_videos", "next_page_token"}
    assert set(body) == told | reranking
    assert Path(body["hits"][0]["path"]).name == "red.mp4"
    assert len(body["hits"]) == 2
    for hit in body["hits"]:
        place = {
            "video_id",
            "path",
            "missing",
            "title",
            "file_title",
            "tags",
            "captured_at",
            "captured_source",
            "place",
            "camera",
            "has_sound",
            "start_seconds",
            "end_seconds",
            "container_start_seconds",
        }
        told = {"score", "similarity", "match_score", "probability", "level", "frames", "text_matches"}
        told |= {"moments", "steps", "explanation"}
        assert set(hit) == place | told
        frame = {"frame_id", "pts_seconds", "relevance", "salient", "match_score"}
        assert all(set(each) == frame for each in hit["frames"])


def test_an_error_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = run("search", "red", "--library", tmp_path / "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"reelfind: no library at .*reelfind index PATH.*\n", done.stderr)


def test_a_reader_that_leaves_early_is_no_traceback(toy: ToyLibrary) -> None:
    command = " ".join([*REELFIND, "search", "red", "--json", *toy.options]) + " | true"
    done = run_command(["/bin/sh", "-c", command])
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_its_address_and_ends_with_0_when_told_to(
    toy: ToyLibrary, number: signal.Signals
) -> None:
    with running_server(*toy.options) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.log()


def test_serve_on_a_port_that_is_taken(toy: ToyLibrary) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", *toy.options, "--port", str(port))
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(rf"reelfind: cannot listen on 127.0.0.1 port {port}: .*--port.*\n", done.stderr)


# -- in this process


def test_version_and_help_name_every_command() -> None:
    assert re.fullmatch(r"reelfind \d+\.\d+\.\d+\n", invoke("--version").stdout)
    listed = invoke("--help").stdout
    for command in ("index", "serve", "search", "eval", "demo", "library", "bundle", "bench"):
        assert re.search(rf"\b{command}\b", listed)
    assert invoke().exit_code == 2


def test_search_prints_a_line_for_each_moment_in_a_pipe(toy: ToyLibrary) -> None:
    result = invoke("search", "blue", *toy.options)
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    body = json.loads(invoke("search", "blue", "--json", *toy.options).stdout)
    assert [line[4] for line in lines] == [hit["path"] for hit in body["hits"]]
    score, start, end, salient, _ = lines[0]
    assert (float(score) > 4, start, end) == (True, "0:00.0", "0:02.0")
    assert all(re.fullmatch(r"0:0[01]\.\d", time) for time in salient.split())
    assert len(salient.split()) == 2
    videos = invoke("search", "blue", "--group-by", "video", *toy.options).stdout.splitlines()
    paths = [line.split("\t")[4] for line in videos]
    assert len(set(paths)) == len(paths) == 3


def test_the_library_may_come_from_the_environment(toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFIND_LIBRARY", str(toy.library))
    monkeypatch.setenv("REELFIND_BUNDLE", str(toy.bundle))
    monkeypatch.setenv("REELFIND_DEFAULT_TOP_K", "1")
    assert len(json.loads(invoke("search", "red", "--json").stdout)["hits"]) == 1
    assert len(json.loads(invoke("search", "red", "--json", "--top-k", "3").stdout)["hits"]) == 3
    monkeypatch.setenv("REELFIND_PORT", "eighty")
    check_error(invoke("search", "red"), 2, "REELFIND_PORT is 'eighty'")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The query is empty"),
        ("  ", "The query is empty"),
        ("x" * 5000, "5,000 characters; at most 1,000"),
        ("a\x00b", r"U\+0000"),
        ("a\udcff", r"U\+DCFF"),
    ],
)
def test_queries_that_cannot_be_used(toy: ToyLibrary, text: str, said: str) -> None:
    check_error(invoke("search", text, *toy.options), 2, said)


def test_words_need_no_quotes(toy: ToyLibrary) -> None:
    quoted = invoke("search", "a red picture", "--json", *toy.options)
    unquoted = invoke("search", "a", "red", *toy.options, "picture", "--json")
    assert unquoted.exit_code == 0, unquoted.output
    assert json.loads(unquoted.stdout)["hits"] == json.loads(quoted.stdout)["hits"]
    check_usage(invoke("search", *toy.options), "there is nothing to search for: give a text")


@pytest.mark.parametrize("top_k", ["0", "-1", "1000000"])
def test_a_top_k_out_of_bounds(toy: ToyLibrary, top_k: str) -> None:
    check_error(
        invoke("search", "red", "--top-k", top_k, *toy.options), 2, f"top_k is {top_k}; ask for 1 to 1,000"
    )


def test_options_of_another_type(toy: ToyLibrary) -> None:
    check_usage(invoke("search", "red", "--top-k", "ten", *toy.options), "Invalid value for '--top-k'")
    check_usage(
        invoke("search", "red", "--num-candidates", "all", *toy.options),
        "Invalid value for '--num-candidates'",
    )
    check_usage(invoke("search", "red", "--provider", "abacus", *toy.options), "abacus")
    check_usage(invoke("search", "red", "--colour", "1", *toy.options), "No such option: --colour")
    check_usage(invoke("search"), "there is nothing to search for: give a text")
    check_usage(invoke("find"), "No such command 'find'")
    check_error(invoke("serve", "--port", "70000", *toy.options), 2, "--port is 70000")


def test_nothing_found_is_exit_code_1(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    (toy.media / "red.mp4").unlink()
    toy.index()
    result = invoke("search", "red", *toy.options, "--json")
    assert (result.exit_code, json.loads(result.stdout)["hits"]) == (1, [])
    check_error(invoke("search", "red", *toy.options), 1, "nothing found")


def test_libraries_and_bundles_that_cannot_be_used(toy: ToyLibrary, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    check_error(
        invoke("search", "red", "--library", empty, "--bundle", toy.bundle), 3, "is not a library: create one"
    )
    nowhere = tmp_path / "nowhere"
    check_error(invoke("search", "red", "--library", toy.library, "--bundle", nowhere), 2, "no bundle at")
    check_error(invoke("serve", "--library", toy.library, "--bundle", nowhere), 2, "no bundle at")
    check_error(
        invoke("serve", "--library", toy.library, "--bundle", empty, "--port", "0"), 3, "does not exist"
    )
    other = make_toy_bundle(tmp_path / "other", name="other")
    missing = (
        r"made with the bundle 'toy' \([0-9a-f]{12}\), which lies in no known folder: .*REELFIND_BUNDLES"
    )
    check_error(invoke("search", "red", "--library", toy.library, "--bundle", other), 3, missing)


def test_a_damaged_library(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    file = toy.library / "snapshots" / "1" / "segments.faiss"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    check_error(invoke("search", "red", *toy.options), 3, "segments.faiss is damaged.*rollback")


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    file = tmp_path / "queries.jsonl"
    rows = [
        {"query": "red", "video": "red.mp4", "set": "good"},
        {"query": "blue", "video": "blue, früher.mp4", "set": "good"},
        {"query": "green", "video": "red.mp4", "set": "bad"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def test_eval_prints_the_promised_object(toy: ToyLibrary, queries: Path) -> None:
    result = invoke("eval", "--queries", queries, *toy.options, "--json")
    assert result.exit_code == 0
    figures = json.loads(result.stdout)
    names = ["n", "R@1", "R@5", "R@10", "MdR", "MnR"]
    others = ["global", "ensemble", "rerank_skipped", "first_places", "not_understood", "truncated"]
    assert list(figures) == [*names, *others]
    assert {name: figures[name] for name in names} == figures["ensemble"]
    assert list(figures["global"]) == names
    assert figures["n"] == 3
    assert figures["R@1"] == pytest.approx(100 * 2 / 3)
    assert (figures["R@5"], figures["MdR"]) == (100.0, 1.0)
    good = json.loads(invoke("eval", "--queries", queries, "--set", "good", *toy.options, "--json").stdout)
    perfect = {"n": 2, "R@1": 100.0, "R@5": 100.0, "R@10": 100.0, "MdR": 1.0, "MnR": 1.0}
    unchanged = {"gained": 0, "lost": 0, "p": 1.0}
    counts = {"first_places": unchanged, "not_understood": 0, "truncated": 0}
    assert good == {**perfect, "global": perfect, "ensemble": perfect, "rerank_skipped": None, **counts}
    shown = invoke("eval", "--queries", queries, *toy.options).stdout
    assert re.search(r"^ +global +ensemble$", shown, re.MULTILINE)
    assert re.search(r"^R@1 +66\.7 +66\.7$", shown, re.MULTILINE)
    assert "Re-ranking finds 0 more videos first and 0 fewer (p = 1, McNemar's exact test)." in shown


def test_eval_without_reranking_prints_the_first_stage(toy: ToyLibrary, queries: Path) -> None:
    arguments: list[str | Path] = ["eval", "--queries", queries, "--no-rerank", *toy.options]
    figures = json.loads(invoke(*arguments, "--json").stdout)
    assert (figures["ensemble"], figures["rerank_skipped"]) == (None, "not_requested")
    assert figures["global"].items() <= figures.items()
    assert re.search(r"^R@1 +66\.7$", invoke(*arguments).stdout, re.MULTILINE)


def test_eval_with_a_file_that_cannot_be_used(toy: ToyLibrary, queries: Path, tmp_path: Path) -> None:
    check_error(invoke("eval", "--queries", tmp_path / "none", *toy.options), 2, "none cannot be read")
    check_error(invoke("eval", "--queries", tmp_path, *toy.options), 2, "cannot be read")
    queries.write_text('{"query": "red", "video": "red.mp4"}\n{"query": "red", "video": "pink.mp4"}\n')
    check_error(
        invoke("eval", "--queries", queries, *toy.options), 2, 'line 2: the library has no video "pink.mp4"'
    )
    check_error(
        invoke("eval", "--queries", queries, "--set", "z", *toy.options), 2, 'holds no query of the set "z"'
    )


def test_commands_of_other_packages_report_in_the_same_way(toy: ToyLibrary, tmp_path: Path) -> None:
    none = tmp_path / "none"
    check_error(
        invoke("index", none, "--library", tmp_path / "library", "--bundle", toy.bundle), 2, "name files or"
    )
    assert invoke("library", "info", "--library", toy.library).exit_code == 0
    assert invoke("bundle", "verify", toy.bundle).exit_code == 0
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "bundle.json").write_text("{")
    check_error(invoke("bundle", "info", tmp_path / "damaged"), 3, "bundle.json is not JSON")


def test_what_nobody_foresaw_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = typer.Typer(cls=ReelfindGroup, pretty_exceptions_enable=False)

    @broken.command()
    def divide() -> None:
        raise ZeroDivisionError("of no use")

    @broken.command()
    def other() -> None:
        pass

    result = CliRunner().invoke(broken, ["divide"])
    check_error(result, 3, "internal error, ZeroDivisionError: of no use.*REELFIND_TRACEBACK=1")
    monkeypatch.setenv("REELFIND_TRACEBACK", "1")
    assert isinstance(CliRunner().invoke(broken, ["divide"]).exception, ZeroDivisionError)


def test_only_serve_loads_the_web_framework() -> None:
    code = "import sys, service.cli.app; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"fastapi", "uvicorn", "starlette"}.isdisjoint(result.stdout.split())
    assert "service.cli.serve" in result.stdout.split()


def test_a_bundle_is_described_for_people(tmp_path: Path) -> None:
    recipe = {"name": "small", "model": {"dim": 8, "deep": True, "empty": ""}}
    source = {"name": "a/model", "licence": "MIT", "source": "a hub", "revision": "abc123"}
    provenance = Provenance(
        recipe=json.dumps(recipe),
        data=(),
        weights=(SourceRecord(**source),),
        commit="1234567",
        metrics={"tests": {"set": {"R@1": 12.3456}}, "many": {str(n): {"n": n} for n in range(11)}},
    )
    folder = make_toy_bundle(tmp_path / "bundle", provenance=provenance, languages=("en", "de"))
    shown = invoke("bundle", "info", folder).stdout
    for line in (
        "recipe       name small",
        "recipe       model: dim 8, deep yes",
        "commit       1234567",
        "weights      a/model (licence: MIT), a hub, revision abc123",
        "measured     tests, set: R@1 12.35",
        "measured     many, 7: n 7",
        "measured     many: 3 more lines, see --json",
    ):
        assert f"{line}\n" in shown
    assert "languages: en de" in shown
    assert "{" not in shown
    assert json.loads(invoke("bundle", "info", folder, "--json").stdout)["text"]["languages"] == ["en", "de"]

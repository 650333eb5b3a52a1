"""The options of `reelfind search` and `reelfind eval` that are about re-ranking."""

import json
import re
from pathlib import Path

import pytest

from tests.support.command_line import check_error, invoke
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_library import ToyLibrary, make_library
from tests.support.toy_videos import make_video


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_CANDIDATES", "MAX_TOP_K", "DEFAULT_TOP_K"):
        monkeypatch.delenv(f"REELFIND_{name}", raising=False)


def test_search_explains_scores(toy: ToyLibrary) -> None:
    arguments = ("search", "blue", "--num-candidates", "2", "--num-salient-frames", "3", *toy.options)
    lines = invoke(*arguments, "--explain").stdout.splitlines()
    explained = [i for i, line in enumerate(lines) if line.endswith("blue, früher.mp4")][-1]
    pattern = (
        r"  \d+\.\d{4} = \d\.\d{4} \(mean match of the salient frames: 3\) \+ 1 × \d\.\d{4} \(similarity\)"
        r" \+ \d\.\d{4} \(text\)"
    )
    assert re.fullmatch(pattern, lines[explained + 1])
    assert lines[explained + 2] == "  before re-ranking: place 1 of all segments"
    for line in lines[explained + 3 : explained + 6]:
        assert re.fullmatch(r"  frame at 0:0[01]\.\d: relevance \d\.\d{4}, match \d\.\d{4}", line)
    assert sum("behind all that were re-ranked: 2" in line for line in lines) == 1
    assert "mean match" not in invoke(*arguments).stdout
    body = json.loads(invoke(*arguments, "--explain", "--json").stdout)
    assert (body["reranked"], body["rerank_skipped"], body["num_candidates"]) == (True, None, 2)
    assert [hit["explanation"]["first_stage_rank"] for hit in body["hits"]] == [1, 2, 3]


def test_search_without_reranking(toy: ToyLibrary) -> None:
    arguments = ("search", "blue", "--no-rerank", *toy.options)
    body = json.loads(invoke(*arguments, "--json").stdout)
    assert (body["reranked"], body["rerank_skipped"], body["num_candidates"]) == (False, "not_requested", 0)
    for hit in body["hits"]:
        named = any(match["kind"] == "name" for match in hit["text_matches"])
        assert named == (Path(hit["path"]).name == "blue, früher.mp4")
        assert (hit["score"] > hit["similarity"]) == named
    result = invoke(*arguments, "--explain")
    assert "similarity alone" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("lacking", ["matcher", "tokens"])
def test_a_bundle_without_a_matching_head_is_noted(tmp_path: Path, lacking: str) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]}, **{lacking: False})
    result = invoke("search", "red", *toy.options)
    assert (result.exit_code, result.stderr) == (
        0,
        "reelfind: note: not re-ranked: the bundle has no match\n",
    )
    body = json.loads(invoke("search", "red", "--json", *toy.options).stdout)
    assert (body["reranked"], body["rerank_skipped"]) == (False, "no_matcher")


@pytest.mark.parametrize("command", ["search", "eval"])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--num-candidates", "0", "num_candidates is 0; 1 to 1,000 can be re-ranked"),
        ("--num-candidates", "-3", "num_candidates is -3; 1 to 1,000"),
        ("--num-candidates", "5000", "num_candidates is 5000; 1 to 1,000"),
        ("--num-salient-frames", "0", "num_salient_frames is 0; ask for 1 to 16"),
        ("--num-salient-frames", "17", "num_salient_frames is 17; ask for 1 to 16"),
    ],
)
def test_re_ranking_options_out_of_bounds(
    toy: ToyLibrary, tmp_path: Path, command: str, option: str, value: str, said: str
) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"query": "red", "video": "red.mp4"}\n')
    what = ["red"] if command == "search" else ["--queries", queries]
    check_error(invoke(command, *what, option, value, *toy.options), 2, said)


def test_a_bundle_without_tokens_is_indexed_and_searched(tmp_path: Path) -> None:
    bundle, library = make_toy_bundle(tmp_path / "bundle", tokens=False), tmp_path / "library"
    for colour in ("red", "blue"):
        make_video(tmp_path / f"media/{colour}.mp4", parts=[(colour, 0.5)])
    options = ("--library", str(library), "--bundle", str(bundle))
    index = ("index", str(tmp_path / "media"), "--workers", "0", *options)
    assert invoke(*index).exit_code == 0
    info = json.loads(invoke("library", "info", "--library", str(library), "--json").stdout)
    assert info["tokens"] == {"stored": "none", "per_frame": 0, "dim": 0}
    assert invoke("library", "verify", "--library", str(library)).exit_code == 0
    body = json.loads(invoke("search", "blue", "--json", *options).stdout)
    assert (body["reranked"], body["rerank_skipped"]) == (False, "no_matcher")
    assert [Path(hit["path"]).name for hit in body["hits"]] == ["blue.mp4", "red.mp4"]
    # Salient frames are shown without a matcher, too.
    assert all(any(frame["salient"] for frame in hit["frames"]) for hit in body["hits"])
    refused = invoke(*index, "--tokens", "int8")
    assert refused.exit_code == 2
    assert "the bundle 'toy' has no matcher and no answer head to read tokens" in refused.stderr

"""Queries that the model does not understand, or that are longer than it reads at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model.runtime.queries import LabelledQuery
from service.errors import NotUnderstoodError
from service.search.encoded_query import MAX_PARTS, encode_text_queries
from service.search.evaluation import evaluate_library
from service.search.searcher import Searcher, SearchOptions
from tests.support.command_line import check_error, invoke
from tests.support.server import Server
from tests.support.toy_bundle import CONTEXT_LENGTH, match_logit, salience, text_embedding, unit
from tests.support.toy_library import ToyLibrary, make_library

FIRST, SECOND = "red red red red red red red red red red.", "blue and blue and blue and blue and blue now."
# The full stop is part of a word for the toy tokenizer, so that "red." is another word.
LONG = f"{FIRST} {SECOND}"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("warnings"))


@pytest.mark.parametrize("text", ["zzz", "[UNK]", "猫", "x" * 200, "?!", "zzz " * 100])
def test_a_query_of_unknown_words_is_refused(server: Server, text: str) -> None:
    response = server.client.post("/v1/search", json={"query": {"text": text}})
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"] == "urn:reelfind:problem:query-not-understood"
    assert "nothing to search for" in problem["detail"]
    assert problem["errors"][0]["pointer"] == "#/query/text"


def test_refused_and_warned_queries_are_counted(server: Server) -> None:
    def counts() -> dict[str, float]:
        lines = server.client.get("/metrics").text.splitlines()
        start = "reelfind_query_warnings_total{kind="
        return {
            name.removeprefix(start).strip('"}'): float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith(start))
        }

    before = counts()
    assert set(before) == {"not_understood", "split", "truncated", "nothing_understood"}
    for text in ("zzz", "red zzz", LONG):
        server.client.post("/v1/search", json={"query": {"text": text}})
    change = {kind: value - before[kind] for kind, value in counts().items()}
    assert change == {"not_understood": 2, "split": 1, "truncated": 0, "nothing_understood": 1}


def test_known_words_decide_and_unknown_ones_are_named(server: Server) -> None:
    answer = server.ask("zzz red 猫 zzz")
    assert Path(answer["hits"][0]["path"]).name == "red.mp4"
    (warning,) = answer["query_warnings"]
    assert warning["kind"] == "not_understood"
    assert warning["details"] == {"words": ["zzz", "猫"], "num_parts": None, "left_out": None}
    assert '"zzz", "猫"' in warning["message"]
    assert server.ask("red")["query_warnings"] == []


def test_a_long_text_counts_as_the_mean_of_its_parts(searcher: Searcher) -> None:
    assert len(FIRST.split()) + len(SECOND.split()) > CONTEXT_LENGTH
    (query,) = encode_text_queries(searcher.bundle, [LONG], tokens=True)
    parts = np.stack([text_embedding(FIRST), text_embedding(SECOND)])
    expected = unit(0.5 * parts[0] + 0.5 * parts[1])
    np.testing.assert_allclose(query.embedding, expected, atol=1e-6)
    np.testing.assert_allclose(query.salience, salience(parts.mean(axis=0)), atol=1e-6)
    assert [part.weight for part in query.parts or ()] == [0.5, 0.5]
    result = searcher.search(LONG, 10, SearchOptions(num_salient_frames=1))
    assert [warning.kind for warning in result.query_warnings] == ["not_understood", "split"]
    assert result.query_warnings[1].details.num_parts == 2
    hit = next(hit for hit in result.hits if hit.path.endswith("/red.mp4"))
    # Colours of a decoded film are not exact.
    frame = np.array([[1.0, -1.0, -1.0]] * 4, np.float32)
    logit = (match_logit(FIRST, frame) + match_logit(SECOND, frame)) / 2
    assert hit.match_score == pytest.approx(logit, abs=0.2)


def test_the_end_of_a_long_text_counts(searcher: Searcher) -> None:
    start = "red car " * 20
    ends = [searcher.search(start + end, 10).hits for end in ("red", "blue blue blue blue blue")]
    assert [(h.path, h.score) for h in ends[0]] != [(h.path, h.score) for h in ends[1]]


def test_what_is_left_out_of_a_very_long_text_is_told(server: Server) -> None:
    words = " ".join(["red"] * CONTEXT_LENGTH * MAX_PARTS)
    assert [w["kind"] for w in server.ask(words)["query_warnings"]] == ["split"]
    warnings = server.ask(f"{words} blue green")["query_warnings"]
    assert [w["kind"] for w in warnings] == ["truncated"]
    assert warnings[0]["details"] == {"words": None, "num_parts": MAX_PARTS, "left_out": "blue green"}
    assert '"blue green"' in warnings[0]["message"]


def test_the_command_says_the_same(toy: ToyLibrary) -> None:
    check_error(invoke("search", "zzz 猫", *toy.options), 2, 'does not know "zzz", "猫"')
    shown = invoke("search", "red 猫", *toy.options)
    assert shown.exit_code == 0
    assert 'note: The model does not know "猫"' in shown.stderr
    printed = invoke("search", "red 猫", *toy.options, "--json")
    assert printed.stderr == ""
    assert [w["kind"] for w in json.loads(printed.stdout)["query_warnings"]] == ["not_understood"]


def test_an_evaluation_counts_them_and_goes_on(searcher: Searcher, toy: ToyLibrary, tmp_path: Path) -> None:
    queries = [
        LabelledQuery(i, text, "red.mp4") for i, text in enumerate(("red", "zzz", "猫", "red " * 200), 1)
    ]
    result = evaluate_library(searcher, queries)
    assert (result.not_understood, result.truncated) == (2, 1)
    assert result.similarity["n"] == 4
    file = tmp_path / "queries.jsonl"
    file.write_text("".join(json.dumps({"query": q.text, "video": q.video}) + "\n" for q in queries))
    shown = invoke("eval", "--queries", file, *toy.options)
    assert "knows no word of 2 queries" in shown.stderr
    assert "1 queries are too long" in shown.stderr


def test_a_text_that_is_not_understood_is_an_error_of_the_query(searcher: Searcher) -> None:
    with pytest.raises(NotUnderstoodError) as caught:
        searcher.search("zzz", 10)
    assert caught.value.field == "/query/text"


@pytest.mark.parametrize(
    ("languages", "said"),
    [(("en",), "It reads English."), (("en", "de", "xx"), "It reads English, German and xx."), ((), None)],
)
def test_the_languages_of_the_bundle_are_told(
    tmp_path: Path, languages: tuple[str, ...], said: str | None
) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]}, languages=languages)
    for query in ("猫", "red 猫"):
        error = invoke("search", query, *toy.options).stderr
        assert "does not know" in error
        assert (said in error) if said else ("It reads" not in error)

"""Queries as the stages of a search take them, texts and others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.runtime.bundle import Bundle
from service.errors import QueryError
from service.live import open_searcher
from service.search.encoded_query import EncodedQuery, QueryPart, encode_text_queries
from service.search.match_queue import MatchTerms
from service.search.rerank import rerank
from service.search.results import SearchResult
from service.search.retrieval import best_segments
from service.search.searcher import Searcher, SearchOptions
from service.search.stopwatch import Stopwatch
from service.settings import load_settings
from tests.support.frame_evidence import relevance_of
from tests.support.toy_bundle import colour_embedding, salience
from tests.support.toy_library import ToyLibrary, make_library


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyLibrary:
    return make_library(tmp_path_factory.mktemp("encoded"))


def colour_query(colour: str) -> EncodedQuery:
    """What an encoder of images would give for a picture of one colour."""
    embedding = colour_embedding(colour)
    return EncodedQuery(embedding, salience(embedding))


def names(result: SearchResult) -> list[str]:
    return [Path(hit.path).name for hit in result.hits]


@pytest.mark.parametrize(("colour", "first"), [("red", "red.mp4"), ("white", "long.mp4")])
def test_a_query_without_a_text_is_retrieved_but_not_reranked(
    searcher: Searcher, colour: str, first: str
) -> None:
    result = searcher.search_encoded(colour_query(colour), 10, SearchOptions(explain=True))
    assert (result.reranked, result.rerank_skipped, result.num_candidates) == (False, "no_text", 0)
    assert names(result)[0] == first
    assert len(result.hits) == 5
    assert result.timings_ms.retrieve > 0
    assert (result.timings_ms.encode_text, result.timings_ms.match) == (0, 0)
    hit = result.hits[0]
    assert (hit.match_score, hit.score) == (None, hit.similarity)
    assert hit.similarity == pytest.approx(1, abs=0.05)
    assert sum(frame.salient for frame in hit.frames) == searcher.bundle.manifest.num_salient_frames
    assert max(hit.frames, key=relevance_of).salient
    assert hit.explanation is not None
    assert hit.explanation.formula.endswith("(similarity alone: nothing was re-ranked)")


def test_what_was_not_asked_for_or_cannot_be_is_told_before_the_missing_text(
    tmp_path: Path, searcher: Searcher
) -> None:
    query = colour_query("red")
    without = searcher.search_encoded(query, 1, SearchOptions(rerank=False))
    assert without.rerank_skipped == "not_requested"
    plain = make_library(tmp_path, {"red.mp4": [("red", 1.0)]}, matcher=False)
    lacking = open_searcher(load_settings({"library": plain.library, "bundle": plain.bundle}))
    assert lacking.search_encoded(query, 1).rerank_skipped == "no_matcher"


def test_a_text_encoded_before_gives_what_the_text_gives(searcher: Searcher) -> None:
    for text in ("red", "a green car", "unknown white"):
        (query,) = encode_text_queries(searcher.bundle, [text], tokens=True)
        assert query.parts is not None
        whole = searcher.search(text, 10)
        encoded = searcher.search_encoded(query, 10)
        assert encoded.reranked
        assert encoded.hits == whole.hits


def test_texts_of_a_batch_are_single_queries(searcher: Searcher) -> None:
    texts = ["red", "one two three four blue", "a b"]
    queries = encode_text_queries(searcher.bundle, texts, tokens=True)
    for text, query in zip(texts, queries, strict=True):
        alone = searcher.bundle.encode_text([text], tokens=True)
        np.testing.assert_allclose(query.embedding, alone.embedding[0], atol=1e-6)
        np.testing.assert_allclose(query.salience, alone.salience[0], atol=1e-6)
        (part,) = query.parts or ()
        assert part.text.tokens is not None
        assert part.text.attention_mask.sum() == alone.attention_mask.sum() == len(text.split())
    for query in encode_text_queries(searcher.bundle, texts, tokens=False):
        assert query.parts is not None
        assert query.parts[0].text.tokens is None


def test_a_text_that_the_model_reads_nothing_in(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match="cannot read the query") as caught:
        encode_text_queries(searcher.bundle, [" "], tokens=False)
    assert caught.value.field == "/query/text"


def test_the_matching_head_refuses_a_query_without_a_text(searcher: Searcher) -> None:
    query = colour_query("red")
    candidates = best_segments(searcher.snapshot, query, 1, 3)
    with pytest.raises(ValueError, match="has no text"):
        rerank(searcher.snapshot, searcher.match_queue, query, candidates, 2, MatchTerms(), Stopwatch())


def test_only_one_query_is_taken(toy: ToyLibrary) -> None:
    encoding = Bundle.open(toy.bundle).encode_text(["red", "blue"])
    with pytest.raises(ValueError, match=r"embedding has shape \[2, 8\]"):
        EncodedQuery(encoding.embedding, encoding.salience[0])
    with pytest.raises(ValueError, match=r"salience has shape \[2, 16\]"):
        EncodedQuery(encoding.embedding[0], encoding.salience)
    with pytest.raises(ValueError, match="text holds 2 texts"):
        QueryPart(encoding)
    with pytest.raises(ValueError, match="parts is empty"):
        EncodedQuery(encoding.embedding[0], encoding.salience[0], ())


def test_searching_loads_no_web_framework() -> None:
    script = (
        "import importlib, pkgutil, sys, service.search\n"
        "names = [f'service.search.{m.name}' for m in pkgutil.iter_modules(service.search.__path__)]\n"
        "for name in names: importlib.import_module(name)\n"
        "web = {'fastapi', 'starlette', 'uvicorn', 'anyio', 'prometheus_client', 'pydantic_settings'}\n"
        "print(len(names) > 5, sorted(web & sys.modules.keys()))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "True []\n"

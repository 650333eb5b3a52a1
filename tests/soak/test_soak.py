"""A short soak, and that the naive model and the watch over the server notice what is wrong."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from service.api.answers import search_body
from service.live import open_searcher
from service.search.searcher import SearchOptions
from service.settings import load_settings
from tests.soak.__main__ import Soak
from tests.soak.films import Film
from tests.soak.naive import NaiveLibrary, Search, problems_of_answer, published_state
from tests.soak.server import Life
from tests.support.toy_bundle import make_toy_bundle

FILMS = {
    "red.mkv": Film(((200, 10, 20),)),
    "two.mkv": Film(((10, 220, 30), (20, 30, 240))),
    "grey.mkv": Film(((100, 110, 120),)),
    "noise.mkv": Film((), damage=1),
}
LAMBDA = 0.5
SEARCH = Search("red", 1000, rerank=True)


@pytest.mark.slow
def test_half_a_minute_of_changes_searches_and_kills(tmp_path: Path) -> None:
    report = Soak(tmp_path, 1).run(0.5)
    assert report.passed, "\n".join(report.lines())
    assert report.counts["search answered"] > 20
    assert report.counts["server killed"] >= 1
    assert report.counts["run to its end"] >= 1


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `FILMS`, a library of them and its bundle."""
    home = tmp_path_factory.mktemp("soak")
    (home / "media").mkdir()
    for name, film in FILMS.items():
        (home / "media" / name).write_bytes(film.data)
    bundle = Bundle.open(make_toy_bundle(home / "bundle", ensemble_lambda=LAMBDA))
    index_paths([home / "media"], home / "library", bundle, IndexOptions(workers=0), lambda _event: None)
    return home


@pytest.fixture(scope="module")
def answers(home: Path) -> dict[bool, dict[str, Any]]:
    """The real answers to `SEARCH`, re-ranked and not."""
    searcher = open_searcher(load_settings({"library": home / "library", "bundle": home / "bundle"}))
    options = [SearchOptions(rerank=rerank) for rerank in (False, True)]
    return {o.rerank: json.loads(search_body(searcher.search(SEARCH.text, 1000, o))) for o in options}


def held() -> dict[str, Film]:
    return {name: film for name, film in FILMS.items() if film.colours}


def test_a_snapshot_is_what_is_on_the_disk(home: Path) -> None:
    naive = NaiveLibrary()
    for name, film in FILMS.items():
        naive.put(name, film)
    state, missing = published_state(home / "library", 1)
    assert missing == frozenset()
    assert naive.problems_of(state, complete=True) == []
    assert len(state) == 3
    naive.settle()
    naive.put("red.mkv", Film(((1, 2, 3),)))
    naive.put("grey.mkv", None)
    # Before the next run has ended, the library may still have what was there.
    assert naive.problems_of(state, complete=False) == []
    assert len(naive.problems_of(state, complete=True)) == 2
    naive.settle()
    assert len(naive.problems_of(state, complete=False)) == 2


def test_real_answers_are_right(answers: dict[bool, dict[str, Any]]) -> None:
    for rerank, answer in answers.items():
        assert answer["reranked"] is rerank
        assert problems_of_answer(SEARCH, answer, held(), LAMBDA) == []


def _swap(answer: dict[str, Any]) -> None:
    answer["hits"].reverse()


def _lose(answer: dict[str, Any]) -> None:
    del answer["hits"][0]


def _twice(answer: dict[str, Any]) -> None:
    answer["hits"][1] = copy.deepcopy(answer["hits"][0])


def _foreign(answer: dict[str, Any]) -> None:
    answer["hits"][0]["path"] = "/media/noise.mkv"


def _other_film(answer: dict[str, Any]) -> None:
    hits = answer["hits"]
    hits[0]["path"], hits[1]["path"] = hits[1]["path"], hits[0]["path"]


def _other_similarity(answer: dict[str, Any]) -> None:
    answer["hits"][0]["similarity"] += 1e-3


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("change", [_swap, _lose, _twice, _foreign, _other_film, _other_similarity])
def test_a_wrong_answer_is_noticed(
    change: Callable[[dict[str, Any]], None], rerank: bool, answers: dict[bool, dict[str, Any]]
) -> None:
    answer = copy.deepcopy(answers[rerank])
    change(answer)
    assert problems_of_answer(SEARCH, answer, held(), LAMBDA)


def test_what_is_missing_must_come_last(answers: dict[bool, dict[str, Any]]) -> None:
    answer = copy.deepcopy(answers[False])
    first = Path(answer["hits"][0]["path"]).name
    assert problems_of_answer(SEARCH, answer, held(), LAMBDA, {first})
    answer["hits"].append(answer["hits"].pop(0) | {"missing": True})
    assert problems_of_answer(SEARCH, answer, held(), LAMBDA, {first}) == []
    assert problems_of_answer(SEARCH, answer, held(), LAMBDA)


def test_a_film_that_is_missing_or_too_much_is_noticed(answers: dict[bool, dict[str, Any]]) -> None:
    fewer = {name: film for name, film in held().items() if name != "red.mkv"}
    assert problems_of_answer(SEARCH, answers[True], fewer, LAMBDA)
    more = {**held(), "blue.mkv": Film(((0, 0, 255),))}
    assert problems_of_answer(SEARCH, answers[True], more, LAMBDA)
    one = Search("red", 1, rerank=False)
    top = {**answers[False], "hits": answers[False]["hits"][:1]}
    assert problems_of_answer(one, top, held(), LAMBDA) == []
    assert problems_of_answer(one, {**top, "hits": answers[False]["hits"][1:2]}, held(), LAMBDA)


def life(
    memory: Callable[[float], float] = lambda _: 100e6,
    files: Callable[[float], float] = lambda _: 30,
    threads: Callable[[float], float] = lambda _: 20,
) -> Life:
    return Life(0.0, [(t, int(memory(t)), int(files(t)), int(threads(t)), 8) for t in range(1, 900)])


def test_growth_after_the_warm_up_is_noticed() -> None:
    chance = random.Random(0)
    noisy = life(
        lambda t: 100e6 + 80e6 * (t < 100) + chance.randrange(10**6), lambda _: 30 + chance.randrange(3)
    )
    assert noisy.problems() == []
    assert "memory is not flat" in life(lambda t: 100e6 + 12e3 * t).problems()[0]
    assert "open files is not constant" in life(files=lambda t: 30 + t / 60).problems()[0]
    assert "threads is not constant" in life(threads=lambda t: 20 + t / 60).problems()[0]
    short = Life(0.0, [(t, t, t, t, t) for t in range(1, 200)])
    assert short.problems() == []

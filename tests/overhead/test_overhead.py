"""The comparison of two versions takes turns, leaves out the first, and says which side is slower."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from model.runtime.errors import ReelfindError
from tests.overhead.__main__ import alternately, report
from tests.overhead.sides import Side, search_seconds, texts_of, tree_of
from tests.support.paths import ROOT
from tests.support.server import Server, running_server
from tests.support.toy_library import make_library

SIDES = (Side("old", ROOT), Side("new", ROOT))


def test_sides_take_turns_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []

    def measure(side: Side) -> Sequence[float]:
        order.append(side.name)
        return len(order), -len(order)

    old, new = alternately(SIDES, 3, measure)
    assert order == ["new", "old", "old", "new", "new", "old", "old", "new"]
    assert old == [(3, 6, 7), (-3, -6, -7)]
    assert new == [(4, 5, 8), (-4, -5, -8)]


def test_the_median_of_the_ratios_decides(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("same", [1.0, 2.0, 3.0], [1.0, 2.0, 9.0])
    assert not report("slower", [1.0, 2.0, 3.0], [1.04, 2.08, 3.0])
    assert report("not judged", [1.0], [2.0], judged=False)
    said = capsys.readouterr().out.splitlines()
    assert ["pass" in line for line in said] == [True, False, False]
    assert "MISS" in said[1]
    assert "(1.000 to 1.040, n 3)" in said[1]


def metrics(server: Server) -> str:
    return server.client.get("/metrics").text


def test_searches_are_sent_and_a_failed_one_is_no_measurement(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    with running_server(*toy.options) as server:
        port = server.client.base_url.port
        assert port is not None
        assert search_seconds(port, ["red", "a red", "the red"], 2, rerank=True) > 0
        (answered,) = re.findall(
            r"^reelfind_http_requests_total\{.*search.*\} (\S+)$", metrics(server), re.MULTILINE
        )
        assert float(answered) == 3
        with pytest.raises(ReelfindError, match="answered a search with 422"):
            search_seconds(port, ["red", "x" * 2000], 1, rerank=False)


def test_the_code_of_a_commit_is_that_of_the_commit() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("there is no git repository")
    with tree_of("HEAD") as tree:
        assert (tree / "service" / "cli" / "app.py").is_file()
        assert not (tree / ".git").exists()
    with pytest.raises(RuntimeError, match="no commit 'nothing'"), tree_of("nothing"):
        pass
    assert len(set(texts_of(100))) == 100

"""Services of one library load a new snapshot one after the other, each at a moment that it draws."""

from pathlib import Path

from service.live import LiveLibrary, open_bundle
from service.metrics import Metrics
from service.reload_turn import ReloadTurn
from service.settings import load_settings
from tests.support.toy_library import make_library


def test_turns_come_within_the_spread_and_differ() -> None:
    turns = [ReloadTurn(100.0) for _ in range(200)]
    for turn in turns:
        turn.has_come(0.0)
    waiting = [sum(not turn.has_come(now) for turn in turns) for now in (0.0, 25.0, 50.0, 75.0, 100.0)]
    assert waiting == sorted(waiting, reverse=True)
    assert (waiting[0], waiting[-1]) == (200, 0)
    # Of 200 draws from a uniform distribution, between 50 and 150 come by half of the time (sigma 7).
    assert 50 < waiting[2] < 150


def test_what_is_published_meanwhile_does_not_put_a_turn_off() -> None:
    turn = ReloadTurn(10.0)
    assert not turn.has_come(-1e-9)
    assert turn.has_come(10.0)
    turn.end()
    assert not turn.has_come(20.0 - 1e-9) or turn.has_come(20.0)
    assert turn.has_come(30.0)


def test_without_a_spread_it_comes_at_once() -> None:
    assert ReloadTurn(0.0).has_come(5.0)


def test_a_service_waits_for_its_turn_but_neither_at_the_start_nor_when_it_is_asked(tmp_path: Path) -> None:
    toy = make_library(tmp_path, {"red.mp4": [("red", 1.0)]})
    flags = {"library": toy.library, "bundle": toy.bundle, "scrub_hours": 0, "reload_spread_seconds": 3600}
    settings = load_settings(flags)
    live = LiveLibrary(settings, open_bundle(settings), Metrics())
    live.poll(in_turn=True)
    assert live.searcher.snapshot.number == 1
    toy.film("blue.mp4", [("blue", 1.0)])
    toy.index()
    live.poll(in_turn=True)
    assert live.searcher.snapshot.number == 1
    assert live.problem is None
    live.poll()
    assert live.searcher.snapshot.number == 2
    live.close()

"""The places for encoders: a limit altogether, and one for each viewer."""

from __future__ import annotations

import pytest

from service.errors import EncodersBusyError, NoEncodersError
from service.playback.encoders import Encoders

ONE, OTHER = ("10.0.0.1", "tab"), ("10.0.0.2", "tab")


def test_there_is_a_limit_and_it_says_when_to_try_again() -> None:
    counts: list[int] = []
    encoders = Encoders(2, counts.append)
    first = encoders.take(None)
    encoders.take(None)
    with pytest.raises(EncodersBusyError, match=r"2 streams and clips .* REELFIND_MAX_ENCODERS") as refused:
        encoders.take(None)
    assert refused.value.retry_seconds >= 1
    first.end()
    first.end()
    encoders.take(None)
    assert counts == [1, 2, 1, 2]


def test_a_viewer_who_asks_again_gets_the_place_of_before() -> None:
    counts: list[int] = []
    encoders = Encoders(2, counts.append)
    ended: list[str] = []
    first = encoders.take(ONE)
    first.stop = lambda: ended.append("first")
    encoders.take(OTHER)
    second = encoders.take(ONE)
    assert ended == ["first"]
    assert (first.has_ended, second.has_ended) == (True, False)
    # The first, which is only now told, must not free the place of the second.
    first.end()
    with pytest.raises(EncodersBusyError):
        encoders.take(None)
    second.stop = lambda: ended.append("second")
    encoders.end_all()
    assert ended == ["first", "first", "second"]
    assert counts[-1] == 0


def test_none_are_made_where_there_are_no_places() -> None:
    with pytest.raises(NoEncodersError, match="REELFIND_MAX_ENCODERS is 0"):
        Encoders(0, lambda _: None).take(None)

"""How values are shown in messages."""

import pytest

from model.runtime.messages import shorten


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("ten", '"ten"'),
        (True, "true"),
        (None, "null"),
        ([1, 2], "[1, 2]"),
        ("a\x00\u202eb", '"a\\u0000\\u202eb"'),
        ("\ud800", '"\\ud800"'),
        (b"x", "\"b'x'\""),
        pytest.param(10**5000, "a number that is too long", id="5,001 digits"),
    ],
)
def test_values_are_shown_as_json_and_safe_to_print(value: object, shown: str) -> None:
    assert shorten(value) == shown
    shorten(value).encode("utf-8")


def test_long_values_are_cut() -> None:
    assert shorten("x" * 500, 20) == '"' + "x" * 18 + "…"

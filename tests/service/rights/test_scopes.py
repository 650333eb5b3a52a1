"""Scopes: the lattice that the module draws."""

import pytest

from service.rights.scopes import INCLUDED, SCOPES, Scope, smallest, with_included

#: The lines of the drawing: what stands directly below what.
BELOW: dict[Scope, set[Scope]] = {
    "admin": {"media", "index", "metrics"},
    "media": {"search"},
    "index": set(),
    "metrics": set(),
    "search": set(),
}


def reachable(scope: Scope) -> set[Scope]:
    return {scope}.union(*(reachable(below) for below in BELOW[scope]))


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_includes_what_stands_below_it(scope: Scope) -> None:
    assert INCLUDED[scope] == reachable(scope) == with_included([scope])


def test_the_fewest_scopes_say_the_same() -> None:
    assert smallest(["search", "media"]) == ("media",)
    assert smallest(["index", "search", "index"]) == ("search", "index")
    assert smallest(SCOPES) == ("admin",)
    assert with_included(smallest(["search", "index"])) == {"search", "index"}

"""Hypothesis strategies: JSON of any kind, and JSON that differs from a good document in a few places."""

import copy
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

#: Numbers, texts and values at which programs go wrong.
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    -0.0,
    1e308,
    2**31,
    2**63,
    2**64,
    10**400,
    "",
    "x",
    "\x00",
    "../../etc/passwd",
    "/",
    "\u202e\u200b",
    "9" * 5000,
    [],
    {},
    [[]],
    {"": None},
]

#: Any JSON value, not deep.
anything: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(ODD)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def almost(draw: st.DrawFn, good: Mapping[str, Any], changes: int = 3) -> dict[str, Any]:
    """A document with up to `changes` values replaced, removed or added, at any depth."""
    # Copies, because a later change may be inside of a value that other documents share.
    document: dict[str, Any] = copy.deepcopy(dict(good))
    for _ in range(draw(st.integers(1, changes))):
        places = list(_places(document))
        holder, key = draw(st.sampled_from(places))
        how = draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "remove":
            del holder[key]
        elif how == "replace":
            holder[key] = copy.deepcopy(draw(anything))
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = copy.deepcopy(draw(anything))
        else:
            holder.insert(key, copy.deepcopy(draw(anything)))
        if not document:
            break
    return document


def deep(open_bracket: str, depth: int = 100_000) -> bytes:
    """JSON that is nested deeper than any reader's stack."""
    closing = {"[": "]", '{"a":': "}"}[open_bracket]
    return (open_bracket * depth + "1" + closing * depth).encode()


def _places(value: Any) -> Any:
    """Every (container, key or index) in a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)

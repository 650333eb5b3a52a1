"""Scopes: what a key lets its holder do.

They form a lattice. A scope includes all that stand below it:

            admin
          /   |   \\
     media  index  metrics
       |
     search

| Scope | Lets its holder |
|---|---|
| `search` | search, list videos, read their records, see frames |
| `media` | the same, and play and download videos, cut clips, sign addresses for others |
| `index` | change the library: load a new snapshot, index, upload, remove, edit titles and tags |
| `metrics` | read `/metrics`, and the details of `/readyz` |
| `admin` | everything, and see the server's own paths and its errors in full |

`index` does not include `search`: a camera that uploads need not see what others have filmed.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

Scope = Literal["search", "media", "index", "metrics", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

#: What each scope includes, itself among it.
INCLUDED: Mapping[Scope, frozenset[Scope]] = {
    "search": frozenset({"search"}),
    "media": frozenset({"media", "search"}),
    "index": frozenset({"index"}),
    "metrics": frozenset({"metrics"}),
    "admin": frozenset(SCOPES),
}
#: Scopes that speak of the whole library: a key that is limited to a folder cannot have them.
WHOLE_LIBRARY: frozenset[Scope] = frozenset({"metrics", "admin"})


def with_included(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """These scopes and all that they include."""
    return frozenset(included for scope in scopes for included in INCLUDED[scope])


def smallest(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """The fewest scopes that include these, in the order of `SCOPES`."""
    given = set(scopes)
    return tuple(
        scope for scope in SCOPES if scope in given and not any(scope in INCLUDED[g] for g in given - {scope})
    )

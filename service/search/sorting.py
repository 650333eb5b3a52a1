"""Orders of videos by what is known of them."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.runtime.messages import shorten
from service.errors import QueryError
from service.search.fields import FIELDS, Facts
from service.search.filters import folded

#: What videos can be sorted by: the fields with an order that means something.
SORT_FIELDS = tuple(name for name, field in FIELDS.items() if name != "video_id" and field.kind != "boolean")


@dataclass(frozen=True)
class Sort:
    """An order of videos: by a field, rising, or falling. Videos without a value come last."""

    field: str
    descending: bool = False


def parse_sort(text: str, field: str = "/sort") -> Sort:
    """The order that a user names: a field, after a minus sign if it falls.

    Args:
        text: what the user wrote.
        field: where, for the error.

    Raises:
        QueryError: there is no such order.
    """
    name = text.removeprefix("-")
    if name not in SORT_FIELDS:
        raise QueryError(
            f'{shorten(text)} is not an order. Choose one of {", ".join(SORT_FIELDS)}, or "-" and one of '
            "them for the opposite, such as -indexed_at.",
            field,
        )
    return Sort(name, text.startswith("-"))


def ranks_of(sort: Sort, facts: Facts) -> NDArray[np.int64]:
    """The place of each video in an order; those with the same value share theirs. int64 [V].

    Texts are compared without case. A video with several values counts by the least of them, or by the
    greatest where the order falls.
    """
    read = FIELDS[sort.field].read(facts)
    values = folded(read.values) if pa.types.is_string(read.values.type) else read.values
    num_videos = facts.catalog.num_rows
    if pa.types.is_null(values.type):
        return np.zeros(num_videos, np.int64)
    order = "descending" if sort.descending else "ascending"
    found = pc.rank(values, sort_keys=order, tiebreaker="dense")
    ranks: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    if read.owners is None:
        return ranks
    # A video that has none is the last.
    least = np.full(num_videos, len(values) + 1, np.int64)
    np.minimum.at(least, read.owners, ranks)
    return least

"""Which fragments of a table are joined, so that their rows keep their order.

Lance puts what it has joined after all other fragments. So what is joined are the last fragments, from the
first one that is small: large ones among them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import lance

_MAX_SMALL_FRAGMENTS = 8
#: One deleted row in so many others is many.
_ROWS_PER_DELETED = 4


@dataclass(frozen=True)
class FragmentRows:
    """A fragment's rows, those that are deleted among them."""

    fragment_id: int
    physical_rows: int
    num_deletions: int


@dataclass(frozen=True)
class CompactionPlan:
    """What to join.

    Attributes:
        left_alone: the ids of the fragments that stay: the first ones.
        joined_rows: how many rows a joined fragment has, at least; more than any of those that are joined.
    """

    left_alone: tuple[int, ...]
    joined_rows: int


def plan_compaction(fragments: Sequence[FragmentRows], joined_rows: int) -> CompactionPlan | None:
    """What to join of a table; None while there are few small fragments and few deleted rows.

    Args:
        fragments: in the order of the table.
        joined_rows: a fragment of fewer rows is small.
    """
    small = [place for place, each in enumerate(fragments) if each.physical_rows < joined_rows]
    deleted = sum(each.num_deletions for each in fragments)
    kept = sum(each.physical_rows for each in fragments) - deleted
    first: list[int] = []
    if len(small) > _MAX_SMALL_FRAGMENTS:
        first += small[:1]
    if deleted * _ROWS_PER_DELETED > kept:
        first += [place for place, each in enumerate(fragments) if each.num_deletions][:1]
    if not first:
        return None
    start = min(first)
    largest = max(each.physical_rows for each in fragments[start:])
    left_alone = tuple(each.fragment_id for each in fragments[:start])
    return CompactionPlan(left_alone, max(joined_rows, largest + 1))


def fragment_rows(dataset: lance.LanceDataset) -> list[FragmentRows]:
    """The rows of each fragment, in the order of the table."""
    return [
        FragmentRows(each.fragment_id, each.physical_rows, each.num_deletions)
        for each in dataset.get_fragments()
    ]


def join_fragments(dataset: lance.LanceDataset, plan: CompactionPlan, batch_rows: int) -> None:
    """Join what a plan says, as a new version of the table; `batch_rows` are copied at once."""
    dataset.optimize.compact_files(
        target_rows_per_fragment=plan.joined_rows,
        excluded_fragment_ids=list(plan.left_alone),
        materialize_deletions_threshold=0.0,
        batch_size=batch_rows,
        num_threads=1,
        # Join files without decoding them if they have no deleted rows: much faster, in less memory.
        compaction_mode="try_binary_copy",
    )

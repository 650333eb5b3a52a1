"""Answers a search although something of the library is damaged: without that, and saying so."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from indexer.library.errors import DamagedRowsError
from service.search.rerank import UnreadableTokensError
from service.search.results import LibraryWarning, RerankSkipped

Answer = TypeVar("Answer")


def answer_around_damage(
    rank: Callable[[Sequence[int], RerankSkipped | None, Sequence[LibraryWarning]], Answer],
    left_out: Sequence[int],
    skipped: RerankSkipped | None,
    warnings: Sequence[LibraryWarning],
) -> Answer:
    """Rank, without what turns out to be damaged meanwhile: the answer says so, and the rest is served.

    Args:
        rank: ranks; gets the segments to leave out, why nothing is to be re-ranked, and what is known to be
            wrong; may raise `DamagedRowsError` and `UnreadableTokensError`.
        left_out: segments that are left out from the start.
        skipped: why nothing is to be re-ranked; None: the best segments are.
        warnings: what is known to be wrong.

    Raises:
        LibraryError: a table cannot be read.
        BundleError: the model fails.
    """
    told, damaged = list(warnings), list(left_out)
    while True:
        try:
            return rank(damaged, skipped, told)
        except DamagedRowsError as error:
            told.append(LibraryWarning("damaged_segments", str(error)))
            damaged.extend(int(row) for row in error.rows)
        except UnreadableTokensError as error:
            told.append(LibraryWarning("unreadable_tokens", str(error)))
            skipped = "unreadable_tokens"

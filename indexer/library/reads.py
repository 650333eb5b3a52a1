"""Reading columns of fixed size for a handful of rows, in any order, as fast as Lance gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
from numpy.typing import NDArray

from indexer.library.schema import Layout, fixed_to_numpy
from indexer.library.tables import lance_errors
from model.runtime.tokens import QuantisedTokens, dequantise


def take_fixed(
    dataset: lance.LanceDataset, where: Path, rows: NDArray[np.int64], columns: Sequence[str]
) -> list[NDArray[Any]]:
    """Columns of fixed-size lists at some rows.

    Args:
        dataset: a table at one version.
        where: its folder, for messages.
        rows: int64, shape [K]; may repeat, in any order.
        columns: their names.

    Returns:
        An array [K, size] a column.

    Raises:
        LibraryError: the table cannot be read.
    """
    # Each row once and ascending: Lance reads neighbours together, and need not sort.
    distinct, inverse = np.unique(rows, return_inverse=True)
    with lance_errors(where):
        table = dataset.take(distinct.tolist(), columns=list(columns))
    arrays = [fixed_to_numpy(table[name]) for name in columns]
    if np.array_equal(distinct, rows):
        return arrays
    return [array[inverse] for array in arrays]


def take_tokens(
    dataset: lance.LanceDataset, where: Path, rows: NDArray[np.int64], layout: Layout
) -> NDArray[np.float32]:
    """Tokens of frames, int64 [K] → float32 [K, P', H]. LibraryError when the table cannot be read."""
    shape = (len(rows), layout.tokens_per_frame, layout.token_dim)
    if not len(rows):
        return np.zeros(shape, np.float32)
    if layout.tokens == "float32":
        (tokens,) = take_fixed(dataset, where, rows, ["tokens"])
        return tokens.reshape(shape)
    values, scale = take_fixed(dataset, where, rows, ["tokens", "token_scale"])
    return dequantise(QuantisedTokens(values.reshape(shape), scale))

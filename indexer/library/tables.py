"""Lance datasets on disk: opening them, reading rows, the files of a version, their errors as ours."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lance
import numpy as np
from numpy.typing import NDArray

from indexer.library.errors import LibraryError
from indexer.library.schema import Layout, fixed_to_numpy
from model.runtime.errors import ReelfindError
from model.runtime.tokens import QuantisedTokens, dequantise

VERIFY_REMEDY = "`reelfind library verify` names what is damaged, `reelfind library rollback` goes back"


def table_path(library: Path, table: str) -> Path:
    """The folder of a table."""
    return library / f"{table}.lance"


@contextmanager
def lance_errors(path: Path) -> Iterator[None]:
    """Turn what Lance, Arrow and the file system raise into a LibraryError that names `path`."""
    try:
        yield
    except ReelfindError:
        raise
    except MemoryError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise _library_error(path, error) from error
    except BaseException as error:
        # Rust panics derive from BaseException; nothing else of that kind is ours to catch.
        if type(error).__name__ != "PanicException":
            raise
        raise _library_error(path, error) from error


def _library_error(path: Path, error: BaseException) -> LibraryError:
    text = " ".join(str(error).split())
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return LibraryError(
            f"{path}: the disk is full; free some space and run `reelfind index` again: "
            "what was published before is unharmed"
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS) or "ermission denied" in text:
        return LibraryError(f"{path}: no permission ({text[:200]}); check the folder's owner and mode")
    return LibraryError(f"{path} cannot be read or written ({text[:300]}); {VERIFY_REMEDY}")


def open_table(library: Path, table: str, version: int | None = None) -> lance.LanceDataset:
    """Open a table at a version, or at its latest. LibraryError when it cannot be read."""
    path = table_path(library, table)
    with lance_errors(path):
        return lance.dataset(str(path), version=version)


def version_files(library: Path, table: str, dataset: lance.LanceDataset) -> list[Path]:
    """Every file that reading this version of the table needs, manifest first; all are immutable."""
    root = table_path(library, table)
    # Lance numbers manifests downwards, so that the newest sorts first.
    files = [root / "_versions" / f"{2**64 - 1 - dataset.version:020d}.manifest"]
    for fragment in dataset.get_fragments():
        files += [root / "data" / data.path for data in fragment.data_files()]
        deletion = fragment.deletion_file()
        if deletion:
            files.append(root / deletion)
    return files


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

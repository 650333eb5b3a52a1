"""The indexer's errors; their tree is drawn in `model.runtime.errors`."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import ReelfindError

VERIFY_REMEDY = (
    "`reelfind library verify --library LIBRARY` names what is damaged, `reelfind library rollback --library "
    "LIBRARY` serves an earlier snapshot"
)
MIGRATE_REMEDY = "`reelfind library migrate --library LIBRARY` brings it to this version in place"
#: What Lance says of a request to an object store that has failed.
_OF_A_STORE = re.compile(r"Generic (S3|GCS|MicrosoftAzure) error|error sending request")
#: Appended to the message about damaged rows.
REPAIR_REMEDY = (
    "`reelfind index PATH --library LIBRARY --repair`, with the folder of the videos, reads damaged ones "
    "again"
)


class LibraryError(ReelfindError):
    """A library is missing, half-written, damaged, made with another bundle, or cannot be written."""


class AwayError(ReelfindError):
    """Something that a library needs does not answer: nothing is known of the library, and nothing is wrong.

    So it is no LibraryError, after which a snapshot or a file counts as damaged. `retry_seconds` is when to
    try again, `what` names what does not answer.
    """

    what: ClassVar[str]

    def __init__(self, message: str, *, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class VectorsAwayError(AwayError):
    """The server of the vectors does not answer."""

    what = "vectors"


class StoreAwayError(AwayError):
    """The object store of a library cannot be reached, or refuses."""

    what = "store"


class NotFiniteError(LibraryError):
    """A table holds embeddings with NaN or infinity."""


class DamagedRowsError(LibraryError):
    """Some rows of a table differ from their checksums, or cannot be read; all others are whole."""

    def __init__(self, message: str, rows: NDArray[np.int64]) -> None:
        super().__init__(message)
        self.rows = rows


class BusyError(LibraryError):
    """Another process is writing the library."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what Lance, Arrow, FAISS and the file system raise into a LibraryError that names `path`.

    Where an object store has not answered, it is a StoreAwayError.
    """
    try:
        yield
    except ReelfindError:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise _library_error(path, error) from error
    except BaseException as error:
        # Rust panics derive from BaseException; let everything else of that kind pass.
        if type(error).__name__ != "PanicException":
            raise
        raise _library_error(path, error) from error


@contextmanager
def opening_errors(path: Path) -> Iterator[None]:
    """As `storage_errors`, for a library that may come from a stranger: memory that runs out is its fault."""
    try:
        with storage_errors(path):
            yield
    except MemoryError as error:
        raise LibraryError(f"{path} takes more memory than there is; {VERIFY_REMEDY}") from error


def store_away(path: Path, reason: str) -> StoreAwayError:
    """The error for what cannot be read or written in an object store."""
    return StoreAwayError(
        f"{path} cannot be read or written: {reason}. See that the store can be reached, and that its keys "
        "are right, then run the command again; published snapshots are intact"
    )


def _library_error(path: Path, error: BaseException) -> LibraryError | StoreAwayError:
    text = " ".join(str(error).split())
    if _OF_A_STORE.search(text):
        return store_away(path, text[:200])
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return LibraryError(
            f"{path}: the disk is full; free some space and run `reelfind index` again; "
            "published snapshots are intact"
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS) or "ermission denied" in text:
        return LibraryError(f"{path}: no permission ({text[:200]}); check the folder's owner and permissions")
    return LibraryError(f"{path} cannot be read or written ({text[:300]}); {VERIFY_REMEDY}")

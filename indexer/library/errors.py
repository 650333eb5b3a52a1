"""The indexer's errors; their tree is drawn in `model.runtime.errors`."""

from model.runtime.errors import ReelfindError


class LibraryError(ReelfindError):
    """A library is missing, half-written, damaged, from another bundle, or cannot be written."""


class BusyError(LibraryError):
    """Another process is writing the library."""

"""The errors that a user may see. Each message names the value at fault and the remedy.

ReelfindError
├── InputError          what a user named does not exist, or a value is invalid; also a ValueError
├── BundleError         a bundle that cannot be read, trusted or run
│   └── OutputError     a graph gives no usable numbers for an input, such as NaN
├── VideoError          a media file without a frame to index
├── LibraryError        (indexer.library.errors) a library that cannot be read or written
│   ├── BusyError       another process is writing it
│   └── DamagedRowsError  some rows of a table differ from their checksums
└── AwayError           (indexer.library.errors) an object store or a server of vectors does not answer
"""

from typing import Literal

from model.runtime.messages import shown


class ReelfindError(Exception):
    """Base of every error that is shown to a user as one line, never as a traceback."""

    def __str__(self) -> str:
        return shown(super().__str__())


class InputError(ReelfindError, ValueError):
    """What the user named does not exist, or a value is invalid: the user's mistake, not the program's.

    `field` names the field at fault, where there is one; the message then begins with it. Fields that the
    remedy mentions are in backticks. The command line shows its options in place of both.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BundleError(ReelfindError):
    """A bundle is missing, damaged, of an unknown version, or its provider is not active."""


class OutputError(BundleError):
    """A graph gave NaN, infinity or an embedding without unit length: for this input, or for every one."""


class VideoError(ReelfindError):
    """A media file has no frame to index: `verdict` says whether it is damaged or of an unsupported kind."""

    def __init__(self, message: str, verdict: Literal["corrupt", "unsupported"]) -> None:
        super().__init__(message)
        self.verdict: Literal["corrupt", "unsupported"] = verdict

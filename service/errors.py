"""The service's own errors; `problems.py` maps all errors to HTTP, `cli.py` to exit codes.

ReelfindError           (model.runtime.errors)
├── InputError          what the caller sent cannot be answered: HTTP 422, exit code 2
├── NotFoundError       there is no such video, frame or page: HTTP 404
├── GoneError           the library knows it, its file is not there any more: HTTP 410
├── RefusedError        a new snapshot is damaged, the old one is served on: HTTP 409
├── OverloadedError     too many searches wait already: HTTP 503
└── NotReadyError       no snapshot is served yet: HTTP 503
"""

from model.runtime.errors import ReelfindError


class InputError(ReelfindError):
    """A query, option or file of the caller's that cannot be used as it is.

    `field` is the JSON pointer of the value at fault in the request's body, where there is one.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class NotFoundError(ReelfindError):
    """No video, frame or page of that name."""


class GoneError(ReelfindError):
    """A video of the library whose file cannot be served any more."""


class OverloadedError(ReelfindError):
    """The queue of searches is full."""


class NotReadyError(ReelfindError):
    """No snapshot is loaded; the message says why and what to do."""


class RefusedError(ReelfindError):
    """A new snapshot that cannot be served; the one before goes on."""

"""The service's own errors; `api/problems.py` maps all errors to HTTP, `cli/` to exit codes.

ReelfindError           (model.runtime.errors)
├── InputError          (model.runtime.errors) what the caller named cannot be used: exit code 2
│   └── QueryError      the same in a query, a request or a query file: HTTP 422
├── NotFoundError       there is no such video, frame or page: HTTP 404
├── SnapshotRefusedError        a new snapshot cannot be served, the old one goes on: HTTP 409
├── MediaGoneError           the library knows the video, its file is not there any more: HTTP 410
├── OverloadedError     too many searches wait already: HTTP 503
└── NotReadyError       no snapshot is served yet: HTTP 503
"""

from model.runtime.errors import InputError, ReelfindError


class QueryError(InputError):
    """A query, option or row of the caller's that cannot be used as it is.

    `field` is the JSON pointer of the value at fault in the request's body, where there is one.
    """


class NotFoundError(ReelfindError):
    """No video, frame or page of that name."""


class SnapshotRefusedError(ReelfindError):
    """A new snapshot that cannot be served; the one before goes on."""


class MediaGoneError(ReelfindError):
    """A video of the library whose file cannot be served any more."""


class OverloadedError(ReelfindError):
    """The queue of searches is full."""


class NotReadyError(ReelfindError):
    """No snapshot is loaded; the message says why and what to do."""

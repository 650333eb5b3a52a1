"""The service's own errors. `api/problems.py` maps errors to HTTP, `model.runtime.exits` to exit codes.

ReelfindError             (model.runtime.errors)
├── InputError            (model.runtime.errors) a mistake of the user: exit code 2
│   └── QueryError        the same in a query, a request, a query file or a setting: HTTP 422
│       └── NotUnderstoodError  the model knows no word of the query: HTTP 422
├── NotFoundError         no such video, frame or page exists: HTTP 404
├── WritesOffError        the settings do not let clients change the library: HTTP 403
├── JobsOffError          the settings do not let clients start jobs or upload: HTTP 403
├── JobEndedError         a job that is to be cancelled has ended: HTTP 409
├── JobStoreError         the file of jobs cannot be read or written: HTTP 503
├── UploadTooLargeError   an uploaded file is larger than it may be: HTTP 413
├── UploadOffsetError     a part of an upload does not go on where the last one ended: HTTP 409
├── NoSpaceError          the disk has no room for an upload: HTTP 507
├── PreconditionFailedError  it has changed since the client read it: HTTP 412
├── CannotAnswerError     the bundle or the library cannot answer questions: HTTP 409
├── NoImageQueryError     the bundle or the settings take no picture as a query: HTTP 409
├── SnapshotRefusedError  the new snapshot cannot be served, so the one before still is: HTTP 409
├── NotLoggedInError      the request has no key or session that counts: HTTP 401
├── NotPermittedError     its key lacks the scope, or nobody may do this now: HTTP 403
├── NoLogInError          there is nothing to log in to: HTTP 409
├── TooManyRequestsError  a key or an address asks too often: HTTP 429
├── RightsError           keys or users cannot be read: HTTP 503
├── MediaNotAllowedError  the video's file lies outside the folders whose videos may be played: HTTP 403
├── MediaChangedError     the video's file is another than the one that was indexed: HTTP 409
├── MediaGoneError        the library knows the video, but its file is missing: HTTP 410
├── PageGoneError         a further page cannot be computed any more: HTTP 410
├── MediaUnreadableError  the video's file cannot be decoded where it would have to be: HTTP 409
├── OverloadedError       too many searches are waiting, or one cannot be in time: HTTP 503
│   ├── TooManyJobsError  too many jobs or uploads are under way: HTTP 503
│   └── EncodersBusyError all encoders of streams and clips are in use: HTTP 503
├── NoEncodersError       streams and clips are turned off, or may not be made here: HTTP 503
└── NotReadyError         no snapshot is served: HTTP 503
"""

from model.runtime.errors import InputError, ReelfindError


class QueryError(InputError):
    """A query, an option of a search, a line of a query file or a setting is invalid.

    In a request, `field` is the JSON pointer of the value at fault in the body, or `?` and the name of the
    parameter at fault.
    """


class NotUnderstoodError(QueryError):
    """The model's tokenizer knows no word of the query, so that every such query would rank the same."""


class NotFoundError(ReelfindError):
    """No video, frame or page has that name."""


class WritesOffError(ReelfindError):
    """The settings do not let clients change the library."""


class JobsOffError(ReelfindError):
    """The settings do not let clients start jobs, or upload videos."""


class JobEndedError(ReelfindError):
    """A job that is to be cancelled has ended."""


class JobStoreError(ReelfindError):
    """The file of jobs cannot be read or written."""


class UploadTooLargeError(ReelfindError):
    """An uploaded file is larger than the settings allow, or than was said."""


class UploadOffsetError(ReelfindError):
    """A part of an upload does not begin where the part before it ended, or another is on its way."""


class NoSpaceError(ReelfindError):
    """The disk has no room for an upload."""


class PreconditionFailedError(ReelfindError):
    """What a client wants to change has changed since it read it."""


class CannotAnswerError(ReelfindError):
    """The bundle or the library that is served cannot answer questions; the message says what to change."""


class NoImageQueryError(ReelfindError):
    """The bundle that is served, or its settings, takes no picture as a query; the message says why."""


class SnapshotRefusedError(ReelfindError):
    """A new snapshot cannot be served; the one before still is."""


class NotLoggedInError(ReelfindError):
    """A request has no key, session or signature, or one that does not count."""


class NotPermittedError(ReelfindError):
    """Who asks is known, but may not do this."""


class NoLogInError(ReelfindError):
    """The service knows no log-in: everybody may ask, or a proxy says who it is."""


class TooManyRequestsError(ReelfindError):
    """A key or an address asks too often. `retry_seconds` is when to try again."""

    def __init__(self, message: str, *, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class RightsError(ReelfindError):
    """The keys, or the users of a proxy, cannot be read or written: nobody is let in."""


class MediaNotAllowedError(ReelfindError):
    """The file of a video in the library may not be played: it lies outside of the media folders."""


class MediaChangedError(ReelfindError):
    """The file of a video in the library is not the one that was indexed."""


class MediaGoneError(ReelfindError):
    """The file of a video in the library is missing or cannot be read."""


class PageGoneError(ReelfindError):
    """The answer that a page token goes on with is not there any more, and cannot be computed again."""


class OverloadedError(ReelfindError):
    """As many searches as may wait are waiting already, or a search would wait beyond its deadline.

    `retry_seconds` is when to try again, as far as is known.
    """

    def __init__(self, message: str, *, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class TooManyJobsError(OverloadedError):
    """As many jobs wait, or as many uploads arrive, as may."""


class MediaUnreadableError(ReelfindError):
    """A stream or a clip cannot be made of a video's file: it is damaged, or asks for more than it may."""


class EncodersBusyError(OverloadedError):
    """As many streams and clips as may be made at the same time are being made."""


class NoEncodersError(ReelfindError):
    """No streams and clips are made: they are turned off, or what confines decoders is missing."""


class NotReadyError(ReelfindError):
    """No snapshot is served; the message says why and what to do."""

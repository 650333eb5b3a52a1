"""Uploads a video in parts, so that a lost connection costs no more than a part."""

from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from service.client.call import Call
from service.client.downloads import Progress
from service.client.errors import ClientError, ConflictError, NoAnswerError, NotFoundError
from service.client.job_answers import Upload, UploadedVideo
from service.client.job_calls import begin_upload, drop_upload, send_part, upload_state

T = TypeVar("T")
#: Requests that are sent one after another, each of which gets its result or its error back; a number is a
#: pause in seconds.
Steps: TypeAlias = Generator[Call[Any] | float, Any, T]

PART_BYTES = 8 << 20
#: How often a part may be lost before anything more has arrived, and the pause after that.
_MOST_LOST = 5
_PAUSE_SECONDS = 1.0


def upload_video(
    path: Path, *, name: str | None = None, progress: Progress | None = None
) -> Steps[UploadedVideo]:
    """Upload a video, which a job of the service then indexes.

    Args:
        path: the file.
        name: the name that it shall have there; None: its own. The service may change it, so that it is safe
            and no file is overwritten.
        progress: is told the number of bytes that have arrived, and of all of them.

    Raises:
        OSError: the file cannot be read, or becomes shorter meanwhile.
    """
    num_bytes = path.stat().st_size
    upload: Upload = yield begin_upload(path.name if name is None else name, num_bytes)
    try:
        return (yield from _send_parts(path, upload, progress))
    except (ClientError, OSError):
        with suppress(ClientError):
            yield drop_upload(upload.upload_id)
        raise


def _send_parts(path: Path, upload: Upload, progress: Progress | None) -> Steps[UploadedVideo]:
    offset = num_lost = 0
    is_sure = True  # how much has arrived
    with path.open("rb") as file:
        while True:
            try:
                if not is_sure:
                    state: Upload = yield upload_state(upload.upload_id)
                    num_lost = 0 if state.offset > offset else num_lost
                    offset, is_sure = state.offset, True
                file.seek(offset)
                part = file.read(PART_BYTES)
                if not part:
                    raise OSError(f"{path} has become shorter while it was sent: upload it again")
                answer: UploadedVideo | int = yield send_part(upload.upload_id, offset, part)
            except (NoAnswerError, ConflictError):
                # The service may still write what has come of a part that was lost: then there is a conflict.
                num_lost += 1
                if num_lost > _MOST_LOST:
                    raise
                yield _PAUSE_SECONDS
                is_sure = False
                continue
            except NotFoundError as error:
                if is_sure:
                    raise
                raise NoAnswerError(
                    "the whole video has arrived, but not the answer: `jobs` lists the job that indexes it",
                    sent=True,
                ) from error
            num_lost = 0
            offset = upload.bytes if isinstance(answer, UploadedVideo) else answer
            if progress is not None:
                progress(offset, upload.bytes)
            if isinstance(answer, UploadedVideo):
                return answer

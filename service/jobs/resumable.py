"""Uploads in parts: what is known of each until it is whole. Its bytes lie in the upload folder.

An upload survives a restart of the server. One to which nothing was added for a day is removed.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from service.errors import JobStoreError, NotFoundError, TooManyJobsError, UploadOffsetError
from service.jobs.uploads import PartialFile, remove_abandoned

#: Uploads that may be under way.
MOST_UPLOADS = 100
_UPLOAD_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Upload:
    """An upload in parts.

    Attributes:
        upload_id: 16 hex digits; also that of the part in the upload folder.
        name: the name that the file will get.
        bytes: its size.
        folder: where it goes.
    """

    upload_id: str
    name: str
    bytes: int
    folder: str

    def reopen(self) -> PartialFile | None:
        """What has arrived, to go on with; None: it is gone."""
        return PartialFile.reopen(Path(self.folder), self.bytes, self.upload_id)


class ResumableUploads:
    """The uploads of a service, a file each in a folder. Every method may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        """`folder` must exist."""
        self._folder = folder
        self._lock = threading.Lock()
        self._claimed: set[str] = set()

    def create(self, name: str, size: int, folder: Path, max_bytes: int) -> Upload:
        """Begin an upload into a folder; for its size and the folder see `PartialFile.begin`.

        Raises:
            TooManyJobsError: too many are under way.
            JobStoreError: it cannot be noted.
            UploadTooLargeError, NoSpaceError, JobsOffError: see `PartialFile.begin`.
        """
        if self._forget_abandoned() >= MOST_UPLOADS:
            raise TooManyJobsError(
                f"{MOST_UPLOADS} uploads are under way, which is the limit. Finish or delete some.",
                retry_seconds=60.0,
            )
        part = PartialFile.begin(folder, max_bytes, size)
        upload = Upload(part.part_id, name, size, str(folder))
        try:
            self._path(upload.upload_id).write_text(json.dumps(asdict(upload)), encoding="utf-8")
        except OSError as error:
            part.discard()
            raise JobStoreError(f"{self._folder} cannot be written to: {error.strerror}") from error
        part.keep()
        return upload

    def find(self, upload_id: str, within: Path | None) -> Upload:
        """The upload with an id.

        Raises:
            NotFoundError: there is none, or it does not go to the folder that the client is limited to.
        """
        try:
            if _UPLOAD_ID.fullmatch(upload_id) is None:
                raise ValueError
            upload = Upload(**json.loads(self._path(upload_id).read_bytes()))
        except (OSError, ValueError, TypeError):
            upload = None
        if upload is None or not (within is None or Path(upload.folder).is_relative_to(within)):
            raise NotFoundError(
                f"There is no upload {upload_id[:64]!r}: it has ended, or nothing was added to it for a day. "
                "Begin anew with POST /v1/uploads."
            )
        return upload

    def arrived(self, upload: Upload) -> int:
        """How many bytes of an upload have arrived. Asking never refuses a part that comes meanwhile.

        Raises:
            NotFoundError: it is gone.
            UploadOffsetError: a part is on its way.
        """
        with self._lock:
            self._check_unclaimed(upload)
            part = self._reopen(upload)
            part.keep()
            return part.size

    @contextmanager
    def claim(self, upload: Upload) -> Iterator[PartialFile]:
        """What has arrived of an upload, for one client at a time.

        Raises:
            NotFoundError: it is gone.
            UploadOffsetError: another part is on its way.
        """
        with self._lock:
            self._check_unclaimed(upload)
            self._claimed.add(upload.upload_id)
        try:
            part = self._reopen(upload)
            try:
                yield part
            finally:
                part.keep()
        finally:
            with self._lock:
                self._claimed.discard(upload.upload_id)

    def _check_unclaimed(self, upload: Upload) -> None:
        if upload.upload_id in self._claimed:
            raise UploadOffsetError(f"Another part of upload {upload.upload_id} is on its way. Wait for it.")

    def _reopen(self, upload: Upload) -> PartialFile:
        part = upload.reopen()
        if part is None:
            self.forget(upload)
            raise NotFoundError(f"What has arrived of upload {upload.upload_id} is gone. Begin anew.")
        return part

    def forget(self, upload: Upload) -> None:
        """Forget an upload, whose part has its name or was removed."""
        self._path(upload.upload_id).unlink(missing_ok=True)

    def _path(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"

    def _forget_abandoned(self) -> int:
        """Forget the uploads to which nothing was added for long. → How many are left."""
        found = []
        for path in self._folder.glob("*.json"):
            try:
                found.append(self.find(path.stem, None))
            except NotFoundError:
                path.unlink(missing_ok=True)
        for folder in {upload.folder for upload in found}:
            remove_abandoned(Path(folder))
        left = 0
        for upload in found:
            part = upload.reopen()
            if part is None:
                self.forget(upload)
            else:
                part.keep()
                left += 1
        return left

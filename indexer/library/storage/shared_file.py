"""A file of a library in an object store that several computers change, with its copy on this one."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from indexer.library.errors import BusyError, StoreAwayError
from indexer.library.storage.base import ChangedError, Storage
from model.runtime.files import replacing

#: In the background, the file is looked at again after so many seconds.
_EVERY_SECONDS = 2.0
_PAUSE_SECONDS = 0.05

T = TypeVar("T")


class SharedFile:
    """The file, and its copy. Any thread may use it.

    Args:
        storage: where the file is.
        path: the path of the file, and of its copy.
    """

    def __init__(self, storage: Storage, path: Path) -> None:
        self._storage, self._path = storage, path
        self._lock = threading.Lock()
        self._mark: str | None = None
        self._is_new = True
        self._pulled_at = -_EVERY_SECONDS
        self._problem: OSError | StoreAwayError | None = None
        self._puller: threading.Thread | None = None

    def pull(self) -> None:
        """Make the copy equal to the file now.

        Raises:
            StoreAwayError: the store cannot be reached.
            OSError: the copy cannot be written.
        """
        with self._lock:
            try:
                self._pull()
                self._problem = None
            except (OSError, StoreAwayError) as error:
                self._problem = error
                raise
            finally:
                self._pulled_at = time.monotonic()

    def pull_soon(self) -> None:
        """Let the copy become equal to the file within seconds, without waiting for it but the first time.

        Raises:
            StoreAwayError: the last time that was tried, the store could not be reached.
            OSError: the copy could not be written.
        """
        if self._is_new:
            self.pull()
            return
        if time.monotonic() - self._pulled_at > _EVERY_SECONDS and self._lock.acquire(blocking=False):
            try:
                if self._puller is None or not self._puller.is_alive():
                    self._puller = threading.Thread(
                        target=self._pull_quietly, name="shared-file", daemon=True
                    )
                    self._puller.start()
            finally:
                self._lock.release()
        if self._problem is not None:
            raise self._problem

    def change(self, edit: Callable[[Path], T], seconds: float) -> T:
        """Change the file as one step: where others have changed it meanwhile, it is tried again.

        Args:
            edit: changes a copy of the file, whose path it is given; there may be no file yet.
            seconds: how long to try.

        Raises:
            BusyError: others have changed it all the time.
            StoreAwayError: the store cannot be reached.
            OSError: the copy cannot be written.
        """
        deadline = time.monotonic() + seconds
        draft = self._path.with_name(f".{self._path.stem}.{os.getpid()}.{threading.get_ident()}.draft")
        with self._lock:
            while True:
                self._pull()
                try:
                    if self._path.exists():
                        shutil.copyfile(self._path, draft)
                    result = edit(draft)
                    self._mark = self._storage.write_if(self._path, draft.read_bytes(), self._mark)
                    draft.replace(self._path)
                except ChangedError as error:
                    if time.monotonic() > deadline:
                        raise BusyError(f"{self._path} is being written by others: try again") from error
                    time.sleep(_PAUSE_SECONDS)
                else:
                    return result
                finally:
                    draft.unlink(missing_ok=True)

    def _pull_quietly(self) -> None:
        # The next call of `pull_soon` raises it.
        with contextlib.suppress(OSError, StoreAwayError):
            self.pull()

    def _pull(self) -> None:
        mark = self._storage.mark(self._path)
        if mark == self._mark and not self._is_new:
            return
        found = None if mark is None else self._storage.read_marked(self._path)
        if found is None:
            self._path.unlink(missing_ok=True)
            self._mark = None
        else:
            data, self._mark = found
            with replacing(self._path, shared=True) as new:
                new.write_bytes(data)
        self._is_new = False

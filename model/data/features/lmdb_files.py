"""An LMDB folder with a value for each video, as HERO publishes features."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from model.data.features.base import REMEDY, BaseStore
from model.data.features.packed import unpack_features
from model.runtime.errors import InputError

DATA_FILE = "data.mdb"
# HERO's folders also hold lists under such keys.
_RESERVED = b"__"


class LmdbStore(BaseStore):
    """The values of an LMDB folder, by the videos' names. See `model.data.features.packed` for their form.

    Raises:
        InputError: the folder is missing, damaged, or holds nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._opened = _Opened.of(folder)
        try:
            with self._opened.env.begin() as transaction, transaction.cursor() as cursor:
                keys = [bytes(key) for key in cursor.iternext(keys=True, values=False)]
            names = [key.decode() for key in keys if not key.startswith(_RESERVED)]
        except (lmdb.Error, UnicodeDecodeError) as error:
            raise InputError(f"{folder} is damaged ({error}): {REMEDY}") from error
        super().__init__(str(folder), names)

    def _load(self, name: str) -> Any:
        try:
            with self._opened.env.begin() as transaction:
                data = transaction.get(name.encode())
            if data is None:
                raise ValueError("it was removed")
            return unpack_features(bytes(data))
        except (lmdb.Error, ValueError) as error:
            raise InputError(f"{self._place(name)} is damaged ({error}): {REMEDY}") from error


class _Opened:
    """An open LMDB folder. A process may open one only once, so that all its stores share it."""

    _all: ClassVar[weakref.WeakValueDictionary[tuple[int, str], _Opened]] = weakref.WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(self, folder: Path) -> None:
        try:
            # Readers of a file that no one writes need no lock, which a read-only disk would refuse.
            self.env = lmdb.open(
                str(folder), readonly=True, create=False, lock=False, readahead=False, max_spare_txns=8
            )
            size = (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]
        except (lmdb.Error, OSError) as error:
            raise InputError(f"{folder} cannot be read as LMDB ({error}): {REMEDY}") from error
        # A read beyond the end of the file would end the process.
        if (folder / DATA_FILE).stat().st_size < size:
            self.env.close()
            raise InputError(f"{folder / DATA_FILE} is cut off: {REMEDY}")

    @classmethod
    def of(cls, folder: Path) -> _Opened:
        key = (os.getpid(), os.path.realpath(folder))
        with cls._lock:
            opened = cls._all.get(key)
            if opened is None:
                opened = cls._all[key] = cls(folder)
            return opened

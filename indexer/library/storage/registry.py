"""Finds the storage of a path."""

from functools import lru_cache
from pathlib import Path

from indexer.library.storage.address import address_of
from indexer.library.storage.base import Storage
from indexer.library.storage.local import LocalStorage
from indexer.library.storage.objects import ObjectStorage
from model.runtime.remote.address import Address

_LOCAL = LocalStorage()


def storage_of(path: Path) -> Storage:
    """The storage of a library's folder, or of what is in it.

    Raises:
        InputError: the path lies in a working folder that does not say what it is.
    """
    found = address_of(path)
    return _LOCAL if found is None else _object_storage(*found)


@lru_cache(maxsize=64)
def _object_storage(folder: Path, address: Address, endpoint: str) -> ObjectStorage:
    return ObjectStorage(address, endpoint, folder)

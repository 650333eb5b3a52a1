"""An HDF5 file with a data set for each video, as TVRetrieval publishes features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from model.data.features.base import KEY, REMEDY, BaseStore, check_shape
from model.runtime.errors import InputError

HDF5_EXTENSIONS = (".h5", ".hdf5")


class Hdf5Store(BaseStore):
    """The data sets of an HDF5 file, by the videos' names; a video may also be a group with `features`.

    The library lets one thread read at a time. Links to other files are refused, so that nothing outside the
    file is read.

    Raises:
        InputError: the file is missing, damaged, or holds nothing.
    """

    def __init__(self, path: Path) -> None:
        try:
            # Without locks, so that files on read-only disks and network disks open.
            self._file = h5py.File(path, "r", locking=False)
            names = list(self._file)
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as HDF5 ({error}): {REMEDY}") from error
        super().__init__(str(path), names)

    def length(self, name: str) -> int:
        """From the shape alone; see `FeatureStore`."""
        self._check_known(name)
        stored = self._dataset(name)
        check_shape(stored.shape or (), stored.dtype, self._place(name))
        return int(stored.shape[0])

    def _load(self, name: str) -> Any:
        stored = self._dataset(name)
        check_shape(stored.shape or (), stored.dtype, self._place(name))
        try:
            return stored[()]
        except (OSError, RuntimeError) as error:
            raise InputError(f"{self._place(name)} is damaged ({error}): {REMEDY}") from error

    def _dataset(self, name: str) -> Any:
        try:
            node = _own(self._file, name)
            if isinstance(node, h5py.Group) and KEY in node:
                node = _own(node, KEY)
        except (OSError, RuntimeError, KeyError) as error:
            raise InputError(f"{self._place(name)} is damaged ({error}): {REMEDY}") from error
        if not isinstance(node, h5py.Dataset):
            raise InputError(
                f"{self._place(name)} is no data set: each video must be one, or a group with {KEY!r}"
            )
        if node.external or node.is_virtual:
            raise InputError(f"{self._place(name)} is stored in another file: copy it into this one")
        return node


def _own(group: Any, name: str) -> Any:
    """A member of a group that lies in the same file.

    Raises:
        InputError: it is a link to another one.
    """
    node = group[name]
    if node.file.filename != group.file.filename:
        raise InputError(f"{group.file.filename}, {name}, is a link to another file: copy it into this one")
    return node

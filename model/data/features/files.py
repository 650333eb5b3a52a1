"""A feature file for each video in a folder and below: `.npz` as HERO publishes them, or `.npy`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from model.arrays import unreadable
from model.data.datasets.files import MediaFolder
from model.data.features.base import KEY, REMEDY, BaseStore, check_shape
from model.runtime.errors import InputError

ARRAY_EXTENSIONS = (".npz", ".npy")
#: what `reelfind-model features` writes beside its files
MANIFEST = "features.json"
#: the array of a video's length in seconds, in files that `reelfind-model features` writes
DURATION_KEY = "duration_seconds"
ResultT = TypeVar("ResultT")


class FileStore(BaseStore):
    """A folder of `.npz` and `.npy` files, found by the videos' names.

    An `.npz` file holds the array `features`, or one array alone. Nothing in a file is executed: arrays of
    objects are refused.

    Raises:
        InputError: there is no such folder, it holds no such file, or its manifest is malformed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = MediaFolder(folder, ARRAY_EXTENSIONS, "data.features")
        if self._folder.repeated:
            first, second = self._folder.repeated[0]
            raise InputError(
                f"{first} and {second} have one name: list one folder for each kind in data.features"
            )
        # Hidden files are those of a run that was killed while it wrote.
        super().__init__(str(folder), [name for name in self._folder.stems if not name.startswith(".")])
        self._every = _read_every(folder / MANIFEST)

    @property
    def every_seconds(self) -> float | None:
        """What the manifest of `reelfind-model features` tells, if there is one."""
        return self._every

    def length(self, name: str) -> int:
        """From the head of the file; see `FeatureStore`."""
        self._check_known(name)
        return int(self._read(name, _read_length))

    def duration_seconds(self, name: str) -> float | None:
        """What `reelfind-model features` wrote; see `FeatureStore`."""
        self._check_known(name)
        return self._read(name, _read_duration)

    def _load(self, name: str) -> Any:
        return self._read(name, _read_array)

    def _place(self, name: str) -> str:
        return str(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder.stems[name]

    def _read(self, name: str, read: Callable[[Path], ResultT]) -> ResultT:
        path = self._path(name)
        try:
            return read(path)
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{path} was removed while it was in use: {REMEDY}") from error
        # NumPy and zipfile raise almost anything for damaged files.
        except Exception as error:
            raise InputError(f"{path} is damaged ({unreadable(error)}): {REMEDY}") from error


def _read_array(path: Path) -> Any:
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive)) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_length(path: Path) -> int:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return _length(path, file)
    with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive)) as file:
        return _length(path, file)


def _read_duration(path: Path) -> float | None:
    if path.suffix.lower() == ".npy":
        return None
    with zipfile.ZipFile(path) as archive:
        if f"{DURATION_KEY}.npy" not in archive.namelist():
            return None
        with archive.open(f"{DURATION_KEY}.npy") as file:
            return float(np.lib.format.read_array(file, allow_pickle=False))


def _length(path: Path, file: IO[bytes]) -> int:
    shape, dtype = read_head(file)
    check_shape(shape, dtype, str(path))
    return shape[0]


def read_head(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type that the head of an array in NumPy's format tells.

    Raises:
        ValueError: it is no such head.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    return shape, dtype


def _member(path: Path, archive: zipfile.ZipFile) -> str:
    """The member of an `.npz` file that holds the features."""
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if f"{KEY}.npy" in names:
        return f"{KEY}.npy"
    if len(names) == 1:
        return names[0]
    found = ", ".join(name.removesuffix(".npy") for name in names) or "none"
    raise InputError(f"{path} has no array {KEY!r}; there are {found}: name the one with the features so")


def _read_every(path: Path) -> float | None:
    if not path.is_file():
        return None
    try:
        every = json.loads(path.read_bytes())["every_seconds"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): make the features again, or remove it") from error
    if not isinstance(every, int | float) or not 0 < every < float("inf"):
        raise InputError(f"{path}: every_seconds is {every!r}, it must be above 0: make the features again")
    return float(every)

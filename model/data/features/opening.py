"""Opens feature files, whatever their format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.data.features.base import FeatureStore
from model.data.features.files import FileStore
from model.data.features.hdf5 import HDF5_EXTENSIONS, Hdf5Store
from model.data.features.joined import JoinedStore
from model.data.features.lmdb_files import DATA_FILE, LmdbStore
from model.runtime.errors import InputError


def open_features(paths: Sequence[Path], every_seconds: float | None = None) -> FeatureStore:
    """Open feature files; several are joined on the feature axis.

    Args:
        paths: each a folder of `.npz` or `.npy` files, an HDF5 file (`.h5`, `.hdf5`), or an LMDB folder.
        every_seconds: the seconds that one vector stands for, as the settings say; None: unknown.

    Raises:
        InputError: there is no such file, it holds no features, or its manifest says another rate.
    """
    if not paths:
        raise InputError(
            "no data.features: set it to a folder of .npz or .npy files, an HDF5 file or an LMDB folder; "
            "`reelfind-model features VIDEOS --bundle B --every 1.5 --output DIR` makes such a folder"
        )
    stores = [_open(path) for path in paths]
    store: FeatureStore = stores[0] if len(stores) == 1 else JoinedStore(stores)
    found = store.every_seconds
    if every_seconds is not None and found is not None and abs(found - every_seconds) > 1e-6:
        raise InputError(
            f"data.every_seconds={every_seconds:g}, and the features in {paths[0]} were made every "
            f"{found:g} s: set it to {found:g}, or make them again"
        )
    return store


def _open(path: Path) -> FeatureStore:
    if path.is_dir():
        return LmdbStore(path) if (path / DATA_FILE).is_file() else FileStore(path)
    if not path.is_file():
        raise InputError(f"data.features={path} does not exist: set it to the files of the data set")
    if path.suffix.lower() in HDF5_EXTENSIONS:
        return Hdf5Store(path)
    if path.name == DATA_FILE:
        return LmdbStore(path.parent)
    raise InputError(
        f"data.features={path} is of no known kind: it must be a folder of .npz or .npy files, an HDF5 file "
        f"({', '.join(HDF5_EXTENSIONS)}) or an LMDB folder"
    )

"""Feature files that are damaged, or that strangers made to do harm."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import lz4.frame
import msgpack
import numpy as np
import pytest

pytest.importorskip("torch")

from model.data.features import open_features
from model.data.features.packed import unpack_features
from model.runtime.errors import InputError
from tests.support.feature_sets import FORMS, Form, msgpack_numpy, pack, write_features, write_lmdb

VALUES = np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32)


class Harm:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def stored_file(path: Path) -> Path:
    if path.suffix == ".h5":
        return path
    return path / "data.mdb" if (path / "data.mdb").is_file() else next(iter(sorted(path.iterdir())))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, form: Form, share: float) -> None:
    path = write_features(tmp_path, {f"v{i}": VALUES for i in range(4)}, form)
    file = stored_file(path)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=r"damaged|cut off|cannot be read") as caught:
        open_features([path]).read("v0")
    assert str(path) in str(caught.value)
    assert "set data.allow_missing=true" in str(caught.value)


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_a_file_that_is_something_else_is_named(tmp_path: Path, form: Form) -> None:
    path = write_features(tmp_path, {"a": VALUES}, form)
    for content in (b"", b"no array at all", os.urandom(500)):
        stored_file(path).write_bytes(content)
        store = open_features([path])
        for ask in (store.read, store.length):
            with pytest.raises(InputError, match=rf"a\.{form} is damaged"):
                ask("a")
    stored_file(path).unlink()
    with pytest.raises(InputError, match="was removed while it was in use"):
        store.read("a")


def test_the_array_of_an_npz_file_is_told_by_its_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", anything=VALUES)
    np.savez(tmp_path / "two.npz", features=VALUES, other=np.zeros(3))
    np.savez(tmp_path / "three.npz", first=VALUES, second=VALUES)
    store = open_features([tmp_path])
    assert np.array_equal(store.read("one"), VALUES)
    assert np.array_equal(store.read("two"), VALUES)
    with pytest.raises(InputError, match="has no array 'features'; there are first, second"):
        store.read("three")


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    """A folder above those of two extractors would mix them."""
    for extractor in ("resnet", "slowfast"):
        (tmp_path / extractor).mkdir()
        np.savez(tmp_path / extractor / "a.npz", features=VALUES)
    with pytest.raises(InputError, match=r"resnet/a.npz and .*slowfast/a.npz have one name: list one folder"):
        open_features([tmp_path])


def test_what_a_killed_run_left_is_no_video(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=VALUES)
    (tmp_path / ".b.new.npz").write_bytes(b"half")
    assert list(open_features([tmp_path]).names) == ["a"]


def test_no_pickle_is_read(tmp_path: Path) -> None:
    harm = Harm(tmp_path / "harmed")
    objects = np.array([[harm]], object)
    (tmp_path / "files").mkdir()
    np.savez(tmp_path / "files" / "a.npz", features=objects)
    np.save(tmp_path / "files" / "b.npy", objects)
    store = open_features([tmp_path / "files"])
    for name in ("a", "b"):
        for ask in (store.read, store.length):
            with pytest.raises(InputError):
                ask(name)
    buffer = io.BytesIO()
    np.savez(buffer, features=objects)
    as_object = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps(harm)}
    values = {
        "npz": buffer.getvalue(),
        "pickle": pickle.dumps(harm),
        "msgpack": msgpack.packb({"features": as_object}),
        "lz4": lz4.frame.compress(pickle.dumps({"features": harm})),
    }
    lmdb_store = open_features([write_lmdb(tmp_path / "lmdb", values)])
    for name in values:
        with pytest.raises(InputError, match=f"video {name}, is damaged"):
            lmdb_store.read(name)
    assert not harm.folder.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"shape": [40, 33]}, r"its array of shape \[40, 33\] is cut off, or too long"),
        ({b"shape": [-40, -32]}, "no valid shape"),
        ({b"shape": 3}, "no valid shape"),
        ({b"shape": [1 << 40, 1 << 40]}, "is cut off, or too long"),
        ({b"data": b"123"}, "is cut off, or too long"),
        ({b"type": "<i4"}, "of the type <i4, not floating-point numbers"),
        ({b"type": [["x", "<f4"]], b"kind": b"V"}, "not floating-point numbers"),
        ({b"nd": False}, "holds no array 'features'"),
    ],
)
def test_malformed_msgpack_is_named(changes: dict[bytes, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_features(msgpack.packb({"features": msgpack_numpy(VALUES) | changes}))


def test_packed_values_may_have_any_wrapping() -> None:
    bare = msgpack.packb(msgpack_numpy(VALUES))
    # Old versions of msgpack wrote bytes as texts.
    old = msgpack.packb({"features": msgpack_numpy(VALUES)}, use_bin_type=False)
    npy = io.BytesIO()
    np.save(npy, VALUES)
    for data in (bare, old, npy.getvalue(), lz4.frame.compress(pack(VALUES, "lmdb_npz"))):
        assert np.array_equal(unpack_features(data), VALUES)


def test_other_bytes_are_damage() -> None:
    rng = np.random.default_rng(0)
    whole = [pack(VALUES, form) for form in FORMS if form.startswith("lmdb")]
    for data in (
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        *(rng.bytes(50) for _ in range(50)),
        *(w[:-9] for w in whole),
    ):
        with pytest.raises(ValueError, match=r"."):
            unpack_features(data)


def test_a_frame_that_grows_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.data.features.packed._MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="larger than a video's features"):
        unpack_features(lz4.frame.compress(bytes(10_000)))


def test_an_archive_with_a_lying_head_is_damage(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 30, 1 << 20)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("features.npy", head.getvalue() + bytes(100))
    with pytest.raises(InputError, match=r"a.npz is damaged"):
        open_features([tmp_path]).read("a")


def test_hdf5_reads_no_other_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = VALUES
    layout = h5py.VirtualLayout(VALUES.shape, np.float32)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", VALUES.shape)
    raw = tmp_path / "raw.bin"
    raw.write_bytes(VALUES.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["good"] = VALUES
        file["inner/features"] = VALUES
        file["empty_group/other"] = VALUES
        file["link"] = h5py.ExternalLink("other.h5", "secret")
        file["broken"] = h5py.ExternalLink("missing.h5", "secret")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", VALUES.shape, np.float32, external=[(str(raw), 0, VALUES.nbytes)])
        file["scalar"] = 1.0
        file["blank"] = h5py.Empty("f4")
    store = open_features([tmp_path / "a.h5"])
    for name in ("good", "inner"):
        assert np.array_equal(store.read(name), VALUES)
    messages = {
        "link": "is a link to another file",
        "broken": "is damaged",
        "virtual": "is stored in another file",
        "external": "is stored in another file",
        "empty_group": "is no data set",
        "scalar": r"holds an array of shape \[\]",
        "blank": r"holds an array of shape \[\]",
    }
    for name, message in messages.items():
        for ask in (store.read, store.length):
            with pytest.raises(InputError, match=message):
                ask(name)


@pytest.mark.parametrize("content", ["{", "[]", '{"every_seconds": "x"}', '{"every_seconds": 0}', "{}"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    np.savez(tmp_path / "a.npz", features=VALUES)
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(InputError, match=r"features.json.*make the features again"):
        open_features([tmp_path])

"""Feature files of every format behave alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from model.arrays import Array
from model.data.features import FeatureStore, open_features
from model.runtime.errors import InputError
from tests.support.feature_sets import FORMS, WIDTH, Form, features_of, make_videos, write_features

FEATURES = features_of(make_videos(6))
NAMES = tuple(sorted(FEATURES))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    found: Form = request.param
    return found


@pytest.fixture
def store(form: Form, tmp_path: Path) -> FeatureStore:
    return open_features([write_features(tmp_path, FEATURES, form)])


def test_a_store_gives_what_was_written(store: FeatureStore) -> None:
    assert tuple(store.names) == NAMES
    assert store.width == WIDTH
    assert store.every_seconds is None
    for name, written in FEATURES.items():
        read = store.read(name)
        assert read.dtype == np.float32
        assert np.array_equal(read, written)
        assert store.length(name) == len(written)
        assert store.duration_seconds(name) is None
        assert name in store
    assert "other" not in store


def test_a_missing_video_is_named(store: FeatureStore, tmp_path: Path) -> None:
    for ask in (store.read, store.length):
        with pytest.raises(
            InputError, match=r"has no features of other: get them, or set data.allow_missing"
        ):
            ask("other")


def test_threads_read_at_the_same_time(store: FeatureStore) -> None:
    names = list(NAMES) * 20
    with ThreadPoolExecutor(8) as pool:
        for name, read in zip(names, pool.map(store.read, names), strict=True):
            assert np.array_equal(read, FEATURES[name])


def test_a_store_is_opened_twice(form: Form, tmp_path: Path) -> None:
    """Training and validation read the same files."""
    path = write_features(tmp_path, FEATURES, form)
    first, second = open_features([path]), open_features([path])
    assert np.array_equal(first.read(NAMES[0]), second.read(NAMES[0]))
    del first
    assert np.array_equal(second.read(NAMES[1]), FEATURES[NAMES[1]])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_become_float32(form: Form, tmp_path: Path, dtype: str) -> None:
    mixed = {name: values.astype(dtype) for name, values in FEATURES.items()} | {NAMES[0]: FEATURES[NAMES[0]]}
    store = open_features([write_features(tmp_path, mixed, form)])
    for name, values in mixed.items():
        assert np.array_equal(store.read(name), values.astype(np.float32))


BAD: dict[str, tuple[Array, str]] = {
    "NaN": (np.array([[1, 2], [np.nan, 0]], np.float32).repeat(6, 1), "holds NaN or infinity in vector 1"),
    "infinity": (np.full((2, WIDTH), 1e300), "holds NaN or infinity in vector 0"),
    "empty": (np.zeros((0, WIDTH), np.float32), rf"is empty, of shape \[0, {WIDTH}\]"),
    "width": (np.zeros((3, 11), np.float32), f"holds vectors of 11 numbers, and {NAMES[0]} of {WIDTH}"),
    "one axis": (np.zeros(12, np.float32), r"holds an array of shape \[12\]: it must be \[vectors, feat"),
    "numbers": (np.zeros((3, WIDTH), np.int64), "int64|<i8"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_features_are_named(form: Form, tmp_path: Path, kind: str) -> None:
    values, message = BAD[kind]
    store = open_features([write_features(tmp_path, {**FEATURES, NAMES[-1]: values}, form)])
    assert np.array_equal(store.read(NAMES[0]), FEATURES[NAMES[0]])
    with pytest.raises(InputError, match=message) as caught:
        store.read(NAMES[-1])
    assert NAMES[-1] in str(caught.value)


def test_a_first_video_that_is_bad_spoils_no_other(form: Form, tmp_path: Path) -> None:
    bad = {NAMES[0]: BAD["NaN"][0]}
    alone = open_features([write_features(tmp_path / "alone", bad, form)])
    with pytest.raises(InputError, match=f"{NAMES[0]}.*holds NaN"):
        _ = alone.width
    store = open_features([write_features(tmp_path / "all", FEATURES | bad, form)])
    assert store.width == WIDTH
    assert np.array_equal(store.read(NAMES[1]), FEATURES[NAMES[1]])
    with pytest.raises(InputError, match="holds NaN"):
        store.read(NAMES[0])


def test_stores_are_joined_on_the_feature_axis(tmp_path: Path) -> None:
    """As HERO joins ResNet's and SlowFast's: cut to the shorter one."""
    first = {"a": np.full((5, 2), 1.0, np.float32), "b": np.full((3, 2), 2.0, np.float32)}
    second = {"b": np.full((4, 3), 3.0, np.float32), "a": np.full((4, 3), 4.0, np.float32), "c": first["b"]}
    paths = [
        write_features(tmp_path / "resnet", first, "npz"),
        write_features(tmp_path / "slowfast", second, "hdf5"),
    ]
    store = open_features(paths)
    assert tuple(store.names) == ("a", "b")
    assert "c" not in store
    assert store.width == 5
    assert (store.length("a"), store.length("b")) == (4, 3)
    assert store.read("a").tolist() == [[1.0, 1.0, 4.0, 4.0, 4.0]] * 4
    assert store.read("b").tolist() == [[2.0, 2.0, 3.0, 3.0, 3.0]] * 3
    with pytest.raises(InputError, match="no video is in all of its files"):
        open_features([paths[0], write_features(tmp_path / "other", {"z": first["a"]}, "npy")])


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data.features: set it to a folder of .npz"):
        open_features([])
    with pytest.raises(InputError, match=r"data.features=.*missing does not exist"):
        open_features([tmp_path / "missing"])
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(InputError, match=r"data.features=.*a.csv is of no known kind"):
        open_features([tmp_path / "a.csv"])
    with pytest.raises(InputError, match=r"holds no features: set data.features to"):
        open_features([tmp_path])

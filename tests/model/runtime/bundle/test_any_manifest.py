"""Whatever stands in `bundle.json`: a manifest, or a BundleError that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.runtime.bundle.files import default_bundle_path
from model.runtime.bundle.manifest import BundleManifest, parse_manifest
from model.runtime.errors import BundleError
from tests.support.any_json import almost, anything, deep
from tests.support.documented import result_or

GOOD = (default_bundle_path() / "bundle.json").read_bytes()
PATH = Path("folder/bundle.json")


def read(data: bytes) -> BundleManifest | None:
    """The manifest, which must be the same when it is written and read again; or None after a BundleError."""
    manifest = result_or(BundleError, parse_manifest, data, PATH)
    if isinstance(manifest, BundleError):
        assert str(manifest).startswith(str(PATH))
        assert "\n" not in str(manifest)
        return None
    assert parse_manifest(manifest.to_json(), PATH) == manifest
    return manifest


def test_the_good_one_is_read() -> None:
    assert read(GOOD) is not None


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    read(data)


@settings(deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_changed_bytes(place: int, data: bytes) -> None:
    read(GOOD[:place] + data + GOOD[place + len(data) :])


@settings(deadline=None)
@given(anything)
def test_any_json(document: Any) -> None:
    assert read(json.dumps(document).encode()) is None


def test_an_unknown_key_is_named_in_one_line() -> None:
    assert read(json.dumps({**json.loads(GOOD), "two\nlines": 1}).encode()) is None


@settings(deadline=None, max_examples=300)
@given(almost(json.loads(GOOD)))
def test_changed_values(document: dict[str, Any]) -> None:
    manifest = read(json.dumps(document).encode())
    if manifest is not None:
        assert all("/" not in name and not name.startswith(".") for name in manifest.files)


@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_deep_json(bracket: str) -> None:
    assert read(deep(bracket)) is None

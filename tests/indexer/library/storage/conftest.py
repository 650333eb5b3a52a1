"""A server of S3's protocol for these tests."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from indexer.library.storage.address import library_folder
from model.runtime.bundle import Bundle
from tests.support.object_store import BUCKET, KEYS, object_store
from tests.support.toy_bundle import make_toy_bundle

_numbers = count()


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    """The address of the server."""
    with object_store() as address:
        yield address


@pytest.fixture
def at_store(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a library that does not exist yet; the environment names the server and keys."""
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": store, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/library-{next(_numbers)}"


@pytest.fixture
def remote(at_store: str) -> Path:
    """The working folder of that library."""
    return library_folder(at_store)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are made up: their times and paths need not be true."""
    monkeypatch.setattr("indexer.library.verify.wrong_meaning", lambda *_: ())

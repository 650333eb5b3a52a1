"""An object store for these tests."""

from collections.abc import Iterator

import pytest

from tests.support.object_store import KEYS, Faults, faulty_proxy, object_store


@pytest.fixture(scope="session")
def plain_store() -> Iterator[str]:
    """The address of a server."""
    with object_store() as address:
        yield address


@pytest.fixture(scope="session")
def proxy(plain_store: str) -> Iterator[tuple[str, Faults]]:
    """The address of a proxy before it, and how that fails."""
    faults = Faults()
    with faulty_proxy(plain_store, faults) as address:
        yield address, faults


@pytest.fixture
def faults(proxy: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """How the store fails that the environment names."""
    address, faults = proxy
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    yield faults
    faults.share, faults.is_away = 0.0, False

"""How a library is named: by a path, or by an address."""

from pathlib import Path

import pytest

from indexer.library.storage.address import address_of, library_folder, parse_address, place_name
from indexer.library.storage.registry import storage_of
from model.runtime.errors import InputError
from model.runtime.messages import shown
from service.settings import load_settings


@pytest.mark.parametrize("text", ["library", "/srv/my library", "./a:b", "s3:/bucket"])
def test_a_path_is_itself(text: str) -> None:
    assert library_folder(text) == Path(text)
    assert address_of(Path(text)) is None
    assert storage_of(Path(text)).is_local


def test_a_file_address_is_a_path() -> None:
    assert library_folder("file:///srv/my%20library") == Path("/srv/my library")
    for wrong in ("file://elsewhere/srv/library", "file://", "file:///a?b"):
        with pytest.raises(InputError, match="a file address is file:///absolute/path"):
            library_folder(wrong)


@pytest.mark.parametrize("text", ["s3://films", "s3://films/a/b", "gs://films/a", "az://films/a=1/b-2.c"])
def test_an_address_has_a_working_folder_of_its_own(text: str) -> None:
    folder = library_folder(text)
    assert folder.is_dir()
    assert folder == library_folder(f"{text}/") != library_folder(f"{text}-2")
    found = address_of(folder / "snapshots" / "1")
    assert found is not None
    assert (found[0], str(found[1])) == (folder, text)
    assert place_name(folder / "generations") == f"{text}/generations"
    assert shown(f"no snapshot in {folder}/snapshots") == f"no snapshot in {text}/snapshots"


def test_another_server_is_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    first = library_folder("s3://films/a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")
    assert library_folder("s3://films/a") != first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://films/a", "an address begins with s3://"),
        ("s3://key:secret@films/a", "keys come from the environment"),
        ("s3://films/a?region=b", "keys come from the environment"),
        ("s3:///a", "is no name of a bucket"),
        ("s3://films/a b", "is no prefix"),
        ("s3://films/../a", "is no prefix"),
        ("s3://films/a//b", "is no prefix"),
    ],
)
def test_a_wrong_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_address(text)
    with pytest.raises(InputError, match=said):
        library_folder(text)


def test_azure_needs_the_name_of_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(InputError, match="set AZURE_STORAGE_ACCOUNT_NAME"):
        storage_of(library_folder("az://films/account"))


def test_keys_of_a_service_lie_in_no_cache() -> None:
    settings = load_settings({"library": "s3://films/keys"})
    assert settings.library == library_folder("s3://films/keys")
    assert "libraries" not in settings.state_folder.parts
    assert settings.state_folder.parts[-3:-1] == ("reelfind", "services")
    assert load_settings({"library": Path("/srv/library")}).state_folder == Path("/srv/library-state")

"""The file of keys: what is in it, who may read it, and what counts when it is changed under a reader."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from model.runtime.errors import InputError
from service.errors import RightsError
from service.rights.folders import Folder
from service.rights.keys import is_secret_of, parse_key
from service.rights.store import AccessStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AccessStore]:
    with closing(AccessStore(tmp_path / "state")) as store:
        yield store


def test_a_key_comes_back_as_it_was_made(store: AccessStore) -> None:
    folder = Folder(Path(os.fsdecode(b"/media/\xff")))
    text, key = store.create(("media", "index"), name="é", folder=folder, expires_at=2e9)
    assert parse_key(str(text)) == text
    assert store.find(text.key_id) == key
    assert store.all_keys() == [key]
    assert (key.scopes, key.folder, key.expires_at, key.revoked_at) == (("media", "index"), folder, 2e9, None)
    assert is_secret_of(key, text.secret)
    assert not is_secret_of(key, text.secret[:-1] + "~")
    assert not is_secret_of(None, text.secret)


def test_the_file_holds_no_secret_and_is_its_owners_alone(store: AccessStore) -> None:
    text, key = store.create(("admin",))
    assert key.secret_hash.startswith("$argon2id$")
    store.close()
    assert text.secret.encode() not in store.path.read_bytes()
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    store.path.chmod(0o640)
    with pytest.raises(InputError, match=r"read by others than its owner \(mode 0640\): run `chmod 600"):
        AccessStore(store.path.parent)


def test_a_revoked_or_expired_key_is_found_and_does_not_count(store: AccessStore) -> None:
    text, _ = store.create(("search",))
    late, _ = store.create(("search",), expires_at=time.time() - 1)
    assert store.revoke(text.key_id)
    assert not store.revoke(text.key_id)
    assert not store.revoke("000000000000")
    reasons = {key.key_id: key.why_invalid for key in store.all_keys()}
    assert reasons == {text.key_id: "was revoked", late.key_id: "has expired"}


def test_sessions_end_and_are_forgotten_when_they_would_have_ended(store: AccessStore) -> None:
    store.end_session("old", time.time() - 1)
    store.end_session("new", time.time() + 100)
    store.end_session("new", time.time() + 100)
    assert [store.has_ended(name) for name in ("old", "new", "other")] == [False, True, False]


def test_another_process_and_another_file_count_at_once(store: AccessStore, tmp_path: Path) -> None:
    first, _ = store.create(("search",))
    with closing(AccessStore(tmp_path / "other")) as other:
        second, _ = other.create(("search",))
    secret = store.secret()
    with closing(AccessStore(store.path.parent)) as again:
        assert again.secret() == secret
        assert again.revoke(first.key_id)
    found = store.find(first.key_id)
    assert found is not None
    assert found.why_invalid == "was revoked"
    other.path.replace(store.path)
    assert store.find(first.key_id) is None
    assert store.find(second.key_id) is not None
    assert store.secret() not in (secret, b"")


def test_without_the_file_no_key_counts_and_none_is_made(store: AccessStore) -> None:
    text, _ = store.create(("search",))
    store.path.unlink()
    assert store.find(text.key_id) is None
    assert store.secret() == b""
    with pytest.raises(RightsError, match="is missing: restore it"):
        store.create(("search",))
    assert not store.path.exists()


def test_a_damaged_or_newer_file_is_refused(store: AccessStore) -> None:
    store.close()
    with sqlite3.connect(store.path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(RightsError, match="has format 2, this program reads 1"):
        AccessStore(store.path.parent)
    store.path.write_bytes(b"no database" * 1000)
    with pytest.raises(RightsError, match=r"not a database.*restore it from a backup"):
        AccessStore(store.path.parent)
    with pytest.raises(RightsError, match="not a database"):
        store.find("0" * 12)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"state .*file/state cannot be used: .*install -d -m 700"):
        AccessStore(tmp_path / "file" / "state")


def _open(folder: Path) -> bytes:
    with closing(AccessStore(folder)) as store:
        return store.secret()


def test_processes_that_open_a_new_store_at_once_have_one_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        secrets = pool.map(_open, [tmp_path / "state"] * 8)
    assert len(set(secrets)) == 1
    assert len(secrets[0]) == 32


@pytest.mark.parametrize(
    "text", ["", "rf_", "rf_0123456789ab_short", "RF_0123456789ab_" + "a" * 43, "a" * 60]
)
def test_what_is_no_key_is_told_from_one(text: str) -> None:
    assert parse_key(text) is None
    assert parse_key(f"rf_0123456789ab_{'a' * 43}\n") is None

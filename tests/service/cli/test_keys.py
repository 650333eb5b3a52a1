"""`reelfind keys`: what it prints, stores and refuses."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.rights.keys import is_secret_of, parse_key
from service.rights.store import AccessStore
from tests.support.command_line import check_error, invoke


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REELFIND_LIBRARY", str(tmp_path / "library"))


def test_a_key_is_printed_once_and_alone(tmp_path: Path) -> None:
    done = invoke(
        "keys", "create", "--scope", "search", "--scope", "media", "--name", "ann", "--expires", "30d"
    )
    assert done.exit_code == 0
    key = parse_key(done.stdout.strip())
    assert key is not None
    assert done.stdout == f"{key}\n"
    assert f"key {key.key_id} has the scope media, until " in done.stderr
    with closing(AccessStore(tmp_path / "library-state")) as store:
        stored = store.find(key.key_id)
    assert stored is not None
    assert is_secret_of(stored, key.secret)
    assert (stored.name, stored.scopes, stored.folder) == ("ann", ("media",), None)
    assert stored.expires_at == pytest.approx((datetime.now(UTC) + timedelta(days=30)).timestamp(), abs=60)
    listed = invoke("keys", "list")
    assert key.key_id in listed.stdout
    assert key.secret not in listed.stdout
    (entry,) = (tmp_path / "library-state" / "audit.jsonl").read_text().splitlines()
    assert json.loads(entry)["action"] == "key.create"
    assert key.secret not in entry


def test_keys_are_listed_and_revoked(tmp_path: Path) -> None:
    made = [json.loads(invoke("keys", "create", "--scope", "index", "--json").stdout) for _ in range(2)]
    first, second = (each["key_id"] for each in made)
    done = invoke("keys", "revoke", first)
    assert (done.exit_code, done.stdout) == (0, f"key {first} is revoked\n")
    done = invoke("keys", "revoke", first, second, "--json")
    assert json.loads(done.stdout) == {"revoked": [second]}
    keys = json.loads(invoke("keys", "list", "--json").stdout)["keys"]
    assert [(key["key_id"], key["state"]) for key in keys] == [(first, "revoked"), (second, "revoked")]
    assert all(set(key) == set(made[0]) - {"key"} for key in keys)
    check_error(invoke("keys", "revoke", second, "0" * 12), 2, 'no key "000000000000".*keys list')


def test_a_folder_is_stored_as_the_indexer_would(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    done = invoke("keys", "create", "--scope", "media", "--folder", tmp_path / "link", "--json")
    assert json.loads(done.stdout)["folder"] == str((tmp_path / "real").resolve())
    done = invoke("keys", "create", "--scope", "media", "--folder", tmp_path / "none")
    assert done.exit_code == 0
    assert f"there is no folder {(tmp_path / 'none').resolve()} here" in done.stderr


def test_mistakes_are_named_and_nothing_is_made(tmp_path: Path) -> None:
    check_error(
        invoke("keys", "list"), 2, "no keys at .*library-state/access.sqlite: make one with `reelfind keys"
    )
    check_error(invoke("keys", "revoke", "x"), 2, "no keys at")
    create = ("keys", "create", "--scope")
    check_error(invoke(*create, "all"), 2, '--scope "all" is not one of search, media, index, metrics, admin')
    check_error(invoke(*create, "admin", "--folder", tmp_path), 2, "--folder .* cannot limit the scope admin")
    check_error(invoke(*create, "media", "--expires", "soon"), 2, '--expires "soon" is no time: write a span')
    check_error(invoke(*create, "media", "--name", "a\nb"), 2, "--name must have at most 100 characters")
    assert not (tmp_path / "library-state").exists()
    (tmp_path / "library-state").write_text("")
    check_error(
        invoke(*create, "media"), 2, "--state .*library-state cannot be used: File exists.*install -d"
    )

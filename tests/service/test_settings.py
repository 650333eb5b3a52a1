"""Settings: flags over environment over defaults, one-line errors, and a table that cannot go stale."""

import re
from pathlib import Path

import pytest

from model.runtime.errors import InputError
from service.errors import QueryError
from service.settings import OTHER_VARIABLES, Settings, check_environment, load_settings, settings_table
from tests.support.paths import ROOT

_TEXTS = {".py", ".md", ".yml", ".env"}
#: What tests misspell on purpose.
_MISSPELT = {f"REELFIND_{name}" for name in ("DEADLNE_MS", "THREAD", "XYZZY", "HOSTS", "PORTS", "X")}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"REELFIND_{name.upper()}", raising=False)


def test_the_committed_table_is_the_generated_one() -> None:
    assert (ROOT / "deploy" / "settings.md").read_text(encoding="utf-8") == settings_table(), (
        "run: python -m service.settings > deploy/settings.md"
    )


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().port == 8000
    monkeypatch.setenv("REELFIND_PORT", "9001")
    assert load_settings({"port": None}).port == 9001
    assert load_settings({"port": 9002}).port == 9002


@pytest.mark.parametrize("name", ["bundle", "engine_cache"])
@pytest.mark.parametrize(("value", "expected"), [("", None), ("/models/mini", Path("/models/mini"))])
def test_an_empty_folder_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: object
) -> None:
    monkeypatch.setenv(f"REELFIND_{name.upper()}", value)
    assert getattr(load_settings(), name) == expected


def test_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFIND_CORS_ORIGINS", "https://a.example, https://b.example,")
    assert load_settings().cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PROVIDER", "abacus"),
        ("MAX_TOP_K", "0"),
        ("MAX_CANDIDATES", "0"),
        ("MAX_CANDIDATES", "many"),
        ("DEADLINE_MS", "0"),
        ("DEADLINE_MS", "0.5"),
        ("DEADLINE_MS", "99999999"),
        ("RELOAD_SECONDS", "nan"),
        ("THREADS", "0"),
        ("ACCESS_LOG", "perhaps"),
        ("HOST", ""),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"REELFIND_{name}", value)
    with pytest.raises(QueryError) as caught:
        load_settings()
    assert f"REELFIND_{name} is {value!r}" in str(caught.value)


def test_a_wrong_flag_is_named_as_a_flag() -> None:
    with pytest.raises(QueryError, match="--search-threads is 0"):
        load_settings({"search_threads": 0})


def test_the_default_must_be_within_the_maximum() -> None:
    with pytest.raises(QueryError, match="default_top_k 20 is above max_top_k 5"):
        load_settings({"default_top_k": 20, "max_top_k": 5})


def test_a_gpu_that_decodes_cannot_be_confined() -> None:
    with pytest.raises(QueryError, match=r"hwaccel cuda: .* use sandbox auto, or leave out hwaccel"):
        load_settings({"hwaccel": "cuda", "sandbox": "required"})


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("REELFIND_DEADLNE_MS", "did you mean REELFIND_DEADLINE_MS?"),
        ("REELFIND_THREAD", "did you mean REELFIND_THREADS?"),
        ("reelfind_libary", "did you mean REELFIND_LIBRARY?"),
        ("REELFIND_XYZZY", "unset it"),
        ("REELFIND_", "unset it"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_nearest_one(name: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        check_environment({name: "1", "REELFIND_PORT": "80", "PATH": "/bin"})
    assert str(caught.value) == f"{name} is not a setting: {remedy}"


def test_all_misspelt_variables_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"^REELFIND_HOSTS is .*; REELFIND_PORTS is .*REELFIND_PORT\?$"):
        check_environment({"REELFIND_PORTS": "1", "REELFIND_HOSTS": "1"})


def test_known_variables_and_those_of_others_pass() -> None:
    settings = {f"REELFIND_{name.upper()}": "" for name in Settings.model_fields}
    lower = {"reelfind_port": "80", "MY_REELFIND_X": "1", "REELFINDER": "1"}
    check_environment(settings | dict.fromkeys(OTHER_VARIABLES, "1") | lower)


def test_every_variable_that_the_project_reads_is_known() -> None:
    """Code, tests, containers and pages name no other variable."""
    places = ["model", "indexer", "service", "tests", "deploy"]
    files = [path for place in places for path in (ROOT / place).rglob("*") if path.suffix in _TEXTS]
    files += [ROOT / name for name in ("Dockerfile", "docker-compose.yml", "README.md", "CONTRIBUTING.md")]
    names = {
        name for path in files for name in re.findall(r"\bREELFIND_[A-Z_]*[A-Z]\b", path.read_text("utf-8"))
    }
    known = {f"REELFIND_{name.upper()}" for name in Settings.model_fields} | set(OTHER_VARIABLES)
    assert names - _MISSPELT <= known


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("/a:/b", ["/a", "/b"]),
        ("s3://films/raw:/media", ["s3://films/raw", "/media"]),
        ("https://host:8443/a:http://[::1]:80/b:/c", ["https://host:8443/a", "http://[::1]:80/b", "/c"]),
    ],
)
def test_media_folders_may_be_addresses(text: str, roots: list[str]) -> None:
    assert [str(root) for root in load_settings({"media_roots": text}).media_roots] == roots

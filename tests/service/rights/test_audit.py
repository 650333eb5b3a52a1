"""The audit log: whole lines, rotation, several writers, a full disk."""

from __future__ import annotations

import json
import logging
import multiprocessing
from pathlib import Path

import pytest

from model.runtime.errors import InputError
from service.rights.audit import AuditEntry, AuditLog, open_audit_log
from service.settings import load_settings

WRITERS, LINES = 3, 60


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_what_is_known_and_no_more(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", 1000, 3)
    log.write(AuditEntry("key.create", "done", who="ann\n\u202e", target="0123"))
    (entry,) = entries(log.path)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"action": "key.create", "outcome": "done", "who": "ann\n\u202e", "target": "0123"}
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.read_bytes().isascii()


def test_full_files_are_kept_up_to_their_number(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", 300, 2)
    for number in range(40):
        log.write(AuditEntry("library.reload", "done", target=str(number)))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    kept = [int(entry["target"]) for name in reversed(names) for entry in entries(tmp_path / name)]
    assert kept == list(range(kept[0], 40))
    assert all((tmp_path / name).stat().st_size <= 300 for name in names)
    none = AuditLog(tmp_path / "none.jsonl", 300, 0)
    for number in range(10):
        none.write(AuditEntry("library.reload", "done", target=str(number)))
    assert [path.name for path in tmp_path.glob("none*")] == ["none.jsonl"]


def _write(path: Path, writer: int) -> None:
    log = AuditLog(path, 2000, 1000)
    for number in range(LINES):
        log.write(AuditEntry("request", "refused", who=f"{writer}", target=f"{number}"))


def test_several_writers_lose_no_line_while_files_change(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with multiprocessing.get_context("spawn").Pool(WRITERS) as pool:
        pool.starmap(_write, [(path, writer) for writer in range(WRITERS)])
    written = [(entry["who"], entry["target"]) for file in tmp_path.iterdir() for entry in entries(file)]
    assert sorted(written) == sorted((f"{w}", f"{n}") for w in range(WRITERS) for n in range(LINES))


def test_a_disk_that_is_full_is_told_to_the_log_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log = AuditLog(Path("/dev/full"), 1000, 3)
    with caplog.at_level(logging.ERROR, "reelfind"):
        log.write(AuditEntry("library.reload", "done"))
    assert "the audit log /dev/full cannot be written: No space left" in caplog.text
    assert "library.reload" in caplog.text


def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    assert open_audit_log(load_settings({"library": tmp_path / "library"})) is None
    settings = load_settings({"library": tmp_path / "library", "audit_log": tmp_path / "no" / "audit.jsonl"})
    with pytest.raises(InputError, match=r"audit log .* cannot be written: No such file.*REELFIND_AUDIT_LOG"):
        open_audit_log(settings)

"""Whatever files are called: each is found, and its path comes back from the library's record of it."""

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.library.facts import storable
from indexer.library.records import displayable
from indexer.library.schema import FileRow, Layout, files_table, videos_table
from indexer.scan import scan
from model.runtime.names import as_seen, find_as_seen, near, without_case
from tests.indexer.library.test_facts import row

LAYOUT = Layout("c", "toy", embedding_dim=8, salience_dim=16, frames_per_segment=16)
_ODD = [
    "\u202e",
    "\x1b[31m",
    "\n",
    "é",
    "e\u0301",
    "\u200b",
    "\u00a0",
    "..",
    "%2f",
    "'",
    '"',
    "\\",
    "*",
    "猫",
    "\ud800",
]
names = (
    (st.binary(min_size=1, max_size=60) | st.lists(st.sampled_from(_ODD), max_size=6).map("".join).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    ))
    .map(lambda name: name.replace(b"\x00", b"").replace(b"/", b""))
    .map(lambda name: name.lstrip(b"."))
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.sets(names, min_size=1, max_size=5))
def test_files_of_any_name_are_found(found: set[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        paths = {root / os.fsdecode(b"a" + name + b".mp4") for name in found}
        for path in paths:
            path.write_bytes(b"")
        scanned = scan([root])
        assert set(scanned.files) == paths
        assert not scanned.problems
        for path in paths:
            assert scan([path]).files == [path]
            assert find_as_seen(path) == path
            assert near(path) == ""
            displayable(path).encode("utf-8")
            videos_table(LAYOUT, [storable(row(title=str(path), reason=str(path)))])
            place = FileRow(os.fsencode(path), "1", 0, datetime.now(UTC))
            (back,) = files_table(LAYOUT, [place])["path"].to_pylist()
            assert Path(os.fsdecode(back)) == path


@settings(deadline=None)
@given(st.text())
def test_how_a_name_is_seen_does_not_change_twice(name: str) -> None:
    assert as_seen(as_seen(name)) == as_seen(name)
    assert without_case(without_case(name)) == without_case(name)
    assert without_case(as_seen(name)) == without_case(name)


@settings(deadline=None, max_examples=60)
@given(names)
def test_what_is_missing_gets_a_hint_or_none(name: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "film.mp4").write_bytes(b"")
        missing = Path(folder) / os.fsdecode(name + b"x")
        assert isinstance(near(missing), str)
        assert find_as_seen(missing) == missing

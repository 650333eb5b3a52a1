"""What a reader holds stays: on this machine by its lock, elsewhere for some time. Nothing stays for ever."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from indexer.library.errors import LibraryError
from indexer.library.leases import claimed, hold, retired_seconds
from indexer.library.manifest import snapshot_folder, snapshot_numbers
from indexer.library.snapshot import Snapshot
from indexer.library.switching import rollback
from indexer.library.verify import verify_library
from indexer.options import IndexOptions
from indexer.run import index_paths
from model.runtime.bundle import Bundle
from tests.support.toy_bundle import make_toy_bundle
from tests.support.toy_videos import make_video


class Home:
    """A media folder with one film, which each run finds changed."""

    def __init__(self, root: Path, bundle: Bundle) -> None:
        self.media, self.library, self.bundle = root / "media", root / "library", bundle
        self._seconds = 0.2

    def run(self, *, change: bool = True, **options: Any) -> list[int]:
        """Index; the numbers of the snapshots that are left."""
        if change:
            self._seconds += 0.1
            make_video(self.media / "a.mp4", parts=[("red", self._seconds)])
        chosen = IndexOptions(**{"workers": 0, "keep_snapshots": 1, "keep_seconds": 0.0, **options})
        index_paths([self.media], self.library, self.bundle, chosen, lambda _: None)
        return snapshot_numbers(self.library)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy"))


@pytest.fixture
def home(bundle: Bundle, tmp_path: Path) -> Home:
    home = Home(tmp_path, bundle)
    home.run()
    return home


def read_all(snapshot: Snapshot) -> list[object]:
    return [
        (snapshot.thumbnail(i), snapshot.frame_tokens([segment.row], [f]).tolist())
        for segment in snapshot.segments(range(snapshot.num_segments))
        for f, i in enumerate(segment.frame_ids)
    ]


def test_what_a_reader_holds_stays_until_it_lets_go(home: Home) -> None:
    snapshot = Snapshot.open(home.library)
    whole = read_all(snapshot)
    assert home.run() == [1, 2]
    assert home.run() == [1, 3]
    assert read_all(snapshot) == whole
    del snapshot
    assert home.run() == [4]
    assert verify_library(home.library).ok


def test_a_reader_in_another_process_that_may_not_write(home: Home) -> None:
    folder = snapshot_folder(home.library, 1)
    code = (
        "import sys; from pathlib import Path; from indexer.library.leases import hold\n"
        "lease = hold(Path(sys.argv[1])); print(lease is not None, flush=True); sys.stdin.read()"
    )
    (folder / "manifest.json").chmod(0o444)
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "True\n"
        (folder / "manifest.json").chmod(0o644)
        assert home.run() == [1, 2]
    finally:
        reader.kill()
        reader.communicate()
    assert home.run() == [3], "a reader that was killed holds nothing"


def test_other_readers_have_some_time(home: Home) -> None:
    assert home.run(keep_seconds=60.0) == [1, 2]
    assert home.run(keep_seconds=60.0) == [1, 2, 3]
    retired = snapshot_folder(home.library, 1) / "retired"
    retired.write_text(f"{time.time() - 61}\n")
    assert home.run(change=False, keep_seconds=60.0) == [2, 3], "a run without changes removes it too"


def test_a_clock_that_was_ahead_keeps_nothing_for_ever(tmp_path: Path) -> None:
    (tmp_path / "retired").write_text(f"{time.time() + 86400}\n")
    assert retired_seconds(tmp_path) == 0.0
    assert float((tmp_path / "retired").read_text()) <= time.time()


def test_a_snapshot_that_is_served_again_gets_its_whole_time_again(home: Home) -> None:
    home.run(keep_seconds=60.0)
    (snapshot_folder(home.library, 1) / "retired").write_text(f"{time.time() - 59}\n")
    rollback(home.library, to=1)
    assert home.run(keep_seconds=60.0) == [1, 2, 3]
    assert retired_seconds(snapshot_folder(home.library, 1)) < 30


def test_what_is_being_removed_cannot_be_held(home: Home) -> None:
    folder = snapshot_folder(home.library, 1)
    with claimed(folder) as is_free:
        assert is_free
        with pytest.raises(LibraryError, match="is being removed"):
            hold(folder)
        with pytest.raises(LibraryError, match="is being removed"):
            Snapshot.open(home.library, 1)
    lease = hold(folder)
    assert lease is not None
    with claimed(folder) as is_free:
        assert not is_free
    lease.close()
    with claimed(folder) as is_free:
        assert is_free


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_readers_leave_no_descriptor_open(home: Home) -> None:
    Snapshot.open(home.library)
    before = open_files()
    for _ in range(5):
        Snapshot.open(home.library)
    shutil.rmtree(home.library / "videos.lance")
    for _ in range(5):
        with pytest.raises(LibraryError):
            Snapshot.open(home.library)
    assert open_files() <= before

"""Keeps what users exclude out of a run: files that are not read, contents that are not stored."""

import os
from collections.abc import Mapping
from pathlib import Path

from indexer.library.curation import Curation
from indexer.library.exclusions import Exclusion, Exclusions, Place
from indexer.library.writer import LibraryWriter
from indexer.place import no_longer_exists
from indexer.scan import FileFacts, Scan
from model.runtime.remote.path import media_path

#: What a file is that is passed over because it is excluded.
EXCLUDED = "excluded"


def leave_out_excluded(scanned: Scan, exclusions: Exclusions) -> None:
    """Take the files out of a scan that are excluded: by their paths, or because their content is known."""
    if not exclusions:
        return
    kept = []
    for path in scanned.files:
        facts = scanned.facts[path]
        if exclusions.of_path(os.fsencode(path)) or exclusions.of_place(path, facts.bytes, facts.mtime_ns):
            scanned.pass_over(path, EXCLUDED)
        else:
            kept.append(path)
    scanned.files = kept


class FoundExclusions:
    """The excluded contents that a run meets in new places, which it remembers at its end.

    Args:
        exclusions: what is excluded.
        facts: what each file was like when it was found.
    """

    def __init__(self, exclusions: Exclusions, facts: Mapping[Path, FileFacts]) -> None:
        self._exclusions = exclusions
        self._facts = facts
        self._found: list[tuple[int, Place]] = []

    def is_excluded(self, path: Path, sha256: str) -> bool:
        """Whether the content that was read from a file is excluded; its place is noted."""
        exclusion = self._exclusions.of_content("", sha256)
        if exclusion is None:
            return False
        facts = self._facts[path]
        self._found.append((exclusion.number, Place(os.fsencode(path), facts.bytes, facts.mtime_ns)))
        return True

    def remember(self, curation: Curation) -> None:
        """Store the places, so that the next run need not read these files.

        Raises:
            LibraryError: they cannot be written.
        """
        if self._found:
            curation.add_places(self._found)
            self._found = []


def forget_excluded(writer: LibraryWriter, exclusions: Exclusions) -> set[str]:
    """Take excluded places out of a library, and videos without any other place with them.

    Returns:
        The ids of the videos that have lost a place.

    Raises:
        LibraryError: a table cannot be written.
    """
    excluded = {
        video_id for video_id, row in writer.videos.items() if exclusions.of_content(video_id, row.sha256)
    }
    lost = {
        path: file.video_id
        for path, file in writer.files.items()
        if file.video_id in excluded or exclusions.of_path(path)
    }
    for path in lost:
        writer.forget_file(path)
    writer.flush()
    return set(lost.values())


def forget_gone(curation: Curation, scanned: Scan) -> None:
    """Forget what was removed, and not excluded for good, where no file with the content exists any more.

    Raises:
        LibraryError: that cannot be written.
    """
    gone = [each.number for each in curation.read().exclusions.items if _is_gone(each, scanned)]
    if gone:
        curation.include(gone)


def _is_gone(exclusion: Exclusion, scanned: Scan) -> bool:
    paths = [media_path(place.path) for place in exclusion.places]
    unreachable = [folder for folder, _ in scanned.problems]
    return (
        exclusion.kind == "removed"
        and bool(paths)
        and all(
            any(path.is_relative_to(root) for root in scanned.covered)
            and not any(path.is_relative_to(folder) for folder in unreachable)
            and no_longer_exists(path)
            for path in paths
        )
    )

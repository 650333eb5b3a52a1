"""Finds video files in folders."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from model.runtime.errors import InputError
from model.runtime.names import near

#: Containers that phones, cameras, recorders, discs and the web use for video.
EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("3g2", "3gp", "amv", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "insv", "lrv", "m1v", "m2t"),
        *("m2ts", "m2v", "m4v", "mjpeg", "mjpg", "mk3d", "mkv", "mov", "mp4", "mp4v", "mpe", "mpeg", "mpg"),
        *("mpv", "mts", "mxf", "nut", "ogm", "ogv", "qt", "rm", "rmvb", "tod", "ts", "vob", "webm", "wmv"),
        *("wtv", "y4m"),
    )
)


@dataclass
class Scan:
    """The video files at and below the given paths.

    Attributes:
        files: absolute paths, sorted, each file once.
        folders: the given folders, and the folders of the given files.
        linked: real folders to which, or into which, symbolic links lead.
        problems: folders and files that cannot be read, and why.
        covered: the given folders and files: an indexed video at or below one of them may have vanished.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    covered: list[Path] = field(default_factory=list)


def scan(paths: Iterable[Path | str]) -> Scan:
    """Find the video files at and below `paths`.

    Folders are searched recursively for known extensions. Hidden files and folders are skipped; symbolic
    links are followed; each folder and file counts once, however many links lead to it. A file among `paths`
    is included whatever its name.

    Raises:
        InputError: a path does not exist, or is neither a file nor a folder.
    """
    result = Scan()
    seen: set[tuple[int, int]] = set()
    roots = []
    for path in paths:
        # Resolve the path, so that a file has one id however it is named.
        try:
            root = Path(path).resolve(strict=True)
            stat = root.stat()
        except (OSError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            shown = f"{os.fspath(path)!r}: {reason}{near(Path(path))}"
            raise InputError(f"{shown}; name files or folders that exist") from error
        roots.append((root, stat))
    for root, stat in roots:
        result.covered.append(root)
        if root.is_dir():
            result.folders.append(root)
            _walk(root, seen, result)
        elif root.is_file():
            result.folders.append(root.parent)
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                result.files.append(root)
        else:
            raise InputError(f"{os.fspath(root)!r} is neither a file nor a folder: name videos or folders")
    result.files.sort()
    return result


def _walk(root: Path, seen: set[tuple[int, int]], result: Scan) -> None:
    links: list[Path] = []
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            stat = folder.stat()
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            with os.scandir(folder) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            result.problems.append((folder, error.strerror or str(error)))
            continue
        for entry in children:
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            if entry.is_symlink():
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_file(follow_symlinks=False):
                _add(path, entry.stat(follow_symlinks=False), seen, result)
        if not pending and links:
            # Follow links last: a file that is reached both ways keeps its own name.
            pending = _follow(links, seen, result)
            links = []


def _follow(links: list[Path], seen: set[tuple[int, int]], result: Scan) -> list[Path]:
    folders = []
    for path in links:
        try:
            stat = path.stat()
        except OSError as error:
            if path.suffix.lower() in EXTENSIONS:
                result.problems.append((path, f"a broken link: {error.strerror}"))
            continue
        if path.is_dir():
            folders.append(path)
            result.linked.append(path.resolve())
        elif path.is_file() and _add(path, stat, seen, result):
            result.linked.append(path.resolve().parent)
    return folders


def _add(path: Path, stat: os.stat_result, seen: set[tuple[int, int]], result: Scan) -> bool:
    """Add a file if its extension is known and it is new. → Whether it was added."""
    if path.suffix.lower() not in EXTENSIONS or (stat.st_dev, stat.st_ino) in seen:
        return False
    seen.add((stat.st_dev, stat.st_ino))
    if path.suffix.lower() == ".ts" and _is_text(path):
        return False
    result.files.append(path)
    return True


def _is_text(path: Path) -> bool:
    """Whether a `.ts` file is TypeScript: a transport stream has zero bytes in its headers."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return False
    return bool(start) and b"\0" not in start and not start.startswith(b"G")

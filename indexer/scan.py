"""Finds video files in folders."""

import os
import re
import stat as modes
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from indexer.ignore import IGNORE_FILE, Rules, rules_at, rules_in
from indexer.library.records import stored_ns
from indexer.library.storage.address import is_address
from indexer.media_kinds import EXTENSIONS, OPENED, Kind, kind_of
from indexer.place import place_error
from model.runtime.errors import InputError
from model.runtime.names import near
from model.runtime.timed_text import SUBTITLE_EXTENSIONS, subtitle_language

#: Subtitle files of one video that are read, at most.
_MOST_SUBTITLES = 100


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as the scan found it: size, time of modification as in `stored_ns`, and device (`st_dev`)."""

    bytes: int
    mtime_ns: int
    device: int


@dataclass(frozen=True, slots=True)
class SubtitleFile:
    """A subtitle file beside a video, as the scan found it; for the time, see `FileFacts`.

    `language` is a code such as "en"; None where the name has none.
    """

    path: Path
    bytes: int
    mtime_ns: int
    language: str | None


#: A symbolic link that was met: its path, its name, and the rules of its folder.
_Link = tuple[str, str, Rules]


@dataclass
class Scan:
    """The video files at and below the given paths.

    Attributes:
        files: absolute paths, sorted, each file once.
        facts: what each of them was like.
        subtitles: the subtitle files beside each of them, where there are any.
        subtitles_unknown: files whose folder cannot be listed: whether there are subtitles is unknown.
        folders: the given folders, and the folders of the given files.
        linked: real folders to which, or into which, symbolic links lead.
        problems: folders and files that cannot be looked at, and why.
        passed_over: how many files are not taken for videos, by what they are: an extension, `no extension`,
            `another extension` for an unusual one, `.ts that is no video`, `excluded`, or the kind of the
            rule that leaves them out, see `indexer.ignore`. A folder that is left out counts once; what is
            in it is not looked at.
        passed_over_files: these files, and what they are, if they were asked for.
        list_passed_over: whether they were.
        left_out: the files and folders that a rule leaves out.
        is_partial: only what has changed was looked at.
        away: where broken links lead: what was found there is missing, but not gone.
        covered: the given folders and files, and folders that links lead to: an indexed video at or below one
            of them may have vanished.
    """

    files: list[Path] = field(default_factory=list)
    facts: dict[Path, FileFacts] = field(default_factory=dict)
    subtitles: dict[Path, tuple[SubtitleFile, ...]] = field(default_factory=dict)
    subtitles_unknown: set[Path] = field(default_factory=set)
    folders: list[Path] = field(default_factory=list)
    linked: list[Path] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    passed_over_files: list[tuple[Path, str]] = field(default_factory=list)
    left_out: set[Path] = field(default_factory=set)
    list_passed_over: bool = False
    away: list[Path] = field(default_factory=list)
    covered: list[Path] = field(default_factory=list)
    is_partial: bool = False

    def pass_over(self, path: Path, kind: str) -> None:
        """Count a file that is not taken for a video, and list it if that was asked for."""
        self.passed_over[kind] += 1
        if self.list_passed_over:
            self.passed_over_files.append((path, kind))

    def concerns(self, folder: Path) -> bool:
        """Whether one of the given paths is at, above or below a folder."""
        return any(folder.is_relative_to(root) or root.is_relative_to(folder) for root in self.covered)

    def leaves_out(self, path: Path) -> bool:
        """Whether a rule leaves a file out, or a folder above it."""
        return path in self.left_out or any(folder in self.left_out for folder in path.parents)

    def parents(self) -> set[Path]:
        """Every folder above a file: the one that holds it, and those above that."""
        holding = {path.parent for path in self.files}
        return holding | {above for folder in holding for above in folder.parents}


def scan(
    paths: Iterable[Path | str],
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    list_passed_over: bool = False,
) -> Scan:
    """Find the video files at and below `paths`.

    Folders are searched recursively for known extensions. Subtitle files are found with their videos. What a
    rule leaves out is skipped; symbolic links are followed; each folder and file counts once, however many
    links lead to it. A file or a folder among `paths` is taken whatever its name. What cannot be looked at
    becomes one of `Scan.problems`.

    Args:
        paths: files and folders.
        exclude: patterns of files and folders to leave out, see `indexer.ignore.rules_at`.
        include: patterns of those to take although another rule leaves them out.
        list_passed_over: fill in `Scan.passed_over_files`.

    Raises:
        InputError: a path does not exist, or is neither a file nor a folder.
    """
    scanner = _Scanner(exclude, include, list_passed_over)
    roots = []
    for path in paths:
        if is_address(os.fspath(path)):
            raise InputError(
                f"{os.fspath(path)!r} is an address, and videos are read from folders: mount the bucket "
                "(mountpoint-s3, rclone mount), and name its folder"
            )
        # Resolve the path, so that a file has one id however it is named.
        try:
            root = Path(path).resolve(strict=True)
            stat = root.stat()
        except (OSError, RuntimeError, ValueError) as error:
            shown = f"{os.fspath(path)!r}: {place_error(error)}{near(Path(path))}"
            raise InputError(f"{shown}; name files or folders that exist") from error
        if not modes.S_ISDIR(stat.st_mode) and not modes.S_ISREG(stat.st_mode):
            raise InputError(f"{os.fspath(root)!r} is neither a file nor a folder: name videos or folders")
        roots.append((root, stat))
    for root, stat in roots:
        scanner.scan_root(root, stat)
    scanner.finish()
    return scanner.result


def scan_changes(
    changed: Iterable[Path],
    roots: Sequence[Path],
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> Scan:
    """Find what `scan` of the roots would find, among paths in them that have changed.

    Of a subtitle file the video is found that it is named after; of a `.reelfindignore`, all in its folder.
    What is not there any more counts as covered.

    Args:
        changed: absolute paths.
        roots: real paths of the folders and files that are searched otherwise. Paths outside of them are
            ignored.
        exclude: see `scan`.
        include: see `scan`.
    """
    scanner = _Scanner(exclude, include, list_passed_over=False)
    scanner.result.is_partial = True
    scanner.result.folders = [root if root.is_dir() else root.parent for root in roots]
    for path in sorted(set(changed)):
        root = next((root for root in roots if path.is_relative_to(root)), None)
        if root is not None:
            scanner.scan_change(path.parent if path.name == IGNORE_FILE and path != root else path, root)
    scanner.finish()
    return scanner.result


class _Scanner:
    def __init__(self, exclude: Sequence[str], include: Sequence[str], list_passed_over: bool) -> None:
        self.result = Scan(list_passed_over=list_passed_over)
        self._exclude, self._include = exclude, include
        self._seen: set[tuple[int, int]] = set()
        #: Subtitle files by their folder, and the folders of files that were given.
        self._subtitles: dict[Path, dict[str, FileFacts]] = {}
        self._beside: set[Path] = set()
        #: Folders with a subtitle file that cannot be looked at.
        self._unknown: set[Path] = set()

    def scan_root(self, root: Path, stat: os.stat_result) -> None:
        result = self.result
        result.covered.append(root)
        if modes.S_ISREG(stat.st_mode):
            result.folders.append(root.parent)
            if self._is_new(stat):
                self._take(root, stat)
            self._beside.add(root.parent)
            return
        result.folders.append(root)
        self._walk([(os.fspath(root), rules_at(root, self._exclude, self._include))])
        # A disk that is unmounted meanwhile leaves an empty folder: nothing in it is gone.
        try:
            now = root.stat()
        except OSError as error:
            self._problem(root, place_error(error))
        else:
            if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino):
                self._problem(root, "another folder or disk took its place during the scan")

    def scan_change(self, path: Path, root: Path) -> None:
        """Look at a path below a root, and at all below it, if the walk from the root would come there."""
        folder, rules = root, rules_at(root, self._exclude, self._include)
        if path == root:
            self._scan_changed_root(root, rules)
            return
        for name in path.relative_to(root).parts[:-1]:
            rules = rules.and_in(rules_in(folder))
            folder /= name
            if self._is_left_out(os.fspath(folder), name, rules, is_folder=True):
                self.result.covered.append(folder)
                return
            rules = rules.below(name)
            if folder.is_symlink():
                # As in a whole scan: what is in a folder has one path.
                folder = folder.resolve()
        rules = rules.and_in(rules_in(folder))
        path = folder / path.name
        try:
            self._look_at_change(path, rules)
        except FileNotFoundError:
            # It is gone. What was left out was not in the library.
            if rules.left_out(path.name, is_folder=False) or rules.left_out(path.name, is_folder=True):
                return
        except (OSError, RuntimeError, ValueError) as error:
            self._problem(path, place_error(error))
        self.result.covered.append(path)

    def _scan_changed_root(self, root: Path, rules: Rules) -> None:
        if root.is_dir():
            self._walk([(os.fspath(root), rules)])
        elif root.is_file():
            self._take(root, root.stat())
            self._beside.add(root.parent)
        else:
            self._problem(root, "is not there")
        self.result.covered.append(root)

    def _look_at_change(self, path: Path, rules: Rules) -> None:
        place, name = os.fspath(path), path.name
        self._beside.add(path.parent)
        if _extension(name) in SUBTITLE_EXTENSIONS:
            video = _video_of(path)
            if video is not None and not self._is_left_out(video.path, video.name, rules, is_folder=False):
                self._add(video.path, video.name, video.stat())
            return
        stat = path.stat()
        is_folder = modes.S_ISDIR(stat.st_mode)
        if path.is_symlink():
            self._walk(self._follow([(place, name, rules)]))
        elif (is_folder or modes.S_ISREG(stat.st_mode)) and not self._is_left_out(
            place, name, rules, is_folder=is_folder
        ):
            if is_folder:
                self._walk([(place, rules.below(name))])
            else:
                self._add(place, name, stat)

    def _walk(self, pending: list[tuple[str, Rules]]) -> None:
        links: list[_Link] = []
        while pending:
            folder, rules = pending.pop()
            try:
                if not self._is_new(os.stat(folder)):  # noqa: PTH116  paths are text until a file is taken
                    continue
                with os.scandir(folder) as entries:
                    children = sorted(entries, key=lambda entry: entry.name)
            except (OSError, ValueError) as error:
                self._problem(Path(folder), place_error(error))
                continue
            if any(entry.name == IGNORE_FILE for entry in children):
                rules = rules.and_in(rules_in(folder))
            for entry in children:
                if entry.name == IGNORE_FILE:
                    continue
                try:
                    self._look_at(entry, rules, links, pending)
                except (OSError, ValueError) as error:
                    if isinstance(error, PermissionError) and not os.access(folder, os.X_OK):
                        # The same is true of everything in it: one line is enough.
                        self._problem(Path(folder), f"may be listed but not entered: {place_error(error)}")
                        break
                    self._problem(Path(entry.path), place_error(error))
                    if _extension(entry.name) in SUBTITLE_EXTENSIONS:
                        self._unknown.add(Path(folder))
            if not pending and links:
                # Follow links last: a file that is reached both ways keeps its own name.
                pending = self._follow(links)
                links = []

    def _look_at(
        self, entry: os.DirEntry[str], rules: Rules, links: list[_Link], pending: list[tuple[str, Rules]]
    ) -> None:
        if entry.is_symlink():
            links.append((entry.path, entry.name, rules))
        elif entry.is_dir(follow_symlinks=False):
            if not self._is_left_out(entry.path, entry.name, rules, is_folder=True):
                pending.append((entry.path, rules.below(entry.name)))
        elif entry.is_file(follow_symlinks=False) and not self._is_left_out(
            entry.path, entry.name, rules, is_folder=False
        ):
            self._add(entry.path, entry.name, entry)

    def _is_left_out(self, path: str, name: str, rules: Rules, *, is_folder: bool) -> bool:
        rule = rules.left_out(name, is_folder)
        if rule is None:
            return False
        self.result.left_out.add(Path(path))
        self._pass_over(path, rule.kind)
        return True

    def _follow(self, links: list[_Link]) -> list[tuple[str, Rules]]:
        folders = []
        for path, name, rules in links:
            try:
                stat = os.stat(path)  # noqa: PTH116
                is_folder = modes.S_ISDIR(stat.st_mode)
                if (is_folder or modes.S_ISREG(stat.st_mode)) and self._is_left_out(
                    path, name, rules, is_folder=is_folder
                ):
                    continue
                real = Path(path).resolve()
                if is_folder:
                    # What is in a folder has one path, however the folder is reached.
                    folders.append((os.fspath(real), rules.below(name)))
                    self.result.linked.append(real)
                    self.result.covered.append(real)
                elif modes.S_ISREG(stat.st_mode) and self._add(path, name, stat):
                    self.result.linked.append(real.parent)
            except (OSError, RuntimeError, ValueError) as error:
                self.result.away.append(Path(os.path.realpath(path)))
                if _extension(name) in EXTENSIONS and rules.left_out(name, is_folder=False) is None:
                    self._problem(Path(path), f"a broken link: {place_error(error)}")
        return folders

    def _add(self, path: str, name: str, source: os.DirEntry[str] | os.stat_result) -> bool:
        """Add a file if it is a video and new. → Whether it was added."""
        extension = _extension(name)
        if extension in SUBTITLE_EXTENSIONS:
            facts = _facts(source if isinstance(source, os.stat_result) else source.stat())
            self._subtitles.setdefault(Path(path).parent, {})[name] = facts
            return False
        if extension not in EXTENSIONS:
            self._pass_over(path, _shown(extension))
            return False
        stat = source if isinstance(source, os.stat_result) else source.stat(follow_symlinks=False)
        if not self._is_new(stat):
            return False
        found = Path(path)
        if extension in OPENED and kind_of(found) is Kind.NO_VIDEO:
            still = "a still picture" if extension == ".gif" else "no video"
            self._pass_over(path, f"{extension} that is {still}")
            return False
        self._take(found, stat)
        return True

    def _take(self, path: Path, stat: os.stat_result) -> None:
        self.result.files.append(path)
        self.result.facts[path] = _facts(stat)

    def finish(self) -> None:
        """Sort the files, and assign subtitles."""
        # As paths are compared, but each is taken apart once.
        self.result.files.sort(key=lambda path: path.parts)
        if self._subtitles or self._beside or self._unknown:
            self._assign_subtitles()

    def _assign_subtitles(self) -> None:
        """Give each subtitle file to the videos that it is named after; others are passed over."""
        result = self.result
        videos: dict[Path, dict[str, list[Path]]] = {}
        for path in result.files:
            if path.parent in self._unknown:
                result.subtitles_unknown.add(path)
            if path.parent in self._subtitles or path.parent in self._beside:
                videos.setdefault(path.parent, {}).setdefault(path.stem, []).append(path)
        for folder in self._beside - self._subtitles.keys():
            self._look_beside(folder, videos.get(folder, {}))
        found: dict[Path, list[SubtitleFile]] = {}
        for folder, names in sorted(self._subtitles.items()):
            for name, facts in sorted(names.items()):
                stem, language = _named_after(name, videos.get(folder, {}))
                if stem is None and folder not in self._beside:
                    self._pass_over(os.path.join(folder, name), _shown(_extension(name)))  # noqa: PTH118
                elif stem is not None:
                    file = SubtitleFile(folder / name, facts.bytes, facts.mtime_ns, language)
                    for path in videos[folder][stem]:
                        found.setdefault(path, []).append(file)
        result.subtitles = {path: tuple(files[:_MOST_SUBTITLES]) for path, files in found.items()}

    def _look_beside(self, folder: Path, videos: dict[str, list[Path]]) -> None:
        """Find the subtitles of videos that were given as files, without their folder."""
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    suffix = Path(entry.name).suffix.lower()
                    if suffix in EXTENSIONS:
                        # Not to be indexed now, but its subtitles are not those of another one.
                        videos.setdefault(Path(entry.name).stem, [])
                    elif suffix in SUBTITLE_EXTENSIONS and entry.is_file():
                        self._subtitles.setdefault(folder, {})[entry.name] = _facts(entry.stat())
        except (OSError, ValueError):
            self.result.subtitles_unknown.update(path for paths in videos.values() for path in paths)

    def _is_new(self, stat: os.stat_result) -> bool:
        """Whether this folder or file was not met before, and note it."""
        key = (stat.st_dev, stat.st_ino)
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _problem(self, path: Path, reason: str) -> None:
        self.result.problems.append((path, reason))

    def _pass_over(self, path: str, kind: str) -> None:
        self.result.pass_over(Path(path), kind)


def _video_of(subtitles: Path) -> os.DirEntry[str] | None:
    """The video that a subtitle file is named after, which need not be there; None: there is none."""
    with os.scandir(subtitles.parent) as entries:
        videos = {Path(entry.name).stem: entry for entry in entries if _extension(entry.name) in EXTENSIONS}
    stem, _ = _named_after(subtitles.name, videos)
    return None if stem is None else videos[stem]


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  a `Path` for each file takes time


def _facts(stat: os.stat_result) -> FileFacts:
    return FileFacts(stat.st_size, stored_ns(stat.st_mtime_ns), stat.st_dev)


def _named_after(name: str, stems: Container[str]) -> tuple[str | None, str | None]:
    """The longest of the videos' stems that a subtitle file is named after, and its language."""
    stem = name.rpartition(".")[0]
    while stem:
        language = subtitle_language(stem, name) if stem in stems else None
        if language is not None:
            return stem, language or None
        stem = stem.rpartition(".")[0]
    return None, None


def _shown(extension: str) -> str:
    """An extension as it is counted: names end in anything, and the kinds should stay few."""
    if not extension:
        return "no extension"
    return extension if re.fullmatch(r"\.[a-z0-9_+-]{1,10}", extension) else "another extension"

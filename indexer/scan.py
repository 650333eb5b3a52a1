"""Finds video files in folders and in object stores."""

import os
import re
import stat as modes
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from indexer.ignore import IGNORE_FILE, Rules, rules_at, rules_in
from indexer.library.records import stored_ns
from indexer.media_kinds import EXTENSIONS, OPENED, Kind, kind_of
from indexer.place import place_error
from model.runtime.errors import InputError
from model.runtime.names import near
from model.runtime.remote.address import is_address
from model.runtime.remote.path import RemotePath, is_remote_text, media_path, parse_remote, status_of
from model.runtime.remote.store import has_files, list_files, list_folder
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
        paths: files and folders, and addresses: of a file, or in an object store of all whose names begin so.
        exclude: patterns of files and folders to leave out, see `indexer.ignore.rules_at`.
        include: patterns of those to take although another rule leaves them out.
        list_passed_over: fill in `Scan.passed_over_files`.

    Raises:
        InputError: a path does not exist, or is neither a file nor a folder; there is nothing at an address,
            or its server does not answer.
    """
    scanner = _Scanner(exclude, include, list_passed_over)
    roots: list[tuple[Path, os.stat_result | None]] = []
    for path in paths:
        # Resolve the path, so that a file has one id however it is named.
        try:
            root = media_root(path)
            if isinstance(root, RemotePath):
                roots.append((root, remote_status(root)))
                continue
            stat = root.stat()
        except (OSError, RuntimeError, ValueError) as error:
            shown = f"{os.fspath(path)!r}: {place_error(error)}{near(Path(path))}"
            raise InputError(f"{shown}; name files or folders that exist") from error
        if not modes.S_ISDIR(stat.st_mode) and not modes.S_ISREG(stat.st_mode):
            raise InputError(f"{os.fspath(root)!r} is neither a file nor a folder: name videos or folders")
        roots.append((root, stat))
    for root, status in roots:
        if isinstance(root, RemotePath):
            scanner.scan_remote(root, status)
        elif status is not None:
            scanner.scan_root(root, status)
    scanner.finish()
    return scanner.result


def media_root(named: Path | str) -> Path:
    """The real path of a file or a folder that is named, or its address.

    Raises:
        InputError: the address is invalid.
        OSError: there is nothing at the path.
    """
    text = os.fspath(named)
    if is_remote_text(text):
        return parse_remote(text)
    if is_address(text):
        raise InputError(
            f"{text!r} is no address of videos: they are read from folders, and from s3://, gs://, az://, "
            "https:// and http://"
        )
    return Path(text).resolve(strict=True)


def remote_status(root: RemotePath) -> os.stat_result | None:
    """What is at an address: a file's status; None: no file, but files whose names begin so.

    Raises:
        OSError: there is neither, or the server does not say.
    """
    try:
        return root.stat()
    except FileNotFoundError:
        if root.is_web or not has_files(root):
            raise
        return None


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
            self._take_root(root, stat)
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

    def scan_remote(self, root: RemotePath, status: os.stat_result | None) -> None:
        """Take a file that is read by ranges, or those whose names begin so, where there is no status."""
        result = self.result
        result.covered.append(root)
        if status is not None:
            self._take_root(root, status)
            return
        result.folders.append(root)
        folders: dict[Path, list[tuple[RemotePath, os.stat_result]]] = {root: []}
        try:
            for path, facts in list_files(root):
                folders.setdefault(path.parent, []).append((path, status_of(path, facts)))
        except OSError as error:
            self._problem(root, place_error(error))
        rules = _RemoteRules(root, rules_at(root, self._exclude, self._include), folders, self._is_left_out)
        for folder, found in sorted(folders.items(), key=lambda item: item[0].parts):
            in_folder = rules.of(folder)
            if in_folder is None:
                continue
            for path, stat in sorted(found):
                place, name = str(path), path.name
                if name == IGNORE_FILE or self._is_left_out(place, name, in_folder, is_folder=False):
                    continue
                self._add(place, name, stat)

    def _take_root(self, root: Path, stat: os.stat_result) -> None:
        """Take a file that was given."""
        self.result.folders.append(root.parent)
        if self._is_new(stat):
            self._take(root, stat)
        self._beside.add(root.parent)

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
            if video is not None and not self._is_left_out(
                os.fspath(video), video.name, rules, is_folder=False
            ):
                self._add(os.fspath(video), video.name, video.stat())
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
        self.result.left_out.add(media_path(path))
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
            self._subtitles.setdefault(media_path(path).parent, {})[name] = facts
            return False
        if extension not in EXTENSIONS:
            self._pass_over(path, _shown(extension))
            return False
        stat = source if isinstance(source, os.stat_result) else source.stat(follow_symlinks=False)
        if not self._is_new(stat):
            return False
        found = media_path(path)
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
            for name, is_file, facts in _entries(folder):
                suffix = Path(name).suffix.lower()
                if suffix in EXTENSIONS:
                    # Not to be indexed now, but its subtitles are not those of another one.
                    videos.setdefault(Path(name).stem, [])
                elif suffix in SUBTITLE_EXTENSIONS and is_file():
                    self._subtitles.setdefault(folder, {})[name] = facts()
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
        self.result.pass_over(media_path(path), kind)


def _entries(folder: Path) -> Iterator[tuple[str, Callable[[], bool], Callable[[], FileFacts]]]:
    """What is in a folder: names, whether it is a file, and its facts. Raises OSError."""
    if isinstance(folder, RemotePath):
        for path, facts in list_folder(folder):
            yield path.name, lambda: True, partial(_facts, status_of(path, facts))
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, entry.is_file, lambda entry=entry: _facts(entry.stat())  # type: ignore[misc]


def _video_of(subtitles: Path) -> Path | None:
    """The video that a subtitle file is named after, which need not be there; None: there is none."""
    folder = subtitles.parent
    videos = {
        Path(name).stem: folder / name for name, _, _ in _entries(folder) if _extension(name) in EXTENSIONS
    }
    stem, _ = _named_after(subtitles.name, videos)
    return None if stem is None else videos[stem]


class _RemoteRules:
    """The rules in the folders of a listing, which has no folders of its own.

    Args:
        root: where the listing begins.
        rules: the rules that hold there, without those that are written there.
        listed: the files of each folder.
        is_left_out: notes that a rule leaves a folder out.
    """

    def __init__(
        self,
        root: RemotePath,
        rules: Rules,
        listed: Mapping[Path, Sequence[tuple[RemotePath, os.stat_result]]],
        is_left_out: Callable[..., bool],
    ) -> None:
        self._listed, self._is_left_out = listed, is_left_out
        self._known: dict[Path, Rules | None] = {root: self._and_written(root, rules)}

    def of(self, folder: Path) -> Rules | None:
        """The rules that hold in a folder; None: one leaves it out, or a folder above it."""
        if folder not in self._known:
            above = self.of(folder.parent)
            if above is None or self._is_left_out(str(folder), folder.name, above, is_folder=True):
                self._known[folder] = None
            else:
                self._known[folder] = self._and_written(folder, above.below(folder.name))
        return self._known[folder]

    def _and_written(self, folder: Path, rules: Rules) -> Rules:
        is_written = any(path.name == IGNORE_FILE for path, _ in self._listed.get(folder, ()))
        return rules.and_in(rules_in(folder)) if is_written else rules


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

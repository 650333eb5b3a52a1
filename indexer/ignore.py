"""Which files and folders are left out: rules in gitignore's syntax, from several places.

Where rules disagree, the later one wins, in this order: those that come with Reelfind, a `.reelfindignore`
in a folder above, one in a folder nearer to the file, the options. As with git, what lies in a folder that is
left out cannot be brought back: the folder must be.

pathspec translates the patterns. What it adds beside a match of the entry itself (all that lies below) is not
used: a scan does not enter a folder that is left out.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from model.runtime.errors import InputError
from model.runtime.remote.path import RemotePath, parents_of

IGNORE_FILE = ".reelfindignore"
_DEFAULT_FILE = "default.reelfindignore"
#: Of a larger file, which is none of rules, nothing is read.
_MOST_BYTES = 1 << 20
_SPECIAL = re.compile(r"[*?\[\]\\]")
#: The group that pathspec puts around the slash behind a folder's name.
_FOLDER_MARK = "(?P<ps_d>/)"
#: In an expression of pathspec's: an escaped character, or a set of characters.
_BRACKETS = re.compile(r"\\.|\[(?P<negated>\^?)(?P<inside>\]?[^]]*)\]", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """A line of rules.

    Attributes:
        line: as it is written, such as `*.LRV`.
        kind: what it leaves out, in words, for counts.
        leaves_out: False where the line brings back what an earlier one leaves out.
    """

    line: str
    kind: str
    leaves_out: bool


class RuleList:
    """The rules of one place, such as a `.reelfindignore`."""

    def __init__(self, lines: Iterable[tuple[str, str]]) -> None:
        """Read lines, each with the kind of what it leaves out. What git would not read is ignored."""
        self._matchers = [matcher for line, kind in lines if (matcher := _Matcher.of(line, kind)) is not None]
        self._quick = _Quick(self._matchers)

    def __bool__(self) -> bool:
        return bool(self._matchers)

    def last_match(self, above: str, name: str, is_folder: bool) -> Rule | None:
        """The last rule that speaks of an entry.

        Args:
            above: the folders between the place of the rules and the entry, such as `a/b/`; or empty.
            name: the entry's name.
            is_folder: whether it is a folder.
        """
        if not self._quick.may_match(name):
            return None
        slash = "/" if is_folder else ""
        for matcher in reversed(self._matchers):
            if matcher.matches(above, name, slash):
                return matcher.rule
        return None


class Rules:
    """The rules that hold in one folder."""

    def __init__(self, lists: Sequence[tuple[RuleList, str]], last: int = 0) -> None:
        """Take lists of rules, each with the folders between it and this one, the last of them options.

        `last` of the lists, at the end, are options: those of the folders come before them.
        """
        self._lists = tuple(lists)
        self._last = last
        self._backwards = tuple(reversed(self._lists))

    def left_out(self, name: str, is_folder: bool) -> Rule | None:
        """The rule that leaves an entry of this folder out; None: none does."""
        for rules, above in self._backwards:
            rule = rules.last_match(above, name, is_folder)
            if rule is not None:
                return rule if rule.leaves_out else None
        return None

    def below(self, name: str) -> "Rules":
        """The rules in a folder of this folder, without what is written in it."""
        return Rules([(rules, f"{above}{name}/") for rules, above in self._lists], self._last)

    def and_in(self, added: RuleList) -> "Rules":
        """These rules with those that are written in this folder."""
        if not added:
            return self
        place = len(self._lists) - self._last
        return Rules([*self._lists[:place], (added, ""), *self._lists[place:]], self._last)


def rules_at(root: Path, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> Rules:
    """The rules that hold in a folder that was given, without those that are written in it.

    Patterns of options with a slash are relative to this folder.

    Args:
        root: its real path.
        exclude: patterns of what to leave out.
        include: patterns of what to take although an earlier rule leaves it out.
    """
    lists: list[tuple[RuleList, str]] = [(default_rules(), "")]
    above = list(parents_of(root) if isinstance(root, RemotePath) else reversed(root.parents))
    for place, folder in enumerate(above):
        written = rules_in(folder)
        if written:
            below = [parent.name for parent in above[place + 1 :]] + [root.name]
            lists.append((written, "".join(f"{name}/" for name in below)))
    return Rules([*lists, (_options(tuple(exclude), tuple(include)), "")], last=1)


def rules_in(folder: Path | str) -> RuleList:
    """The rules that are written in a folder; empty where there are none, or they cannot be read."""
    if isinstance(folder, RemotePath):
        return _remote_rules_in(folder)
    path = os.path.join(folder, IGNORE_FILE)  # noqa: PTH118  for each folder of a scan
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return RuleList(())
    try:
        content = os.read(handle, _MOST_BYTES + 1)
    except OSError:
        return RuleList(())
    finally:
        os.close(handle)
    return _written(content, path)


def _remote_rules_in(folder: RemotePath) -> RuleList:
    path = folder / IGNORE_FILE
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError:
        return RuleList(())
    return _written(content, str(path))


def _written(content: bytes, path: str) -> RuleList:
    if len(content) > _MOST_BYTES:
        return RuleList(())
    text = os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))
    return RuleList((line, f"{line.strip()} in {path}") for line in _lines(text))


@cache
def default_rules() -> RuleList:
    """The rules that come with Reelfind. What the heading above a paragraph says is their kind."""
    lines = []
    kind, begins = "", True
    for line in default_text().splitlines():
        if begins and line.startswith("# "):
            kind = line[2:]
        begins = not line
        lines.append((line, kind))
    return RuleList(lines)


@cache
def default_text() -> str:
    """The rules that come with Reelfind, as they are written."""
    return resources.files("indexer").joinpath(_DEFAULT_FILE).read_text(encoding="utf-8")


def check_patterns(patterns: Iterable[str], field: str) -> None:
    """Check patterns of an option.

    Raises:
        InputError: one is no pattern.
    """
    for pattern in patterns:
        if _Matcher.of(pattern, "") is None or pattern.startswith("!"):
            raise InputError(
                f"{field} is {pattern!r}, which is no pattern of gitignore's syntax: write for instance "
                "'*.LRV' for names, or 'drafts/' for folders",
                field=field,
            )


@cache
def _options(exclude: tuple[str, ...], include: tuple[str, ...]) -> RuleList:
    excluded = [(pattern, f"{pattern} of --exclude") for pattern in exclude]
    return RuleList([*excluded, *((f"!{pattern}", "") for pattern in include)])


def _lines(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.split("\n")]


class _Matcher:
    """A rule, and what it matches."""

    def __init__(self, rule: Rule, body: str, regex: re.Pattern[str]) -> None:
        self.rule = rule
        #: The pattern without a `!` before and a slash behind it.
        self.body = body
        #: Whether the name alone decides.
        self.by_name = "/" not in body
        self._matches = regex.fullmatch

    @classmethod
    def of(cls, line: str, kind: str) -> "_Matcher | None":
        """The rule of a line; None: it is empty, a comment, or no pattern to git."""
        try:
            # Of `a/**/`, pathspec makes the folder `a`; to git it is the folders in it.
            is_folders = line.rstrip().endswith("/**/")
            regex, leaves_out = GitIgnoreSpecPattern.pattern_to_regex(
                line.rstrip().removesuffix("/") if is_folders else line
            )
            if regex is None or leaves_out is None:
                return None
            body = line.rstrip().removeprefix("!").removesuffix("/")
            if not body:  # To git, `!/` names nothing, as `/` does.
                return None
            text = _itself(regex) + ("/" if is_folders else "")
            if "/" not in body:
                text = text.removeprefix("^(?:.+/)?")
            return cls(Rule(line.strip(), kind, leaves_out), body, re.compile(text, re.DOTALL))
        except (GitIgnorePatternError, re.error):
            return None

    def matches(self, above: str, name: str, slash: str) -> bool:
        """Whether it matches an entry; see `RuleList.last_match`."""
        return self._matches(f"{name}{slash}" if self.by_name else f"{above}{name}{slash}") is not None


def _itself(regex: str) -> str:
    """pathspec's expression for an entry and all below it, for the whole path of the entry alone."""
    if regex == ".":
        return ".+"
    if regex == _FOLDER_MARK:
        return ".+/"
    if regex == "/":  # all that lies in any folder
        return ".+/.+"
    if regex.endswith("/"):  # all that lies below a folder, not the folder
        regex += ".+"
    return _BRACKETS.sub(_bracket, regex)


def _bracket(found: re.Match[str]) -> str:
    """A set of characters as git reads it: it never holds a slash. What sets of Python nest is escaped."""
    if found[0][0] == "\\" or found[0] == "[^/]":
        return found[0]
    inside = re.sub(r"[\[&~|]", lambda special: "\\" + special[0], found["inside"])
    return f"(?!/)[{found['negated']}{inside}]"


class _Quick:
    """Tells most names apart from those that one of many patterns may match, without trying each.

    Of a pattern, the letters count with which what follows its last slash begins or ends.
    """

    def __init__(self, matchers: Iterable[_Matcher]) -> None:
        names, starts, ends = set(), [], []
        for matcher in matchers:
            of_name = matcher.body.rpartition("/")[2]
            parts = _SPECIAL.split(of_name)
            if len(parts) == 1:
                names.add(of_name)
            elif parts[0]:
                starts.append(parts[0])
            else:
                ends.append(parts[-1])
        self._names, self._starts, self._ends = frozenset(names), tuple(starts), tuple(ends)

    def may_match(self, name: str) -> bool:
        return name in self._names or name.startswith(self._starts) or name.endswith(self._ends)

"""Rules in gitignore's syntax, with git itself as the reference."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexer.ignore import (
    RuleList,
    Rules,
    check_patterns,
    default_rules,
    default_text,
    rules_at,
    rules_in,
)
from model.runtime.errors import InputError

GIT = shutil.which("git")
needs_git = pytest.mark.skipif(GIT is None, reason="git is not installed")

names = st.sampled_from(["a", "b", "ab", "a.b", "#a", "!b", "a b", "b ", "A", "[a]", "-", "a\\b"])
trees = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8)
pieces = st.sampled_from(
    ["a", "b", "ab", "*", "?", "**", "[ab]", "[!a]", "[^a]", "[a-b]", ".", "\\a", "\\*", "#", "!", " "]
)
segments = st.lists(pieces, min_size=1, max_size=3).map("".join)
patterns = st.builds(
    lambda negated, root, parts, end: f"{negated}{root}{'/'.join(parts)}{end}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(segments, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", "/*", " "]),
).filter(lambda pattern: re.search(r"[^/*]\*\*|\*\*\*", pattern) is None)
# git takes `a**/b` apart before it looks at the asterisks, and finds `ab`, against its manual; so with `***`.
files = st.lists(patterns, max_size=4)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("git")
    git(folder, "init", "--quiet")
    return folder


def git(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        [str(GIT), *arguments], cwd=folder, env=env, input=given, capture_output=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def plant(root: Path, tree: list[str]) -> set[str]:
    """Make files; a path that is a folder already, or lies below a file, is left out."""
    for entry in root.iterdir():
        if entry.name == ".git":
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in tree:
        path = root / name
        if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return {os.path.relpath(p, root) for p in root.rglob("*") if p.is_file() and ".git" not in p.parts}


def walked(folder: Path, rules: Rules, above: str = "") -> Iterator[str]:
    """The files that rules leave, as a scan finds them."""
    rules = rules.and_in(rules_in(folder))
    for entry in os.scandir(folder):
        if entry.name.startswith((".git", ".reelfindignore")):
            continue
        if rules.left_out(entry.name, entry.is_dir()) is not None:
            continue
        if entry.is_dir():
            yield from walked(folder / entry.name, rules.below(entry.name), f"{above}{entry.name}/")
        else:
            yield f"{above}{entry.name}"


@needs_git
@settings(max_examples=60, deadline=None)
@given(tree=trees, everywhere=files, at_root=files, below=files, options=files)
@example(tree=["a/b/c/d"], everywhere=["a/**/"], at_root=[], below=[], options=["b/**/"])
@example(tree=["a/a"], everywhere=["**/*/**"], at_root=[], below=[], options=[])
@example(tree=["a/a"], everywhere=[], at_root=[], below=[], options=["a", "!/"])
def test_the_same_is_left_out_as_by_git(
    repository: Path,
    tree: list[str],
    everywhere: list[str],
    at_root: list[str],
    below: list[str],
    options: list[str],
) -> None:
    paths = plant(repository, [*tree, "a/b/ab", "b/a"])
    (repository / ".git/info/exclude").write_text("\n".join(everywhere))
    for folder, lines in ((repository, at_root), (repository / "a", below)):
        if folder.is_dir():
            for name in (".gitignore", ".reelfindignore"):
                (folder / name).write_text("\n".join(lines))
    lists = [(RuleList((line, "") for line in everywhere), "")]
    found = set(walked(repository, Rules(lists)))
    asked = b"".join(os.fsencode(path) + b"\0" for path in sorted(paths))
    ignored = git(repository, "check-ignore", "--no-index", "--stdin", "-z", given=asked)
    assert found == paths - {os.fsdecode(path) for path in ignored.split(b"\0")}
    # Options win over all files: check-ignore has none, but ls-files has.
    rules = Rules([*lists, (RuleList((line, "") for line in options), "")], last=1)
    listed = git(
        repository,
        *("ls-files", "--others", "-z", "--exclude-standard"),
        *(f"--exclude={line.rstrip()}" for line in options),
    )
    kept = {os.fsdecode(path) for path in listed.split(b"\0") if path and b".gitignore" not in path}
    assert set(walked(repository, rules)) == {path for path in kept if ".reelfindignore" not in path}


def test_rules_above_the_folder_that_is_given_hold_too(tmp_path: Path) -> None:
    media = tmp_path / "media"
    (media / "a" / "b").mkdir(parents=True)
    (tmp_path / ".reelfindignore").write_text("media/a/*.mp4\n/media/a/b/c.mkv\n!drafts.part\n")
    rules = rules_at(media / "a")
    assert rules.left_out("x.mp4", is_folder=False) is not None
    assert rules.left_out("x.mkv", is_folder=False) is None
    assert rules.left_out("drafts.part", is_folder=False) is None
    below = rules.below("b")
    assert below.left_out("x.mp4", is_folder=False) is None
    assert below.left_out("c.mkv", is_folder=False) is not None


def test_a_rule_says_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / ".reelfindignore").write_bytes("\ufeff# mine\r\n*.mp4\r\n".encode())
    rules = rules_at(tmp_path, exclude=["x*"], include=["xy.mp4", "*.LRV"]).and_in(rules_in(tmp_path))

    def kind(name: str, is_folder: bool = False) -> str | None:
        rule = rules.left_out(name, is_folder)
        return None if rule is None else rule.kind

    assert kind("a.mp4") == f"*.mp4 in {tmp_path}/.reelfindignore"
    assert kind("xz") == "x* of --exclude"
    assert kind(".trash") == "hidden"
    assert kind("GX01.lrv") == "small copy made by a camera"
    assert kind("@eaDir", is_folder=True) == kind("#recycle", is_folder=True) == "folder of the system"
    assert (kind("@eaDir"), kind("xy.mp4"), kind("GX01.LRV"), kind("# mine")) == (None, None, None, None)


def test_a_file_of_rules_that_is_none_is_no_rule(tmp_path: Path) -> None:
    (tmp_path / ".reelfindignore").mkdir()
    assert not rules_in(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.reelfindignore").write_bytes(b"*\n" * (1 << 20))
    assert not rules_in(tmp_path / "a")
    os.mkfifo(tmp_path / "a/pipe")
    (tmp_path / "a/.reelfindignore").unlink()
    (tmp_path / "a/pipe").rename(tmp_path / "a/.reelfindignore")
    assert not rules_in(tmp_path / "a")


def test_quick_and_slow_agree_on_names() -> None:
    """The default rules, each name against every single rule."""
    lines = [line for line in default_text().splitlines() if line and not line.startswith("# ")]
    single = [RuleList([(line, "")]) for line in lines]
    found = {line.strip("*!/\\") for line in lines} | {"clip.mp4", "a.LRV", "LRV_1.mp4", "x.tmp", ".a", "a."}
    for name in sorted(found | {f"a{name}" for name in found} | {f"{name}a" for name in found}):
        for is_folder in (False, True):
            expected = any(rules.last_match("", name, is_folder) for rules in single)
            assert (default_rules().last_match("", name, is_folder) is not None) == expected, name


@pytest.mark.parametrize("pattern", ["", " ", "#x", "!x", "/", "[a"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="no pattern of gitignore's syntax"):
        check_patterns([pattern], "exclude")

"""Remedies that errors, reports and documents name work when they are pasted.

They are collected from the strings of the program and from the documents: a new one is tested too.
"""

import ast
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement

from model.cli import app as model_app
from model.runtime.installing import install_command, install_packages
from service.cli.app import app
from tests.support.paths import ROOT

PROGRAMS = {"reelfind": typer.main.get_command(app), "reelfind-model": typer.main.get_command(model_app)}
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/operations.md", "model/README.md")
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@cache
def texts_of(path: Path) -> list[str]:
    """The strings of a module, without its docstrings; what an f-string inserts is `VALUE`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    within: set[int] = set()
    found = []
    for node in ast.walk(tree):
        if id(node) in docstrings or id(node) in within:
            continue
        if isinstance(node, ast.JoinedStr):
            within |= {id(part) for part in node.values}
            parts = [str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values]
            found.append("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def modules() -> list[Path]:
    return [
        path for folder in ("service", "indexer", "model") for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def commands() -> list[tuple[str, str, bool]]:
    """(where, command, whether it may be a mention) of every command that is named."""
    found: list[tuple[Path, str, bool]] = []
    for path in modules():
        for text in texts_of(path):
            named = re.findall(r"`(reelfind[^`]*)`", " ".join(text.split()))
            found += [(path, command, False) for command in named]
    for path in (ROOT / name for name in DOCUMENTS):
        text = path.read_text(encoding="utf-8")
        blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        found += [(path, line, False) for line in lines if re.match(r"(\S*/)?reelfind", line)]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        found += [(path, command, True) for command in re.findall(r"`(reelfind[^`]*)`", prose)]
    for path in (ROOT / "deploy/systemd").iterdir():
        started = re.findall(r"^ExecStart=(.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
        found += [(path, command, False) for command in started]
    return sorted({(path.relative_to(ROOT).as_posix(), command, may) for path, command, may in found})


def refusal(command: str, may_mention: bool) -> str | None:
    """Why the program's own parser refuses a command; None: it does not, or the command is only mentioned."""
    words = shlex.split(command, comments=True)
    for stop in ("&&", ";", "|", ">", ">>", "&"):
        words = words[: words.index(stop)] if stop in words else words
    node: Any = PROGRAMS.get(Path(words[0]).name)
    arguments = [word.replace("…", "WORD") for word in words[1:]]
    while node is not None and hasattr(node, "commands") and arguments and arguments[0][0] != "-":
        names = arguments.pop(0).split("|")  # `library info|verify` mentions both
        if missing := [part for part in names if part not in node.commands]:
            return f"no command {missing[0]!r}"
        node = node.commands[names[0]] if len(names) == 1 else None
    if node is None or not arguments or hasattr(node, "commands"):
        return None  # it names a command or a program
    if may_mention and all(word.startswith("-") or word.isupper() for word in arguments):
        options = {word.split("=")[0] for word in arguments if word.startswith("-")}
        unknown = options - {*options_of(node), "--help"}
        return f"no option {unknown}" if unknown else None
    problem = _parse(node, arguments)
    # What stands for a value may stand for a number.
    return _parse(node, [re.sub("VALUE|^[NKS]$", "1", word) for word in arguments]) if problem else None


def _parse(node: Any, arguments: list[str]) -> str | None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            node.make_context(node.name, list(arguments))
    except (typer.Exit, SystemExit):  # `--help`
        return None
    except Exception as error:
        message = str(getattr(error, "message", "")) or repr(error)
        return None if "does not exist" in message else message
    return None


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("REELFIND_"):
            monkeypatch.delenv(name)


def test_commands_get_past_the_parser() -> None:
    found = commands()
    assert len(found) > 100
    refused = {
        (where, command): problem
        for where, command, may_mention in found
        if (problem := refusal(command, may_mention)) is not None
    }
    assert refused == {}


@pytest.mark.parametrize(
    "command",
    [
        "reelfind index --prune",
        "reelfind index PATH --prune",
        "reelfind library mend",
        "reelfind search --topk 3 a",
    ],
)
def test_a_command_that_would_fail_is_noticed(command: str) -> None:
    assert refusal(command, may_mention=False) is not None


def test_options_that_are_named_alone_exist() -> None:
    nodes = list(walk(*PROGRAMS.values()))
    known = {
        name
        for node in nodes
        for parameter in node.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    named = {
        option
        for path in modules()
        for text in texts_of(path)
        for option in re.findall(r"`(--[a-z][a-z-]+)[^`]*`", text)
    }
    assert len(named) > 10
    assert named <= known | {"--help"}


def options_of(node: Any) -> list[str]:
    return [name for parameter in node.params for name in (*parameter.opts, *parameter.secondary_opts)]


def walk(*nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        yield from walk(*getattr(node, "commands", {}).values())


def test_packages_are_named_by_one_module() -> None:
    """`pip install` in a message would be one that no test has run."""
    naming = {path.name for path in modules() for text in texts_of(path) if "pip install" in text}
    assert naming == set()


@pytest.mark.parametrize("extra", ["cpu", "demo", "otel", "speech"])
def test_an_extra_is_installed_without_an_index_that_has_reelfind(extra: str) -> None:
    words = shlex.split(install_command(extra))
    assert words[:4] == [sys.executable, "-m", "pip", "install"]
    wanted = {Requirement(line).name for line in EXTRAS[extra]} - {"reelfind"}
    assert wanted <= {Requirement(word).name for word in words[4:]}
    # All of it is installed here, so pip has nothing to look for.
    run = subprocess.run(
        [*words, "--no-index", "--dry-run"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "Would install" not in run.stdout


def test_a_gpu_takes_the_place_of_the_cpus_packages() -> None:
    removing, installing = install_command("gpu").split(" && ")
    assert shlex.split(removing)[2:] == ["pip", "uninstall", "--yes", "faiss-cpu", "onnxruntime"]
    assert shlex.split(installing)[3:] == ["install", *EXTRAS["gpu"]]
    with pytest.raises(ValueError, match="no extra 'none'"):
        install_command("none")


def test_a_package_is_quoted_for_the_shell() -> None:
    command = install_packages("--no-deps", "a>=1", "b[c]")
    echo = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert echo.stdout.split("\n")[1:-1] == ["-m", "pip", "install", "--no-deps", "a>=1", "b[c]"]

"""Errors by kind: the user's mistakes, misspelt variables, faults of the program, Ctrl-C."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from pydantic import TypeAdapter

from service.cli.app import app
from service.cli.options import OPTION_OF_FIELD, setting_option
from service.settings import Settings, variable_of
from tests.support.command_line import check_error, invoke
from tests.support.toy_library import ToyLibrary

#: Each command with arguments that its parser takes; what they name is never opened.
COMMANDS: dict[str, list[str]] = {
    "serve": [],
    "search": ["red"],
    "eval": ["--queries", "none"],
    "index": ["none", "--library", "none"],
    "watch": ["none", "--library", "none"],
    "demo": ["--once"],
    "bench": ["--quick"],
    "bench plan": ["--hours", "1", "--rates", "none"],
    "doctor": [],
    "library info": ["--library", "none"],
    "library verify": ["--library", "none"],
    "library publish": ["--library", "none"],
    "library drop": ["0123", "--library", "none"],
    "library rollback": ["--library", "none"],
    "library migrate": ["--library", "none"],
    "library vectors rebuild": ["--library", "none"],
    "library exclude": ["none", "--library", "none"],
    "library remove": ["none", "--library", "none"],
    "library include": ["none", "--library", "none"],
    "library excluded": ["--library", "none"],
    "keys create": ["--scope", "search", "--library", "none"],
    "keys list": ["--library", "none"],
    "keys revoke": ["0123456789ab", "--library", "none"],
    "bundle info": ["none"],
    "bundle verify": ["none"],
}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("REELFIND_"):
            monkeypatch.delenv(name)


def commands(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """The full name of each command, and the command."""
    command = command or typer.main.get_command(app)
    children = getattr(command, "commands", {})
    if not children or command.invoke_without_command:
        yield name, command
    for child_name, child in children.items():
        yield from commands(child, f"{name} {child_name}".strip())


def test_all_commands_are_listed_here() -> None:
    assert {name for name, _ in commands()} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_starts_with_a_misspelt_variable(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFIND_DEADLNE_MS", "500")
    said = r"REELFIND_DEADLNE_MS is not a setting: did you mean REELFIND_DEADLINE_MS\?"
    check_error(invoke(*command.split(), *COMMANDS[command]), 2, said)
    # Who looks for the right name finds it.
    assert invoke(*command.split(), "--help").exit_code == 0


def test_variables_that_are_known_are_no_mistake(toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFIND_DEADLINE_MS", "500")
    monkeypatch.setenv("REELFIND_MEDIA", "/media")
    monkeypatch.setenv("REELFIND_REQUIRE_BROWSER", "1")
    assert invoke("search", "red", *toy.options).exit_code == 0


def test_help_names_the_variable_of_each_option_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    reads_settings = {"serve", "search", "eval", "doctor", "keys create", "keys list", "keys revoke"}
    for name, command in commands():
        shown = invoke(*name.split(), "--help").stdout
        named = set(re.findall(r"env var: (REELFIND_\w+)", shown))
        options = {"media_roots" if each.name == "media" else each.name for each in command.params}
        if name in reads_settings:
            assert named == {variable_of(option) for option in options & set(Settings.model_fields)}, name
        else:
            assert named == {parameter.envvar for parameter in command.params if parameter.envvar}, name


def test_an_option_of_no_setting_cannot_be_made() -> None:
    with pytest.raises(KeyError, match="deadline"):
        setting_option("deadline", "Milliseconds.")


def test_every_field_that_an_error_names_has_an_option() -> None:
    options = {option for _, command in commands() for each in command.params for option in each.opts}
    assert set(OPTION_OF_FIELD.values()) <= options


def test_errors_of_the_core_name_the_options(toy: ToyLibrary, tmp_path: Path) -> None:
    index = ("index", toy.media, "--bundle", toy.bundle, "--workers", "0")
    new = ("--library", tmp_path / "library")
    check_error(
        invoke(*index, *new, "--tokens", "none", "--tokens-per-frame", "2"),
        2,
        "--tokens-per-frame is 2, but --tokens is none: leave the option out",
    )
    check_error(invoke(*index, *new, "--tokens-per-frame", "9"), 2, "--tokens-per-frame: 4 tokens")
    old = ("--library", toy.library)
    check_error(
        invoke(*index, *old, "--tokens", "float32"), 2, "--tokens is float32, but the library at .* with int8"
    )
    check_error(
        invoke("serve", *toy.options, "--host", "no host", "--port", "0"),
        2,
        "--host no host is not an address",
    )


def fail_with(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def test_a_value_error_of_a_library_is_a_fault_of_the_program(
    toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TypeAdapter, "dump_json", fail_with(ValueError("too many cells")))
    said = "internal error, ValueError: too many cells.*REELFIND_TRACEBACK=1"
    check_error(invoke("search", "red", "--json", *toy.options), 3, said)
    monkeypatch.setenv("REELFIND_TRACEBACK", "1")
    assert isinstance(invoke("search", "red", "--json", *toy.options).exception, ValueError)


def test_ctrl_c_is_exit_code_130(toy: ToyLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TypeAdapter, "dump_json", fail_with(KeyboardInterrupt()))
    result = invoke("search", "red", "--json", *toy.options)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "")

"""Errors of a command: the line that a user sees, and the exit code."""

from __future__ import annotations

import pickle

import pytest

from model.runtime.errors import BundleError, InputError
from model.runtime.exits import BAD_INPUT, FAILED, INTERRUPTED, describe_error, exit_code_of, exit_codes

OPTIONS = {"batch_frames": "--batch-size", "tokens": "--tokens"}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("no such\n  file"), BAD_INPUT, "no such file"),
        (InputError("tokens is 3: leave it out", field="tokens"), BAD_INPUT, "--tokens is 3: leave it out"),
        (InputError("batch_frames is 0", "batch_frames"), BAD_INPUT, "--batch-size is 0"),
        (InputError("tokens_per_frame is 0", "tokens_per_frame"), BAD_INPUT, "tokens_per_frame is 0"),
        # Only a whole name at the beginning is the field.
        (InputError("tokensets are 0", "tokens"), BAD_INPUT, "tokensets are 0"),
        (InputError("all tokens", "tokens"), BAD_INPUT, "all tokens"),
        (BundleError("bad: set `tokens`, `seed` or `a b`"), FAILED, "bad: set --tokens, `seed` or `a b`"),
        (OSError(28, "No space left"), FAILED, "[Errno 28] No space left"),
    ],
)
def test_what_was_foreseen_is_told_in_its_own_words(error: Exception, code: int, line: str) -> None:
    assert exit_code_of(error) == code
    assert describe_error(error, OPTIONS) == line


@pytest.mark.parametrize("error", [ValueError("5 is\nodd"), KeyError("`tokens`"), ZeroDivisionError()])
def test_any_other_error_is_a_fault_of_the_program(error: Exception) -> None:
    assert exit_code_of(error) == FAILED
    line = describe_error(error, OPTIONS)
    assert line.startswith(f"internal error, {type(error).__name__}: {' '.join(str(error).split())}")
    assert "REELFIND_TRACEBACK=1" in line


def test_an_input_error_is_a_value_error_too_and_crosses_processes() -> None:
    assert isinstance(InputError("x"), ValueError)
    copy = pickle.loads(pickle.dumps(InputError("tokens is 3", field="tokens")))
    assert (type(copy), str(copy), copy.field) == (InputError, "tokens is 3", "tokens")


def run(error: BaseException) -> tuple[int, list[str]]:
    lines: list[str] = []
    with pytest.raises(SystemExit) as raised, exit_codes(lines.append, "it", OPTIONS, "interrupted"):
        raise error
    assert isinstance(raised.value.code, int)
    return raised.value.code, lines


def test_every_error_is_one_line_and_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REELFIND_TRACEBACK", raising=False)
    assert run(InputError("tokens is 3", "tokens")) == (2, ["it: --tokens is 3"])
    assert run(BundleError("damaged")) == (3, ["it: damaged"])
    code, (line,) = run(ValueError("a bug"))
    assert (code, line.startswith("it: internal error, ValueError: a bug")) == (3, True)
    assert run(KeyboardInterrupt()) == (INTERRUPTED, ["interrupted"])


def test_a_traceback_is_given_for_faults_of_the_program_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELFIND_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError), exit_codes(lambda _line: None, "it"):
        raise ZeroDivisionError
    assert run(InputError("wrong")) == (2, ["it: wrong"])


def test_what_the_parser_raises_passes() -> None:
    class ExitError(Exception):
        exit_code = 7

    with pytest.raises(ExitError), exit_codes(lambda _line: None, "it"):
        raise ExitError

"""How a command ends when something goes wrong, the same for `reelfind` and `reelfind-model`.

An error becomes one line on stderr and an exit code. A user's mistake (`InputError`) is told from a fault of
the program (an error that nobody foresaw), whose line says how to see the traceback.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from model.runtime.errors import InputError, ReelfindError

NOTHING_FOUND, BAD_INPUT, FAILED, INTERRUPTED = 1, 2, 3, 130
TRACEBACK_VARIABLE = "REELFIND_TRACEBACK"


def exit_code_of(error: Exception) -> int:
    """The exit code for an error: BAD_INPUT for the user's mistakes, FAILED for all others."""
    return BAD_INPUT if isinstance(error, InputError) else FAILED


def is_foreseen(error: Exception) -> bool:
    """Whether the error's message is for the user. Any other error is a fault of the program."""
    return isinstance(error, ReelfindError | OSError)


def describe(error: Exception, options: Mapping[str, str] | None = None) -> str:
    """The line that a user sees.

    Args:
        error: what was raised.
        options: the command's option for each field, such as `{"batch_frames": "--batch-size"}`; replaces the
            field that an `InputError` names and every field in backticks.
    """
    if not is_foreseen(error):
        return (
            f"internal error, {type(error).__name__}: {_one_line(error)}. Please report it with what "
            f"{TRACEBACK_VARIABLE}=1 prints in addition."
        )
    message, known = _one_line(error), options or {}
    field = error.field if isinstance(error, InputError) else None
    if field is not None and field in known and re.match(rf"{re.escape(field)}\b", message):
        message = known[field] + message[len(field) :]
    return re.sub(r"`(\w+)`", lambda name: known.get(name[1], name[0]), message)


@contextmanager
def exit_codes(
    say: Callable[[str], None],
    prefix: str,
    options: Mapping[str, str] | None = None,
    interrupted: str | None = None,
) -> Iterator[None]:
    """Turn the errors of a command into one line and an exit code.

    With the environment variable REELFIND_TRACEBACK a fault of the program passes, for its traceback.

    Args:
        say: prints a line on stderr.
        prefix: what an error's line begins with, before a colon.
        options: see `describe`.
        interrupted: the line for Ctrl-C; None prints nothing.

    Raises:
        SystemExit: instead of the error, with its exit code.
    """
    try:
        yield
    except KeyboardInterrupt:
        if interrupted is not None:
            say(interrupted)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough; the interpreter's last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
    except Exception as error:
        # The command line's parser has its own errors, for a wrong option, with an exit code in them.
        if hasattr(error, "exit_code"):
            raise
        if not is_foreseen(error) and os.environ.get(TRACEBACK_VARIABLE):
            raise
        say(f"{prefix}: {describe(error, options)}")
        raise SystemExit(exit_code_of(error)) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""How a command ends when something goes wrong, the same for `reelfind` and `reelfind-model`.

An error becomes one line on stderr and an exit code. The exit code tells a user's mistake (`InputError`) from
other errors; the line for an unforeseen error, a fault of the program, says how to see its traceback.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from model.runtime.errors import InputError, ReelfindError
from model.runtime.messages import printable

NOTHING_FOUND, BAD_INPUT, FAILED, INTERRUPTED = 1, 2, 3, 130
TRACEBACK_VARIABLE = "REELFIND_TRACEBACK"


def exit_code_of(error: Exception) -> int:
    """The exit code for an error: BAD_INPUT for a user's mistake, FAILED for any other."""
    return BAD_INPUT if isinstance(error, InputError) else FAILED


def is_foreseen(error: Exception) -> bool:
    """Whether the error's message is for the user. Any other error is a fault of the program."""
    return isinstance(error, ReelfindError | OSError)


def describe_error(error: Exception, options: Mapping[str, str] | None = None) -> str:
    """The line that a user sees.

    Args:
        error: what was raised.
        options: the command's option for each field, such as `{"batch_frames": "--batch-size"}`; it replaces
            the field that an `InputError` names and every field in backticks.
    """
    if not is_foreseen(error):
        return (
            f"internal error, {type(error).__name__}: {_one_line(error)}. Please report it with what "
            f"{TRACEBACK_VARIABLE}=1 prints in addition."
        )
    message, options = _one_line(error), options or {}
    field = error.field if isinstance(error, InputError) else None
    if field is not None and field in options and re.match(rf"{re.escape(field)}\b", message):
        message = options[field] + message[len(field) :]
    return re.sub(r"`(\w+)`", lambda name: options.get(name[1], name[0]), message)


@contextmanager
def exit_codes(
    say: Callable[[str], None],
    prefix: str,
    options: Mapping[str, str] | None = None,
    interrupted: str | None = None,
) -> Iterator[None]:
    """Turn the errors of a command into one line and an exit code.

    If the environment variable REELFIND_TRACEBACK is set, an unforeseen error passes through.

    Args:
        say: prints a line on stderr.
        prefix: the start of an error's line, before a colon.
        options: see `describe_error`.
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
        # The reader, such as `head`, has closed the pipe; the interpreter's last flush must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
    except Exception as error:
        # The command line's parser raises its own errors, with an exit code in them.
        if hasattr(error, "exit_code"):
            raise
        if not is_foreseen(error) and os.environ.get(TRACEBACK_VARIABLE):
            raise
        say(printable(f"{prefix}: {describe_error(error, options)}"))
        raise SystemExit(exit_code_of(error)) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""Turns errors of the `reelfind` commands into one line and an exit code (see `model.runtime.exits`)."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from model.runtime.exits import exit_codes
from model.runtime.messages import printable
from service.cli.options import OPTION_OF_FIELD
from service.cli.printing import say
from service.settings import check_environment

_NAME = "reelfind"


class ReelfindGroup(TyperGroup):
    """Turns errors of all commands, and Ctrl-C, into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        with exit_codes(_print, _NAME, OPTION_OF_FIELD):
            try:
                return super().invoke(ctx)
            except Exception as error:
                # The parser prints its own errors; the shell may have put names of files in place of a `*`.
                details: dict[str, Any] = error.__dict__
                if hasattr(error, "exit_code") and isinstance(details.get("message"), str):
                    details["message"] = printable(details["message"])
                raise


class CheckedCommand(TyperCommand):
    """A command that refuses misspelt environment variables, except for `--help`."""

    def invoke(self, ctx: Any) -> Any:
        """Check the environment, then run the command."""
        check_environment()
        return super().invoke(ctx)


def note(message: str) -> None:
    """Print one line on stderr, after the command's name."""
    _print(f"{_NAME}: {' '.join(message.split())}")


def _print(line: str) -> None:
    say(line, err=True)

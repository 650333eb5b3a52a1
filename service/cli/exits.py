"""How the commands of `reelfind` end: errors as one line and an exit code (see `model.runtime.exits`)."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from model.runtime.exits import exit_codes
from service.cli.options import OPTION_OF_FIELD
from service.settings import check_environment

_NAME = "reelfind"


class ReelfindGroup(TyperGroup):
    """Turns the errors of every command, and Ctrl-C, into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was called."""
        with exit_codes(_print, _NAME, OPTION_OF_FIELD):
            return super().invoke(ctx)


class CheckedCommand(TyperCommand):
    """A command that does not start with a misspelt environment variable; `--help` works all the same."""

    def invoke(self, ctx: Any) -> Any:
        """Check the environment, then run the command."""
        check_environment()
        return super().invoke(ctx)


def note(message: str) -> None:
    """Print one line on stderr that begins with the command's name."""
    _print(f"{_NAME}: {' '.join(message.split())}")


def _print(line: str) -> None:
    typer.echo(line, err=True)

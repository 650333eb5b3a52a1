"""Turns errors of the `reelfind` commands into one line and an exit code (see `model.runtime.exits`)."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from model.runtime.exits import exit_codes
from service.cli.options import OPTION_OF_FIELD
from service.settings import check_environment

_NAME = "reelfind"


class ReelfindGroup(TyperGroup):
    """Turns errors of all commands, and Ctrl-C, into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        with exit_codes(_print, _NAME, OPTION_OF_FIELD):
            return super().invoke(ctx)


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
    typer.echo(line, err=True)

"""The `reelfind` command, run in this process, and what holds for its errors."""

import re
from pathlib import Path

from typer.testing import CliRunner, Result

from service.cli.app import app


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def check_error(result: Result, code: int, said: str) -> None:
    """One line on stderr that starts with the command's name, nothing on stdout, the exit code."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert re.fullmatch(rf"reelfind: .*{said}.*\n", result.stderr), result.stderr

"""Printing for people and for programs. What is printed may hold names of files: see `printable`."""

import json
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from model.runtime.messages import printable, printable_json


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    print_json_text(json.dumps(value, ensure_ascii=False, indent=2))


def print_json_text(text: str) -> None:
    """Print JSON."""
    typer.echo(printable_json(text))


def say(text: str, *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr."""
    typer.echo(printable(text), err=err)


def print_line(console: Console, text: str) -> None:
    """Print a line without interpreting markup and without wrapping."""
    console.print(plain(text), soft_wrap=True)


def plain(text: str) -> Text:
    """A text for Rich, in which nothing is markup."""
    return Text(printable(text))

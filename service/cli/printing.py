"""Printing on stdout, for people and for programs."""

import json
from typing import Any

import typer
from rich.console import Console
from rich.text import Text


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_line(console: Console, text: str) -> None:
    """Print a line without interpreting markup and without wrapping."""
    console.print(Text(text), soft_wrap=True)

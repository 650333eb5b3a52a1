"""What the commands of `reelfind-model` have in common: progress, and errors without a traceback.

Exit codes are those of `reelfind`: 0 ok, 2 bad input, 3 failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from model.runtime.errors import InputError, ReelfindError


def report(words: str) -> None:
    """Progress goes to stderr, so that stdout stays readable by programs."""
    typer.echo(words, err=True)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Errors become one line on stderr and an exit code, never a traceback."""
    try:
        yield
    except (ValueError, InputError) as error:
        report(f"error: {error}")
        raise typer.Exit(2) from None
    except (ReelfindError, FloatingPointError) as error:
        report(f"error: {error}")
        raise typer.Exit(3) from None
    except KeyboardInterrupt:
        report("interrupted: the same command continues a training run")
        raise typer.Exit(130) from None

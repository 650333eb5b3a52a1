"""Calls that may give a documented error, and nothing else."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
Documented = TypeVar("Documented", bound=Exception)


def result_or(
    documented: type[Documented], function: Callable[..., Result], *arguments: object
) -> Result | Documented:
    """What a function returns, or the documented error that it raises; any other error passes."""
    try:
        return function(*arguments)
    except documented as error:
        return error

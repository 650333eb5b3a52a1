"""Values of options that several commands read."""

from __future__ import annotations

from model.runtime.errors import InputError


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The whole numbers that an option lists, separated by commas.

    Raises:
        InputError: the text holds something else; the message names the option.
    """
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{option} is {text!r}: write whole numbers separated by commas, such as 0,1,2", option
        ) from error

"""How a value is shown in an error message."""

import json


def shorten(value: object, limit: int = 60) -> str:
    """`value` as JSON would write it, at most `limit` characters long and safe to print."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except ValueError:  # an integer of thousands of digits
        return "a number that is too long"
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"

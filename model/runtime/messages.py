"""How values and names are shown: in error messages, on a terminal, in a log."""

import json
import os
import re
import shlex
from pathlib import Path

#: Control characters, separators of lines, marks of direction and other invisible ones, and halves of
#: surrogate pairs. Not the joiners U+200C and U+200D, which many scripts and emoji need.
_HARMFUL_CHARACTERS = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff"
)
_HARMFUL = re.compile(f"[{_HARMFUL_CHARACTERS}]")
#: In JSON, line breaks between values may stay: those of strings are escaped already.
_HARMFUL_IN_JSON = re.compile(f"(?!\n)[{_HARMFUL_CHARACTERS}]")


#: What people call some folders, such as those that stand for addresses; see `show_as`.
_SHOWN: dict[str, str] = {}


def show_as(folder: Path, name: str) -> None:
    """Let messages call a folder by another name: what a user has typed."""
    _SHOWN[os.fspath(folder)] = name


def shown(text: str) -> str:
    """`text` with the names that people know; see `show_as`."""
    for folder, name in _SHOWN.items():
        text = text.replace(folder, name)
    return text


def first_line(error: Exception) -> str:
    """The first line of what an error says, or the name of its class if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shorten(value: object, limit: int = 60) -> str:
    """`value` as JSON would write it, at most `limit` characters long and safe to print."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except ValueError:  # an integer of thousands of digits
        return "a number that is too long"
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def for_shell(path: Path | str) -> str:
    """A path as it is typed in a shell, for commands in messages."""
    return shlex.quote(shown(os.fspath(path)))


def printable(text: str) -> str:
    r"""`text` as a terminal may get it: one line, without anything that moves, hides or turns what is around.

    Names and titles of files may hold escape sequences, line breaks and marks that change the direction of
    writing. Such a character becomes its number, like `\x1b` or `\u202e`.
    """
    text = shown(text)
    return text if text.isprintable() else _HARMFUL.sub(_as_number, text)


def printable_json(text: str) -> str:
    r"""JSON that means the same as `text`, as a terminal may get it: see `printable`."""
    text = shown(text)
    return text if text.isprintable() else _HARMFUL_IN_JSON.sub(_as_json_escape, text)


def _as_number(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _as_json_escape(match: re.Match[str]) -> str:
    return json.dumps(match[0])[1:-1] if match[0] != "\x7f" else "\\u007f"

"""Frozen dataclasses as bytes and back: the fields in order, each with a fixed or a bounded length.

The types of a class's fields are its schema: `int` (64 bits), `float` (finite), `bool`, `str`, `bytes`, a
`Literal` of strings, another such class, any of these `| None`, and `tuple[X, ...]` of one of them.
"""

import struct
import types
import unicodedata
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

#: Characters of a text, bytes of a byte string, and elements of a tuple, at most.
MAX_CHARACTERS = 2000
MAX_BYTES = 1 << 16
MAX_ELEMENTS = 1000
_INT, _FLOAT, _BYTE, _LENGTH = (
    struct.Struct("<q"),
    struct.Struct("<d"),
    struct.Struct("<B"),
    struct.Struct("<I"),
)
_NOT_SHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})

R = TypeVar("R")


class MessageError(Exception):
    """A message breaks its format: the text says how, after "the decoder sent"."""


def pack(record: Any) -> bytes:
    """A dataclass as bytes. Its texts are made displayable, see `displayable_text`.

    Raises:
        MessageError: a number is not finite or too large, or a byte string too long.
    """
    out: list[bytes] = []
    _pack(type(record), record, out)
    return b"".join(out)


def unpack(kind: type[R], data: bytes | bytearray | memoryview) -> R:
    """The dataclass of this kind that `data` holds, and nothing after it.

    Raises:
        MessageError: the data does not follow the format.
    """
    reader = _Reader(memoryview(data))
    record: R = reader.value(kind)
    if reader.left:
        raise MessageError(f"{reader.left} bytes too many")
    return record


def displayable_text(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Text without control characters, line breaks and surrogates, cut to `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if is_displayable(text):
        return text
    return "".join(" " if unicodedata.category(c) in _NOT_SHOWN else c for c in text)


def is_displayable(text: str) -> bool:
    """Whether a text has no control characters, line breaks or surrogates."""
    return text.isprintable() or not any(unicodedata.category(c) in _NOT_SHOWN for c in text)


@cache
def _schema(kind: type) -> Mapping[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _optional(kind: Any) -> Any:
    """X of `X | None`, else None."""
    if isinstance(kind, types.UnionType) or (get_origin(kind) is not None and type(None) in get_args(kind)):
        (inner,) = (part for part in get_args(kind) if part is not type(None))
        return inner
    return None


def _pack(kind: Any, value: Any, out: list[bytes]) -> None:
    inner = _optional(kind)
    if inner is not None:
        out.append(_BYTE.pack(value is not None))
        if value is not None:
            _pack(inner, value, out)
    elif kind is bool:
        out.append(_BYTE.pack(bool(value)))
    elif kind is int:
        if not -(1 << 63) <= value < 1 << 63:
            raise MessageError(f"the number {value:.3g}, which is too large")
        out.append(_INT.pack(value))
    elif kind is float:
        if not isfinite(value):
            raise MessageError(f"the number {value}, which is not finite")
        out.append(_FLOAT.pack(value))
    elif kind is str:
        _pack_bytes(displayable_text(value).encode("utf-8", "replace"), out)
    elif kind is bytes:
        _pack_bytes(value, out)
    elif get_origin(kind) is Literal:
        out.append(_BYTE.pack(get_args(kind).index(value)))
    elif get_origin(kind) is tuple:
        if len(value) > MAX_ELEMENTS:
            raise MessageError(f"{len(value)} elements, more than {MAX_ELEMENTS}")
        out.append(_LENGTH.pack(len(value)))
        for element in value:
            _pack(get_args(kind)[0], element, out)
    elif is_dataclass(kind) and isinstance(kind, type):
        for name, field_kind in _schema(kind).items():
            _pack(field_kind, getattr(value, name), out)
    else:
        raise TypeError(f"no format for {kind}")


def _pack_bytes(value: bytes, out: list[bytes]) -> None:
    if len(value) > MAX_BYTES:
        raise MessageError(f"{len(value)} bytes, more than {MAX_BYTES}")
    out += (_LENGTH.pack(len(value)), value)


class _Reader:
    """Takes values from the start of `data`."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def value(self, kind: Any) -> Any:
        inner = _optional(kind)
        if inner is not None:
            return self.value(inner) if self._flag() else None
        if kind is bool:
            return self._flag()
        if kind is int:
            return self._number(_INT)
        if kind is float:
            number = self._number(_FLOAT)
            if not isfinite(number):
                raise MessageError(f"the number {number}, which is not finite")
            return number
        if kind is str:
            return self._text()
        if kind is bytes:
            return bytes(self._bytes())
        if get_origin(kind) is Literal:
            choices, index = get_args(kind), self._number(_BYTE)
            if index >= len(choices):
                raise MessageError(f"choice {index} of {len(choices)}")
            return choices[index]
        if get_origin(kind) is tuple:
            count = self._number(_LENGTH)
            if count > MAX_ELEMENTS:
                raise MessageError(f"{count} elements, more than {MAX_ELEMENTS}")
            return tuple(self.value(get_args(kind)[0]) for _ in range(count))
        if is_dataclass(kind) and isinstance(kind, type):
            values = {name: self.value(field_kind) for name, field_kind in _schema(kind).items()}
            try:
                return kind(**values)
            except ValueError as error:
                raise MessageError(f"values that do not fit: {displayable_text(str(error), 100)}") from None
        raise TypeError(f"no format for {kind}")

    def _flag(self) -> bool:
        number = self._number(_BYTE)
        if number > 1:
            raise MessageError(f"{number} for yes or no")
        return bool(number)

    def _text(self) -> str:
        try:
            text = str(self._bytes(), "utf-8")
        except UnicodeDecodeError:
            raise MessageError("a text that is not UTF-8") from None
        if len(text) > MAX_CHARACTERS:
            raise MessageError(f"a text of {len(text)} characters, more than {MAX_CHARACTERS}")
        if not is_displayable(text):
            raise MessageError("a text with control characters")
        return text

    def _bytes(self) -> memoryview:
        length = self._number(_LENGTH)
        if length > MAX_BYTES:
            raise MessageError(f"{length} bytes, more than {MAX_BYTES}")
        return self._take(length)

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _take(self, length: int) -> memoryview:
        if length > self.left:
            raise MessageError("too few bytes")
        part = self._data[self._at : self._at + length]
        self._at += length
        return part

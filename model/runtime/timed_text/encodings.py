"""Finds the encoding of a text file that does not say it."""

import codecs
import re
import string

import chardet
from chardet import DetectionDict

#: Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: What text files of the years before UTF-8 are in. In a detector's own list, rare ones win by chance.
_LATIN = ("windows-1250", "windows-1252", "windows-1254", "windows-1257", "windows-1258", "iso8859-2")
_OTHER = (
    *("windows-1251", "windows-1253", "windows-1255", "windows-1256", "iso8859-5", "koi8-r", "koi8-u"),
    *("cp866", "gb18030", "big5hkscs", "cp932", "euc-jp", "cp949", "tis-620"),
)
_FALLBACK = "windows-1252"
_ASCII_LETTERS = [letter.encode() for letter in string.ascii_letters]
#: So many bytes beyond ASCII in a text of Latin letters tell its encoding.
_TELLING_BYTES = 8
#: In UTF-16, digits and line ends give more zeros than one in so many bytes.
_ZEROS_OF_UTF16 = 20
#: How much more likely the usual encoding is than others, beside what the bytes say.
_USUAL = 1.2
#: A detector looks at about so many bytes.
_LOOKED_AT = 1 << 16
_WORD = re.compile(rb"[^\s,]*[\x80-\xff][^\s,]*")
_TAG = re.compile(rb"<[^>]{,100}>|\{[^}]{,100}\}")


def load_encodings() -> None:
    """Load all encodings, and the tables of the detector."""
    for name in (*_LATIN, *_OTHER, *(mark[1] for mark in _MARKS), "utf-16-le", "utf-16-be"):
        codecs.lookup(name)
    for text, encoding in (("Příliš žluťoučký kůň", "windows-1250"), ("Привет, мир", "windows-1251")):
        decode_text(text.encode(encoding))


def decode_text(data: bytes) -> str:
    """The text of a file, with line feeds between its lines.

    The encoding is that of a byte order mark, UTF-8, UTF-16, or the one that a detector finds. Bytes that are
    undefined in it become U+FFFD.

    Raises:
        UnicodeDecodeError: it is not in the encoding that its mark states.
    """
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and data[:4096].count(0) * _ZEROS_OF_UTF16 > len(data[:4096]):
        # Latin letters in UTF-16 have a zero in every second byte.
        encoding = "utf-16-le" if data[1:4096:2].count(0) >= data[:4096:2].count(0) else "utf-16-be"
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise
        text = data.decode(_detected(data), errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _detected(data: bytes) -> str:
    """The encoding that the words beyond ASCII are most likely in: numbers, times and tags say nothing."""
    words: list[bytes] = []
    size = 0
    for line in data.splitlines():
        if not line.isascii():
            found_words = _WORD.findall(_TAG.sub(b"", line))
            words += found_words
            size += sum(map(len, found_words))
            if size >= _LOOKED_AT:
                break
    sample = b" ".join(words)
    beyond = sum(byte > 127 for byte in sample)
    is_latin = beyond < 2 * sum(map(sample.count, _ASCII_LETTERS))
    if is_latin and beyond < _TELLING_BYTES:
        return _FALLBACK
    candidates = _LATIN if is_latin else (*_OTHER, _FALLBACK)
    found = chardet.detect_all(
        sample, include_encodings=candidates, no_match_encoding=_FALLBACK, ignore_threshold=True
    )
    likeliest = max(found, key=_likelihood, default=None)
    try:
        return codecs.lookup((likeliest and likeliest["encoding"]) or _FALLBACK).name
    except LookupError:
        return _FALLBACK


def _likelihood(found: DetectionDict) -> float:
    """How likely an encoding is: of two that fit about as well, the usual one."""
    is_usual = (found["encoding"] or "").lower() == _FALLBACK
    return found["confidence"] * (_USUAL if is_usual else 1.0)

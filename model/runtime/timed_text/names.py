"""The words of file names and titles, by which a video is found."""

import re

_SEPARATORS = re.compile(r"[\s_.\-]+")


def name_lines(stem: str, title: str | None) -> list[str]:
    """What a video's names say, each text once: its file name as words, and its title.

    A name is split at white space and `_-.`. Where it has words in camel case, it comes a second time with
    these split too, so that both `YouTube` and `Tube` are found.

    Args:
        stem: the file name without its extension.
        title: the title in the file.
    """
    words = [word for word in _SEPARATORS.split(stem) if word]
    split = [part for word in words for part in _camel_case_parts(word)]
    lines = [" ".join(words), " ".join(split), " ".join((title or "").split())]
    seen: set[str] = set()
    kept = []
    for line in lines:
        key = " ".join(_SEPARATORS.split(line)).casefold()
        if line and key not in seen:
            seen.add(key)
            kept.append(line)
    return kept


def _camel_case_parts(word: str) -> list[str]:
    """`HolidayTrip` → Holiday, Trip; `HTMLPage` → HTML, Page. Digits stay with what is before them."""
    starts = [0]
    for i in range(1, len(word)):
        if not word[i].isupper():
            continue
        after_lower = not word[i - 1].isupper() and word[i - 1].isalnum() and not word[i - 1].isdigit()
        ends_capitals = word[i - 1].isupper() and i + 1 < len(word) and word[i + 1].islower()
        if after_lower or ends_capitals:
            starts.append(i)
    return [word[start:end] for start, end in zip(starts, [*starts[1:], len(word)], strict=True)]

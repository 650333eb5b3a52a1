"""What a query may be: shared by HTTP and the command line, so that both refuse with the same words."""

import unicodedata

from model.runtime.messages import shorten
from service.errors import QueryError

_LINE_BREAKS = "\t\n\r\x0b\x0c\x85"
# Categories without a mark on the page. Unassigned is not one: newer emoji are unassigned to older tables.
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"})


def clean_text(text: str, max_characters: int) -> str:
    """The query text to encode: trimmed, with line breaks and tabs as spaces.

    Raises:
        QueryError: too long, without anything visible, or with control characters or lone surrogates.
    """
    if len(text) > max_characters:
        raise QueryError(
            f"The query has {len(text):,} characters; at most {max_characters:,} are read. Shorten it: "
            "a sentence or two say what to find.",
            "/query/text",
        )
    cleaned = text.translate(dict.fromkeys(map(ord, _LINE_BREAKS), " ")).strip()
    for position, character in enumerate(cleaned):
        category = unicodedata.category(character)
        if category in ("Cc", "Cs"):
            kind = "a control character" if category == "Cc" else "half of a surrogate pair"
            raise QueryError(
                f"The query holds U+{ord(character):04X}, {kind}, at position {position}. Remove it.",
                "/query/text",
            )
    if all(unicodedata.category(character) in _INVISIBLE for character in cleaned):
        raise QueryError(
            'The query is empty. Describe what to find, for example "a dog runs on a beach".', "/query/text"
        )
    return cleaned


def check_top_k(top_k: int, max_top_k: int) -> int:
    """`top_k` itself where it is allowed.

    Raises:
        QueryError: below 1 or above `max_top_k`.
    """
    if not 1 <= top_k <= max_top_k:
        raise QueryError(f"top_k is {shorten(top_k)}; ask for 1 to {max_top_k:,} hits.", "/top_k")
    return top_k


def check_num_candidates(num_candidates: int, max_candidates: int) -> int:
    """`num_candidates` itself where it is allowed.

    Raises:
        QueryError: below 1 or above `max_candidates`.
    """
    if not 1 <= num_candidates <= max_candidates:
        raise QueryError(
            f"num_candidates is {shorten(num_candidates)}; 1 to {max_candidates:,} can be re-ranked.",
            "/num_candidates",
        )
    return num_candidates


def check_num_salient_frames(num_salient_frames: int, frames_per_segment: int) -> int:
    """`num_salient_frames` itself where it is allowed.

    Raises:
        QueryError: below 1 or above the frames that a segment of the model has.
    """
    if not 1 <= num_salient_frames <= frames_per_segment:
        raise QueryError(
            f"num_salient_frames is {shorten(num_salient_frames)}; ask for 1 to {frames_per_segment}, the "
            "frames of a segment.",
            "/num_salient_frames",
        )
    return num_salient_frames

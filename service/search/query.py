"""Which queries are valid: shared by HTTP and the command line, so that both give the same errors."""

import unicodedata
from collections.abc import Mapping
from typing import Literal

from model.runtime.messages import shorten
from service.errors import QueryError
from service.search.results import ProbabilitySkipped

#: What a text is: the word for it in messages, and the field of a request's body that it is in.
TextName = Literal["query", "question"]

_EXAMPLES: Mapping[TextName, str] = {
    "query": 'Describe what to find, for example "a dog runs on a beach".',
    "question": 'Ask about the video, for example "what colour is the car".',
}
_LINE_BREAKS = "\t\n\r\x0b\x0c\x85"
# Unicode categories of invisible characters. Unassigned characters are not among them: Python's tables may be
# older than an emoji.
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"})


def clean_text(text: str, max_characters: int, name: TextName = "query", pointer: str | None = None) -> str:
    """The text to encode: trimmed, with line breaks and tabs replaced by spaces.

    Args:
        text: as it was sent or typed.
        max_characters: the longest text.
        name: what messages call it.
        pointer: the JSON pointer of the text in the request; None: that of the only text of `name`.

    Raises:
        QueryError: the text is too long, has nothing visible, or holds control characters or lone surrogates.
    """
    pointer = pointer or f"/{name}/text"
    if len(text) > max_characters:
        raise QueryError(
            f"The {name} has {len(text):,} characters; at most {max_characters:,} are allowed. Shorten it to "
            "a sentence or two.",
            pointer,
        )
    cleaned = text.translate(dict.fromkeys(map(ord, _LINE_BREAKS), " ")).strip()
    for position, character in enumerate(cleaned):
        category = unicodedata.category(character)
        if category in ("Cc", "Cs"):
            kind = "a control character" if category == "Cc" else "half of a surrogate pair"
            raise QueryError(
                f"The {name} holds U+{ord(character):04X}, {kind}, at position {position}. Remove it.",
                pointer,
            )
    if all(unicodedata.category(character) in _INVISIBLE for character in cleaned):
        raise QueryError(f"The {name} is empty. {_EXAMPLES[name]}", pointer)
    return cleaned


def check_top_k(top_k: int, max_top_k: int) -> int:
    """Return `top_k` if it is allowed.

    Raises:
        QueryError: it is below 1 or above `max_top_k`.
    """
    if not 1 <= top_k <= max_top_k:
        raise QueryError(f"top_k is {shorten(top_k)}; ask for 1 to {max_top_k:,} hits.", "/top_k")
    return top_k


def check_num_candidates(num_candidates: int, max_candidates: int) -> int:
    """Return `num_candidates` if it is allowed.

    Raises:
        QueryError: it is below 1 or above `max_candidates`.
    """
    if not 1 <= num_candidates <= max_candidates:
        raise QueryError(
            f"num_candidates is {shorten(num_candidates)}; 1 to {max_candidates:,} can be re-ranked.",
            "/num_candidates",
        )
    return num_candidates


def check_min_probability(min_probability: float, skipped: ProbabilitySkipped | None) -> float:
    """Return `min_probability` if it is allowed; `skipped` says why hits have no probability.

    Raises:
        QueryError: it is below 0 or above 1, or hits have no probability.
    """
    if not 0 <= min_probability <= 1:
        raise QueryError(
            f"min_probability is {min_probability:g}; choose one from 0 to 1.", "/min_probability"
        )
    if skipped == "not_a_text":
        raise QueryError(
            "Hits have a probability only if the query is one text, without not_text, so min_probability "
            "cannot be used with this one. Leave it out.",
            "/min_probability",
        )
    if skipped is not None:
        raise QueryError(
            "The bundle gives no probabilities, so min_probability cannot be used. Leave it out, or serve a "
            "bundle that `reelfind-model calibrate` made.",
            "/min_probability",
        )
    return min_probability


def check_num_salient_frames(num_salient_frames: int, frames_per_segment: int) -> int:
    """Return `num_salient_frames` if it is allowed.

    Raises:
        QueryError: it is below 1 or above the number of frames of a segment.
    """
    if not 1 <= num_salient_frames <= frames_per_segment:
        raise QueryError(
            f"num_salient_frames is {shorten(num_salient_frames)}; ask for 1 to {frames_per_segment} "
            f"(a segment has {frames_per_segment} frames).",
            "/num_salient_frames",
        )
    return num_salient_frames

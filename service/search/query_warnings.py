"""Says what of a query the model did not understand or did not read."""

from model.runtime.messages import shorten
from model.runtime.text_reading import TextReading
from service.search.results import QueryWarning, QueryWarningDetails

# Most words that a message names; the details hold all.
_MOST_WORDS = 5


def warnings_of(reading: TextReading) -> tuple[QueryWarning, ...]:
    """The warnings about a text."""
    warnings = []
    if reading.unknown:
        message = f"The model does not know {_listed(reading.unknown)}: the rest of the query decides."
        details = QueryWarningDetails(words=list(reading.unknown))
        warnings.append(QueryWarning("not_understood", message, details))
    parts = len(reading.parts)
    if reading.left_out:
        message = (
            f"The query is too long: its first {parts} parts were read, and the rest was left out, from "
            f"{shorten(reading.left_out, 40)} on. Shorten it."
        )
        details = QueryWarningDetails(num_parts=parts, left_out=reading.left_out)
        warnings.append(QueryWarning("truncated", message, details))
    elif parts > 1:
        message = (
            f"The query is longer than the model reads at once: it was read in {parts} parts, and the "
            "results fit them on average."
        )
        warnings.append(QueryWarning("split", message, QueryWarningDetails(num_parts=parts)))
    return tuple(warnings)


def not_understood_message(reading: TextReading) -> str:
    """The error for a text of which nothing is understood."""
    what = (
        f"The model does not know {_listed(reading.unknown)}" if reading.unknown else "The query has no word"
    )
    return f"{what}, so there is nothing to search for. Describe it in other words, in the model's language."


def _listed(words: tuple[str, ...]) -> str:
    listed = ", ".join(shorten(word, 30) for word in words[:_MOST_WORDS])
    return listed if len(words) <= _MOST_WORDS else f"{listed} and {len(words) - _MOST_WORDS} other words"

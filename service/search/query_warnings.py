"""Says what of a query the model did not understand or did not read."""

from collections.abc import Mapping, Sequence

from model.runtime.messages import shorten
from model.runtime.text_reading import TextReading
from service.search.query import TextName
from service.search.results import QueryWarning, QueryWarningDetails

# Most words that a message names; the details hold all.
_MOST_WORDS = 5
# What the parts of a long text make together, and what to do if nothing of a text is understood.
_OF_PARTS: Mapping[TextName, str] = {
    "query": "the results fit them on average",
    "question": "each answer's score is the mean of theirs",
}
_SAY_OTHERWISE: Mapping[TextName, str] = {
    "query": "there is nothing to search for. Describe it in other words, in the model's language.",
    "question": "there is nothing to answer. Ask in other words, in the model's language.",
}

#: Names of languages, by their codes of ISO 639; others are told by their codes.
_LANGUAGES: Mapping[str, str] = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "mul": "many languages",
    "pt": "Portuguese",
    "ru": "Russian",
    "zh": "Chinese",
}


def warnings_of(
    reading: TextReading, name: TextName = "query", languages: Sequence[str] = ()
) -> tuple[QueryWarning, ...]:
    """The warnings about a text; `languages` are codes of those that the model reads, none if not known."""
    warnings = []
    if reading.unknown:
        message = f"The model does not know {_listed(reading.unknown)}: the rest of the {name} decides."
        message += _reads(languages)
        details = QueryWarningDetails(words=list(reading.unknown))
        warnings.append(QueryWarning("not_understood", message, details))
    parts = len(reading.parts)
    if reading.left_out:
        message = (
            f"The {name} is too long: its first {parts} parts were read, and the rest was left out, from "
            f"{shorten(reading.left_out, 40)} on. Shorten it."
        )
        details = QueryWarningDetails(num_parts=parts, left_out=reading.left_out)
        warnings.append(QueryWarning("truncated", message, details))
    elif parts > 1:
        message = (
            f"The {name} is longer than the model reads at once: it was read in {parts} parts, and "
            f"{_OF_PARTS[name]}."
        )
        warnings.append(QueryWarning("split", message, QueryWarningDetails(num_parts=parts)))
    return tuple(warnings)


def not_understood_message(
    reading: TextReading, name: TextName = "query", languages: Sequence[str] = ()
) -> str:
    """The error for a text of which nothing is understood; `languages` as for `warnings_of`."""
    unknown = reading.unknown
    what = f"The model does not know {_listed(unknown)}" if unknown else f"The {name} has no word"
    return f"{what}, so {_SAY_OTHERWISE[name]}{_reads(languages)}"


def _reads(languages: Sequence[str]) -> str:
    """Which languages the model reads, as a sentence; empty where that is not known."""
    named = [_LANGUAGES.get(code, code) for code in languages]
    if not named:
        return ""
    return f" It reads {named[0] if len(named) == 1 else ', '.join(named[:-1]) + ' and ' + named[-1]}."


def _listed(words: tuple[str, ...]) -> str:
    listed = ", ".join(shorten(word, 30) for word in words[:_MOST_WORDS])
    return listed if len(words) <= _MOST_WORDS else f"{listed} and {len(words) - _MOST_WORDS} other words"

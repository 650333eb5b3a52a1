"""What `reelfind search` searches for: its text and the options that make another kind of query."""

from collections.abc import Sequence
from pathlib import Path

from model.runtime.errors import InputError
from model.runtime.names import near
from service.errors import QueryError
from service.search.queries import (
    MAX_STEPS,
    FeedbackQuery,
    FrameQuery,
    MixedQuery,
    PictureQuery,
    PlainQuery,
    SearchQuery,
    SequenceQuery,
    TextQuery,
)
from service.search.query import clean_text
from service.settings import Settings


def query_of(
    settings: Settings,
    text: str | None,
    image: Path | None,
    like: Sequence[str],
    not_text: str | None,
    then: Sequence[str],
) -> SearchQuery:
    """The query of a command line.

    Args:
        settings: the longest text and the largest picture.
        text: the text; None: there is none.
        image: a file with a picture; None: there is none.
        like: ids of stored frames. Alone, one is the example, and several are liked; with a text or a picture
            they are feedback to that.
        not_text: what hits should not show; None: anything.
        then: what comes after the text, in order.

    Raises:
        QueryError: a text is invalid, or the options do not go together.
        InputError: the picture cannot be read.
    """
    if then and (image or like):
        raise QueryError("--then goes with texts alone: leave out --image and --like.")
    if text is None and not_text is not None:
        raise QueryError("--not goes with a text: say what to find too.")
    if text is None and then:
        raise QueryError("--then comes after a text: say what comes first.")
    first = None if text is None else _text(settings, text, not_text)
    if first is not None and then:
        if len(then) >= MAX_STEPS:
            raise QueryError(f"--then is given {len(then)} times; a sequence has at most {MAX_STEPS} texts.")
        return SequenceQuery((first, *(_text(settings, each) for each in then)))
    original: PlainQuery | None = first
    if image is not None:
        picture = _picture(settings, image)
        original = picture if first is None else MixedQuery(first, picture)
    if not like:
        if original is None:
            raise QueryError("there is nothing to search for: give a text, --image FILE or --like FRAME_ID.")
        return original
    frames = tuple(map(FrameQuery, like))
    return frames[0] if original is None and len(frames) == 1 else FeedbackQuery(original, frames)


def _text(settings: Settings, text: str, not_text: str | None = None) -> TextQuery:
    most = settings.max_query_characters
    unwanted = None if not_text is None else clean_text(not_text, most)
    return TextQuery(clean_text(text, most), unwanted)


def _picture(settings: Settings, path: Path) -> PictureQuery:
    try:
        with path.open("rb") as file:
            data = file.read(settings.max_image_bytes + 1)
    except FileNotFoundError as error:
        raise InputError(f"no picture at {path}{near(path)}: name a JPEG, PNG or WebP file") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > settings.max_image_bytes:
        raise InputError(
            f"{path} has more than {settings.max_image_bytes:,} bytes: scale it down, or raise "
            "REELFIND_MAX_IMAGE_BYTES"
        )
    return PictureQuery(data, settings.max_image_pixels)

"""Makes the facts of any file fit the columns of `videos`: one odd file must not end a run."""

import math
from dataclasses import replace

from indexer.library.schema import VideoRow

_INT32, _INT64 = (1 << 31) - 1, (1 << 63) - 1


def storable(row: VideoRow) -> VideoRow:
    """The row with every value inside its column's type.

    Sizes are cut to the largest number, lengths and rates that are not finite become 0, and text becomes
    valid Unicode.
    """
    return replace(
        row,
        bytes=min(row.bytes, _INT64),
        duration_seconds=_finite(row.duration_seconds),
        fps=_finite(row.fps),
        width=min(row.width, _INT32),
        height=min(row.height, _INT32),
        codec=_unicode(row.codec),
        container=_unicode(row.container),
        title=None if row.title is None else _unicode(row.title),
        reason=None if row.reason is None else _unicode(row.reason),
        camera=None if row.camera is None else _unicode(row.camera),
        audio_codec=None if row.audio_codec is None else _unicode(row.audio_codec),
    )


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _unicode(text: str) -> str:
    """The text with U+FFFD in place of halves of surrogate pairs, which UTF-8 cannot store."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

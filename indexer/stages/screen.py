"""The stage that reads what is written in the pictures: RapidOCR on the pictures that the index samples.

Pictures without edges are not read, nor those that look like the one before. What is read in one picture is
followed through the next ones; see `screen_lines`.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from indexer.library.schema import VideoRow
from indexer.media import MediaKind, PictureChunk
from indexer.stages.base import StageName, StageResult
from indexer.stages.screen_lines import MAX_ROWS, ScreenLines
from indexer.stages.screen_pictures import LastPicture, brightness, is_blank
from indexer.stages.screen_reading import Reading, TextReader
from model.runtime.bundle import Provider

#: Of short videos, the index samples more pictures than these: nobody reads so fast.
_LEAST_STEP_SECONDS = 1.0
#: Rounded times of frames may come a little early.
_TOLERANCE_SECONDS = 0.1


class ScreenStage:
    """A `Stage` that gives lines of the kind "screen".

    Args:
        provider: where the models run: on a GPU if it is "cuda" or "tensorrt".
        threads: of the CPU.

    Raises:
        InputError: RapidOCR is not installed, or its weights are not in it.
    """

    name: StageName = "screen"
    media: MediaKind = "pictures"
    #: Twice the size at which text is looked for: smaller letters than these would not be found.
    max_side = 1280

    def __init__(self, provider: Provider = "cpu", threads: int = 1) -> None:
        self._reader = TextReader(threads, gpu=provider != "cpu")
        self.key = self._reader.key

    def read(self, video: VideoRow, chunks: Iterator[PictureChunk]) -> StageResult:
        """See `Stage`. The models are not loaded for a video of blank pictures."""
        del video
        lines = ScreenLines()
        pictures = _Pictures(self._reader)
        end_seconds, next_seconds = 0.0, 0.0
        for chunk in chunks:
            end_seconds = chunk.end_seconds
            for pts_seconds, picture in zip(chunk.pts_seconds.tolist(), chunk.data, strict=True):
                if pts_seconds >= next_seconds:
                    lines.add(pts_seconds, pictures.read(picture))
                    next_seconds = pts_seconds + _LEAST_STEP_SECONDS - _TOLERANCE_SECONDS
        found = tuple(lines.done(end_seconds))
        problems = (
            (f"{lines.left_out} rows of text beyond {MAX_ROWS} are left out",) if lines.left_out else ()
        )
        return StageResult(lines=found, problems=problems)

    def close(self) -> None:
        """See `Stage`."""
        self._reader.close()


class _Pictures:
    """Reads the pictures of one video, those that need it."""

    def __init__(self, reader: TextReader) -> None:
        self._reader = reader
        self._last = LastPicture()
        self._readings: list[Reading] = []

    def read(self, picture: NDArray[np.uint8]) -> list[Reading]:
        """What is written in the next picture, RGB [h, w, 3]."""
        grey = brightness(picture)
        # A blank picture is compared too, so that the one after it is not taken for the one before it.
        is_like = self._last.is_like(grey)
        if not is_like:
            self._readings = [] if is_blank(grey) else self._reader.read(picture)
        return self._readings

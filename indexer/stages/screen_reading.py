"""Reads the text in one picture with RapidOCR, whose weights come in its package.

PP-OCRv6 reads Chinese, Japanese and languages in Latin letters, and next to nothing of other scripts.
"""

import importlib
import importlib.metadata
import importlib.util
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.errors import InputError
from model.runtime.installing import install_command
from model.runtime.timed_text import plain_text

#: Text is looked for in a picture of this size on its longer side, and read at full size. On captions of 9 to
#: 20 pixels at 640 × 360 and 1280 × 720, 640 finds 94 % of the words; 480 88 %; 960 96 % in twice the time.
_DETECTION_SIDE = 640
#: Rows of text in a picture, at most: a page of print has fewer. Each costs some 20 ms.
_MOST_BOXES = 300
#: The mean and deviation of colours that the detector was trained with; with RapidOCR's own, it misses
#: more of the smallest letters.
_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
#: A reading counts from this confidence on, and one with fewer than `_SHORT` letters from the higher one:
#: patterns that look like letters give short readings.
_LEAST_SCORE = 0.6
_LEAST_SHORT_SCORE = 0.85
_SHORT = 4
#: A single letter says nothing.
_FEWEST_LETTERS = 2


@dataclass(frozen=True)
class Reading:
    """A row of text in one picture.

    Attributes:
        text: what is written, in one line.
        score: the recognizer's confidence, from 0 to 1.
        left, top, right, bottom: the box around it, in pixels.
    """

    text: str
    score: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """The height of its box, in pixels; more than 0."""
        return max(1.0, self.bottom - self.top)


class TextReader:
    """Reads the text in pictures. Its models are loaded with the first picture. Used by one thread.

    Args:
        threads: threads of each operation.
        gpu: compute on a GPU with CUDA.

    Raises:
        InputError: RapidOCR is not installed, or its weights are not in it.
    """

    def __init__(self, threads: int = 1, *, gpu: bool = False) -> None:
        try:
            found = importlib.util.find_spec("rapidocr")
        except ModuleNotFoundError:
            found = None
        if found is None or not found.submodule_search_locations:
            raise InputError(
                f"screen: the package rapidocr is not installed: `{install_command('screen')}`",
                field="screen",
            )
        self.version = importlib.metadata.version("rapidocr")
        models = Path(found.submodule_search_locations[0]) / "models"
        self._weights = {part: models / f"PP-OCRv6_{part}_small.onnx" for part in ("det", "rec")}
        for file in self._weights.values():
            if not file.is_file():
                raise InputError(
                    f"screen: rapidocr {self.version} has no {file.name}: `{install_command('screen')}`",
                    field="screen",
                )
        self._threads, self._gpu = threads, gpu
        self._engine: Any = None

    @property
    def key(self) -> str:
        """Names the program, its version and the model, and this module's settings by a number."""
        return f"rapidocr {self.version} PP-OCRv6 small, 1"

    def read(self, picture: NDArray[np.uint8]) -> list[Reading]:
        """The rows of text in a picture that are surely enough text, in reading order.

        Args:
            picture: RGB, uint8 [h, w, 3].
        """
        if self._engine is None:
            self._engine = self._load()
        # It takes the colours in the order of OpenCV.
        result = self._engine(np.ascontiguousarray(picture[:, :, ::-1]), use_det=True, use_rec=True)
        if result.txts is None:
            return []
        readings = []
        for text, score, box in zip(result.txts, result.scores, result.boxes, strict=True):
            (left, top), (right, bottom) = np.min(box, axis=0), np.max(box, axis=0)
            row = Reading(
                plain_text(text, resolve=False), float(score), *map(float, (left, top, right, bottom))
            )
            if is_text(row):
                readings.append(row)
        return in_reading_order(readings)

    def close(self) -> None:
        """Free the models; another picture would load them again."""
        self._engine = None

    def _load(self) -> Any:
        rapidocr = importlib.import_module("rapidocr")
        # OpenCV only crops and scales here: threads of its own would not pay.
        importlib.import_module("cv2").setNumThreads(1)
        return rapidocr.RapidOCR(
            params={
                # It writes to the terminal where a picture has no text.
                "Global.log_level": "critical",
                # Text that stands on its head is rare in videos, and asking costs as much as reading.
                "Global.use_cls": False,
                "Global.text_score": min(_LEAST_SCORE, _LEAST_SHORT_SCORE),
                # Paths of its own files: it downloads nothing, whatever is missing.
                "Det.model_path": str(self._weights["det"]),
                "Rec.model_path": str(self._weights["rec"]),
                "Det.limit_type": "max",
                "Det.limit_side_len": _DETECTION_SIDE,
                "Det.mean": _MEAN,
                "Det.std": _DEVIATION,
                "Det.max_candidates": _MOST_BOXES,
                "EngineConfig.onnxruntime.intra_op_num_threads": self._threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "EngineConfig.onnxruntime.use_cuda": self._gpu,
                # Rows of text have many widths: a search for the fastest algorithm for each would not end.
                "EngineConfig.onnxruntime.cuda_ep_cfg.cudnn_conv_algo_search": "HEURISTIC",
            }
        )


def is_text(reading: Reading) -> bool:
    """Whether a reading is text rather than a pattern that looks like some."""
    letters = sum(unicodedata.category(c)[0] in "LN" for c in reading.text)
    least = _LEAST_SHORT_SCORE if letters < _SHORT else _LEAST_SCORE
    return letters >= _FEWEST_LETTERS and reading.score >= least


def in_reading_order(readings: list[Reading]) -> list[Reading]:
    """From the top row to the bottom one; in a row, from left to right.

    What begins above the middle of a row's first text stands in that row.
    """
    ordered: list[Reading] = []
    row: list[Reading] = []
    for reading in sorted(readings, key=lambda reading: (reading.top, reading.left)):
        if row and reading.top > (row[0].top + row[0].bottom) / 2:
            ordered += sorted(row, key=lambda reading: reading.left)
            row = []
        row.append(reading)
    return ordered + sorted(row, key=lambda reading: reading.left)

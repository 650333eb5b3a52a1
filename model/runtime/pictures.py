"""Reads pictures that strangers send: a few formats, of bounded size, whatever their bytes are.

A picture is read as a frame of a video is: upright, in RGB, with at most `READ_SIDE` pixels on its longer
side, so that the model gets of both what it gets at index time.
"""

import io
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from model.runtime.errors import InputError
from model.runtime.preprocessing import READ_SIDE, upright_rgb

#: The formats that are read, by Pillow's names, and how messages call them. Others are refused unread.
FORMATS: Mapping[str, str] = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "GIF": "GIF",
    "AVIF": "AVIF",
    "BMP": "BMP",
}
#: Most pixels of a picture, unless told otherwise.
MAX_PIXELS = 50_000_000

_LISTED = f"{', '.join(list(FORMATS.values())[:-1])} or {list(FORMATS.values())[-1]}"
# One picture is decoded at a time: each may take 8 bytes a pixel meanwhile.
_DECODING = threading.Lock()


def read_picture(data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode a picture. Of a moving one, the first picture; transparent parts are white.

    Args:
        data: the content of a file.
        max_pixels: a picture with more, by its header, is refused before it is decoded.

    Returns:
        RGB, uint8, shape [h, w, 3], at most `READ_SIDE` pixels on its longer side.

    Raises:
        InputError: it is empty, of another format, too large, damaged or truncated.
    """
    if not data:
        raise InputError(f"The picture is empty: it has 0 bytes. Send a {_LISTED} file.")
    with _DECODING:
        try:
            with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
                _check_size(image, max_pixels)
                # JPEG is decoded at a half, a quarter or an eighth of its size, as far as that is enough.
                image.draft("RGB", (2 * READ_SIDE, 2 * READ_SIDE))
                return np.array(upright_rgb(image, READ_SIDE))
        except InputError:
            raise
        except UnidentifiedImageError as error:
            raise InputError(
                f"The picture is no {_LISTED} file, or its beginning is damaged. Convert it to one of these."
            ) from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(
                f"The picture has too many pixels; at most {max_pixels:,} are read. Scale it down."
            ) from error
        # Pillow's readers raise almost any error on damaged input.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"The picture is damaged and cannot be read ({reason[:200]}). Save it anew."
            ) from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"The picture has {width} × {height} = {width * height:,} pixels; at most {max_pixels:,} are "
            "read. Scale it down."
        )

"""Pictures of strangers: odd ones are read as they are meant to be seen, and harmful ones refused."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.runtime.errors import InputError
from model.runtime.pictures import FORMATS, read_picture
from model.runtime.preprocessing import READ_SIDE

ORIENTATION = 0x0112


def colours(width: int = 60, height: int = 40) -> NDArray[np.uint8]:
    """A picture whose left half is red, and its right one blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    return pixels


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def check_halves(pixels: NDArray[np.uint8]) -> None:
    """The left half is red and the right one blue, but for what compression changes."""
    width = pixels.shape[1]
    for part, colour in ((pixels[:, : width // 3], (255, 0, 0)), (pixels[:, -width // 3 :], (0, 0, 255))):
        assert np.abs(part.mean(axis=(0, 1)) - colour).max() < 25


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_is_named_is_read(kind: str) -> None:
    pixels = read_picture(saved(Image.fromarray(colours()), kind))
    assert pixels.shape == (40, 60, 3)
    check_halves(pixels)


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 1), (8, 3)])
def test_a_picture_is_turned_upright(orientation: int, turn: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    pixels = read_picture(saved(Image.fromarray(np.rot90(colours(), turn)), "JPEG", quality=95, exif=exif))
    assert pixels.shape == (40, 60, 3)
    check_halves(pixels)


def test_a_picture_in_the_colours_of_print() -> None:
    check_halves(read_picture(saved(Image.fromarray(colours()).convert("CMYK"), "JPEG", quality=95)))


def test_sixteen_bits_are_scaled_to_eight() -> None:
    ramp = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    pixels = read_picture(saved(Image.fromarray(ramp)))
    assert (pixels == (ramp >> 8)[..., None]).all()


def test_of_a_moving_picture_the_first_one_is_read() -> None:
    later = Image.new("RGB", (60, 40), "green")
    for kind in ("GIF", "WEBP", "PNG"):
        moving = saved(Image.fromarray(colours()), kind, save_all=True, append_images=[later], duration=100)
        check_halves(read_picture(moving))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(mode: str) -> None:
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 10))
    pixels = read_picture(saved(image.convert(mode)))
    assert (pixels[:, :10] == 0).all()
    assert (pixels[:, 10:] == 255).all()


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA")])
def test_large_pictures_are_shrunk_as_frames_are(kind: str, mode: str) -> None:
    large = Image.fromarray(colours(3000, 2000)).convert(mode)
    pixels = read_picture(saved(large, kind))
    assert pixels.shape == (round(READ_SIDE * 2 / 3), READ_SIDE, 3)
    check_halves(pixels)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty: it has 0 bytes. Send a JPEG, PNG, WebP, GIF, AVIF or BMP file"),
        (b"\x00" * 1000, "no JPEG, PNG, WebP, GIF, AVIF or BMP file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>", "is no JPEG"),
        (saved(Image.new("RGB", (9, 9)), "TIFF"), "is no JPEG.*Convert it"),
        (saved(Image.fromarray(colours()), "JPEG")[:300], "damaged and cannot be read.*Save it anew"),
        (
            saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)))[:900],
            "dam",
        ),
        (png_of_size(60, 40), "damaged"),
        (png_of_size(9000, 7000), r"9000 × 7000 = 63,000,000 pixels; at most 50,000,000 are read. Scale it"),
        (png_of_size(12_000, 9_000), r"pixels; at most 50,000,000 are read"),
        (png_of_size(2**31 - 1, 2**31 - 1), r"pixels; at most 50,000,000 are read"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_picture(data)


def test_the_limit_of_pixels_holds_before_anything_is_decoded() -> None:
    data = saved(Image.fromarray(colours()))
    assert read_picture(data, 60 * 40).shape == (40, 60, 3)
    with pytest.raises(InputError, match="60 × 40 = 2,400 pixels; at most 2,399 are read"):
        read_picture(data, 60 * 40 - 1)


def test_damaged_bytes_give_a_picture_or_the_error() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
    for kind in FORMATS:
        whole = bytearray(saved(noise, kind))
        for _ in range(60):
            data = whole.copy()
            for place in rng.integers(0, len(data), rng.integers(1, 12)):
                data[place] = rng.integers(0, 256)
            try:
                pixels = read_picture(bytes(data[: rng.integers(1, len(data) + 1)]))
            except InputError:
                continue
            assert pixels.dtype == np.uint8
            assert max(pixels.shape[:2]) <= READ_SIDE

"""Interlaced frames are de-interlaced where they move: compared with the film that they were made from."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.video import VideoReader
from model.runtime.video.cropping import filtered
from model.runtime.video.interlacing import Deinterlacer, as_progressive
from tests.support.clips import ffmpeg, reference

SIZE = (192, 144)
# A white bar that moves by 8 pixels in each field over a still picture.
MOVING = (
    "testsrc=size=192x144:rate=50:duration=1,loop=loop=50:size=1[back];color=white:size=24x144:rate=50[bar];"
    "[back][bar]overlay=x='mod(8*n,192)':shortest=1,trim=end_frame=50"
)
ENCODE = {
    "h264.ts": "-c:v libx264 -qp 4 -pix_fmt yuv420p -flags +ildct+ilme -x264-params {order}=1:bframes=2",
    "mpeg2.ts": "-c:v mpeg2video -q:v 1 -pix_fmt yuv420p -flags +ildct+ilme",
    "prores.mov": "-c:v prores_ks -pix_fmt yuv422p10le -flags +ildct",
    "ffv1.mkv": "-c:v ffv1 -pix_fmt yuv444p",
}
# Encoding mixes the colours of both fields where rows share them, so the film is grey where that would count.
GREY = {name: "hue=s=0," for name in ENCODE if name != "ffv1.mkv"}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fields") / "film.mkv"
    ffmpeg("-filter_complex", f"{MOVING},format=yuv444p", "-c:v", "ffv1", str(path))
    return path


def _frames(path: Path, max_side: int | None = None) -> NDArray[np.int_]:
    with VideoReader(path, max_side=max_side) as reader:
        [segment] = reader.segments(frames_per_segment=25)
        assert reader.damage is None
    return segment.frames.data.astype(int)


def _weave(film: Path, path: Path, order: str) -> Path:
    mode = "interleave_top" if order == "tff" else "interleave_bottom"
    ffmpeg(
        *("-i", str(film), "-vf", f"{GREY.get(path.name, '')}tinterlace={mode},setfield={order}"),
        *ENCODE[path.name].format(order=order).split(),
        *("-field_order", "tt" if order == "tff" else "bb", str(path)),
    )
    return path


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("name", ENCODE)
def test_moving_fields_are_not_woven(name: str, order: str, film: Path, tmp_path: Path) -> None:
    path = _weave(film, tmp_path / name, order)
    progressive = tmp_path / f"progressive_{name}"
    encode = ENCODE[name].format(order="no-interlaced").replace("-flags +ildct+ilme", "").split()
    ffmpeg(
        "-i",
        str(film),
        "-vf",
        f"{GREY.get(name, '')}select='not(mod(n,2))',setpts=N/25/TB",
        "-r",
        "25",
        *encode,
        str(progressive),
    )
    shown = _frames(path)
    truth = reference(progressive, SIZE).frames.astype(int)[: len(shown)]
    woven = reference(path, SIZE).frames.astype(int)[: len(shown)]
    assert np.abs(shown - truth).mean() < 0.1 * np.abs(woven - truth).mean()


def test_still_fields_stay_woven(film: Path, tmp_path: Path) -> None:
    """Progressive film in interlaced frames, as broadcasters send it, keeps all its rows."""
    path = tmp_path / "h264.ts"
    encode = ENCODE["h264.ts"].format(order="tff").split()
    ffmpeg("-i", str(film), "-vf", "fps=25,setfield=tff", *encode, str(path))
    shown = _frames(path)
    np.testing.assert_allclose(shown, reference(path, SIZE).frames[: len(shown)], atol=2)


def test_deinterlaced_frames_are_shrunk_and_need_no_minimum_size(film: Path, tmp_path: Path) -> None:
    path = _weave(film, tmp_path / "h264.ts", "tff")
    assert _frames(path, max_side=96).shape[1:3] == (72, 96)
    tiny = tmp_path / "tiny.ts"
    encode = ENCODE["h264.ts"].format(order="tff").split()
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=16x4:rate=25:duration=1", *encode, str(tiny))
    assert _frames(tiny).shape[1:3] == (4, 16)


@pytest.mark.parametrize(
    "pixels", ["uyvy422", "nv12", "p010le", "yuva444p16le", "rgb24", "pal8", "gray", "ya8"]
)
def test_every_format_is_read_whatever_its_matrix(pixels: str, film: Path, tmp_path: Path) -> None:
    """Some of them yadif does not take, and the scaler refuses the matrix YCgCo."""
    path = tmp_path / "fields.nut"
    filters = f"tinterlace=interleave_top,format={pixels},trim=end_frame=1"
    ffmpeg("-i", str(film), "-vf", filters, "-c:v", "rawvideo", str(path))
    with av.open(str(path)) as container:
        frame = filtered(next(container.decode(video=0)), ("setfield", "tff"))
        assert frame.interlaced_frame
        for matrix in (2, 8):
            frame.colorspace = matrix
            shown = as_progressive(frame)
            assert not shown.interlaced_frame
            assert (shown.width, shown.height) == SIZE


@pytest.mark.parametrize("name", ["mpeg2.ts", "prores.mov"])
def test_frames_in_order_are_deinterlaced_one_for_one(name: str, film: Path, tmp_path: Path) -> None:
    path = _weave(film, tmp_path / name, "tff")
    # The first field of each pair: the filter keeps it.
    fields = reference(film, SIZE).frames[::2].astype(int)
    deinterlacer = Deinterlacer()
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    shown = [image for frame in frames for image in deinterlacer.add(frame)]
    shown += deinterlacer.rest()
    assert len(shown) == len(frames) == 25
    assert not any(image.interlaced_frame for image in shown)
    # In what does not move, and in every row of the first field, it is the film.
    for image, field in list(zip(shown, fields, strict=True))[2:-2]:
        grey = image.to_ndarray(format="gray").astype(int)
        expected = av.VideoFrame.from_ndarray(field.astype(np.uint8), format="rgb24")
        difference = np.abs(grey - expected.to_ndarray(format="gray"))
        assert np.median(difference[::2]) <= 3
        assert np.quantile(difference, 0.9) <= 25


def test_a_deinterlacer_takes_frames_of_another_size() -> None:
    deinterlacer = Deinterlacer()
    shown: list[tuple[int, int]] = []
    for size in ((64, 48), (64, 48), (32, 32), (4, 4)):
        added = deinterlacer.add(av.VideoFrame(*size, "yuv420p"))
        shown += [(image.width, image.height) for image in added]
    shown += [(image.width, image.height) for image in deinterlacer.rest()]
    assert shown == [(64, 48), (64, 48), (32, 32), (4, 4)]

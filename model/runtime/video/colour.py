"""Which colour matrix turns a frame's stored values into RGB."""

import av
from av.video.reformatter import Colorspace

# Values of AVColorSpace, which are those of ITU-T H.273.
UNSPECIFIED = 2
# Matrices that swscale converts with. It refuses all others that FFmpeg has a name for (YCgCo, constant
# luminance, ICtCp, …); values without a name arrive as unspecified.
CONVERTIBLE = frozenset({0, 1, UNSPECIFIED, 3, 4, 5, 6, 7, 9})


def matrix_of(frame: av.VideoFrame) -> Colorspace | None:
    """The matrix to convert with where it is not simply the one that the frame names; else None.

    Players take BT.709 for high definition that names none. They take it too for the matrices that hardly
    any of them implements: Chromium does so for all of these, and most such names are wrong.
    """
    if frame.colorspace not in CONVERTIBLE:
        return Colorspace.ITU709
    if frame.colorspace == UNSPECIFIED and (frame.width >= 1280 or frame.height > 576):
        return Colorspace.ITU709
    return None

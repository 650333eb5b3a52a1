"""Makes one picture of the two fields of an interlaced frame, which are moments apart."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from model.runtime.video.colour import matrix_of
from model.runtime.video.cropping import filtered

# Given one frame alone, yadif keeps the first field and replaces those pixels of the other that form a comb.
DEINTERLACE = ("yadif", "mode=send_frame:parity=auto:deint=all")
# A frame is combed where, in a block of 8 x 8 pixels, at least 8 change by more than 20 of 255. Fine still
# detail and the noise of encoding change fewer.
BLOCK = 8
MIN_CHANGED = 8
MIN_CHANGE = 20


def as_progressive(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame as one picture: de-interlaced if anything in it moves, else with both fields as they are."""
    if not frame.interlaced_frame:
        return frame
    woven = filtered(frame, ("setfield", "prog"))  # scaling by fields would leave comb artefacts
    if frame.width < BLOCK or frame.height < BLOCK:
        return woven
    try:
        single = filtered(frame, DEINTERLACE)
    except (av.FFmpegError, OSError):  # neither yadif nor the scaler takes this format with this matrix
        return woven
    return single if _differ(_luma(woven), _luma(single)) else woven


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    matrix = matrix_of(frame)
    grey = VideoReformatter().reformat(
        frame, format="gray", src_colorspace=matrix, dst_colorspace=matrix, threads=1
    )
    return grey.to_ndarray().astype(np.uint8, copy=False)


def _differ(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two pictures [h, w] differ clearly in any block."""
    height, width = (side // BLOCK * BLOCK for side in one.shape)
    changed = np.maximum(one, other) - np.minimum(one, other) > MIN_CHANGE
    blocks = changed[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return bool((blocks.sum(axis=(1, 3)) >= MIN_CHANGED).any())

"""Reads the side data of frames: what a stream says of a picture beside its pixels."""

import av
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as Kind


def side_data(frame: av.VideoFrame, kind: str) -> bytes | None:
    """A frame's side data of one kind, named as in FFmpeg without the prefix; None where it has none."""
    data = frame.side_data.get(kind)
    return bytes(data) if isinstance(data, SideData) else None


def _name_of_unknown(kind: type[Kind], value: object) -> Kind:
    """A member for a kind that FFmpeg knows and PyAV does not, such as EXIF."""
    member: Kind = object.__new__(kind)
    member._name_ = f"KIND_{value}"
    member._value_ = value  # type: ignore[assignment]
    return member


# PyAV names the kinds of all side data of a frame when one of them is asked for, and raises ValueError at one
# that it has no name for: the display matrix of a picture with EXIF could not be read.
Kind._missing_ = classmethod(_name_of_unknown)  # type: ignore[method-assign, assignment]

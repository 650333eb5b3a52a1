"""Opens a media file safely, and converts its times."""

import os
import stat
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import BinaryIO, cast

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.video.stream import VideoStream

from model.runtime.errors import VideoError
from model.runtime.remote.path import RemotePath
from model.runtime.video.limits import ReadingLimits

# Formats read as video. Playlists and scripts (hls, dash, concat, …) are left out: they name other files.
VIDEO_FORMATS = (
    "3dostr,amv,apng,asf,av1,avi,cavsvideo,dirac,dnxhd,dv,flv,gif,gxf,h261,h263,h264,hevc,ivf,ivr,"
    "live_flv,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mpegtsraw,mxf,nsv,nut,obu,ogg,rm,vc1,vc1test,"
    "vvc,webp,wtv,yuv4mpegpipe"
)
# Formats opened only to say in the error what the file is.
OTHER_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,au,caf,dts,eac3,flac,mp3,mpc,opus,tta,w64,wav,wv,bmp_pipe,gif_pipe,"
    "ico,image2,j2k_pipe,jpeg_pipe,jpegxl_pipe,pbm_pipe,pgm_pipe,png_pipe,ppm_pipe,psd_pipe,qoi_pipe,"
    "svg_pipe,tiff_pipe,webp_pipe"
)
# Formats whose header need not list all streams: a stream is there from its first packet on.
LATE_STREAMS = ("flv", "live_flv", "mpegts", "mpeg", "nsv", "wtv")
# Read the whole file to find its streams, and keep no packet of it in memory.
PATIENCE = {"probesize": str(1 << 62), "analyzeduration": str(1 << 62), "fflags": "nobuffer"}
# Names of files that hold JPEG pictures one after the other; one picture is a photo.
MOTION_JPEG = (".mjpg", ".mjpeg")
STILL_BRANDS = ("heic", "heix", "mif1", "avif", "heim", "heis")
#: What is read at once of a file that has no path.
_BUFFER_BYTES = 256 << 10
TEXT_CONTROLS = set(range(32)) - set(b"\t\n\r\f\x1b")


@dataclass(frozen=True)
class Clock:
    """Converts a stream's ticks to seconds from the container's start, as players show them, and back."""

    time_base: Fraction
    origin: Fraction

    def seconds(self, ticks: int) -> float:
        """Seconds from the container's start."""
        return float(ticks * self.time_base - self.origin)

    def ticks(self, seconds: float) -> int:
        """The last tick at or before `seconds`, with a tolerance of a microsecond."""
        return floor((Fraction(seconds + 1e-6) + self.origin) / self.time_base)


def clock_of(container: InputContainer, stream: VideoStream) -> Clock:
    """The clock of a stream."""
    start = Fraction(container.start_time or 0, av.time_base)
    base = stream.time_base or Fraction(1, 90000)
    # The container's start is rounded to microseconds: restore the tick.
    if stream.start_time is not None and abs(stream.start_time * base - start) <= Fraction(1, av.time_base):
        start = stream.start_time * base
    return Clock(base, start)


def check_file(path: Path) -> None:
    """Check that a file may hold a video, before a decoder opens it.

    Raises:
        VideoError: the file is missing, unreadable, empty, or not a regular file.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise VideoError(f"{path}: is a folder, not a video", "unsupported")
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(f"{path}: is not a regular file", "unsupported")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise VideoError(f"{path}: cannot be read ({reason})", "unsupported") from error
    if status.st_size == 0:
        raise VideoError(f"{path}: is empty (0 bytes)", "corrupt")


def open_container(path: Path, limits: ReadingLimits, hwaccel: HWAccel | None = None) -> InputContainer:
    """Open a media file for reading. No picture that is far too large is decoded to find its format.

    Args:
        path: the file.
        limits: how large pictures may be.
        hwaccel: decodes its streams; None: software does.

    Raises:
        VideoError: it cannot be opened, or is not a media file.
    """
    check_file(path)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": f"{VIDEO_FORMATS},{OTHER_FORMATS}",
        **limits.codec_options,
    }
    container = _open(path, options, hwaccel)
    try:
        if container.format.name in LATE_STREAMS and container.streams.audio and not container.streams.video:
            container.close()
            container = _open(path, options | PATIENCE, hwaccel)
            container.seek(0, unsupported_byte_offset=True)
        _refuse_stills(container, path)
    except (av.FFmpegError, OSError) as error:
        container.close()
        raise VideoError(f"{path}: is damaged or not a media file ({reason_of(error)})", "corrupt") from error
    except BaseException:
        container.close()
        raise
    return container


def _open(path: Path, options: dict[str, str], hwaccel: HWAccel | None) -> InputContainer:
    form = "mjpeg" if _has_suffix(path, MOTION_JPEG) and _begins_as_jpeg(path) else None
    try:
        return av.open(
            _readable(path),
            "r",
            format=form,
            options=options,
            metadata_errors="replace",
            buffer_size=_BUFFER_BYTES,
            hwaccel=hwaccel,
        )
    except (av.FFmpegError, OSError) as error:
        if is_text(path):
            raise VideoError(f"{path}: is text, not a video", "unsupported") from error
        if isinstance(error, av.ArgumentError):  # recognised, but not on the list
            raise VideoError(f"{path}: is of a format that is not read as video", "unsupported") from error
        raise VideoError(f"{path}: is damaged or not a media file ({reason_of(error)})", "corrupt") from error
    except UnicodeEncodeError as error:
        raise VideoError(f"{path}: has a name that cannot be encoded", "unsupported") from error
    except Exception as error:  # PyAV may fail to describe what FFmpeg has opened
        raise VideoError(f"{path}: cannot be opened ({reason_of(error)})", "corrupt") from error


def _readable(path: Path) -> str | BinaryIO:
    """What FFmpeg reads a file from: its path, or an open file where there is none."""
    if isinstance(path, RemotePath):
        return cast("BinaryIO", path.open("rb", buffering=0))
    # FFmpeg never takes an absolute path for an address or a protocol such as "concat:".
    return os.path.abspath(path)  # noqa: PTH100


def _has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the name of a file ends so; of a link, such as `/proc/self/fd/N`, that of its target too."""
    names = [path, path.readlink()] if path.is_symlink() else [path]
    return any(name.suffix.lower() in suffixes for name in names)


def _begins_as_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def reason_of(error: Exception) -> str:
    """FFmpeg's message for an error, without number and path."""
    return getattr(error, "strerror", None) or str(error)


def is_text(path: Path) -> bool:
    """Whether a file starts like text in UTF-8."""
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not just a character cut in two
            return False
    return not TEXT_CONTROLS & set(head)


def _refuse_stills(container: InputContainer, path: Path) -> None:
    name = container.format.name
    if name.endswith("_pipe") or name in ("image2", "ico"):
        raise VideoError(f"{path}: is a still image, not a video", "unsupported")
    if container.metadata.get("major_brand", "") in STILL_BRANDS:
        raise VideoError(f"{path}: is a still image, not a video", "unsupported")
